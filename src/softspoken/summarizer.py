"""Dialogues → summaries: a model, with or without an adapter, in three lines of Python or as a command.

>>> summarizer = Summarizer.from_pretrained("mini", adapter="runs/demo/adapter")
>>> summarizer(["Nora: Where are you?\\nFelix: On the bus, ten minutes."])
"""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import sys
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, TextIO

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text
from transformers import GenerationConfig

from softspoken.config import SummarizeConfig
from softspoken.data import (
    SUFFIXES,
    OnBadRow,
    PromptFormat,
    clean,
    encode_prompts,
    file_suffix,
    iterate_dialogues,
    open_text,
    parse_json_lines,
    saying_what_is_wrong,
    to_dialogues,
)
from softspoken.hub import require_on_hub
from softspoken.pretrained import load_seq2seq, load_tokenizer, prompt_format_for, resolve, resolve_device
from softspoken.types import Dialogue, InputError

log = logging.getLogger(__name__)

MAX_NEW_TOKENS = 60
"""The longest summary of a model that does not say its own; transformers' default, 20, cuts most summaries off."""
WINDOW = 8
"""Batches that are read ahead and sorted by length: less padding, at constant memory."""


@dataclass
class Summarizer:
    """A loaded model with what its prompts and its decoding need; made by `from_pretrained`."""

    model: Any
    tokenizer: Any
    prompt_format: PromptFormat
    generation_config: GenerationConfig
    """How `__call__` decodes: what is saved beside the adapter, completed by what is saved beside the model."""
    truncated: int = 0
    """Dialogues that were too long for the encoder and were cut, so far."""

    @classmethod
    def from_pretrained(
        cls,
        model: str = "mini",
        *,
        adapter: str | None = None,
        device: str = "auto",
        dtype: torch.dtype = torch.float32,
        max_new_tokens: int | None = None,
    ) -> Summarizer:
        """`model` and `adapter` are hub ids or folders (`mini` is the embedded model).

        The adapter's own tokenizer, prompt format and generation config are used where it has them, else the model's.
        """
        folder = adapter_folder(adapter) if adapter else None
        place = resolve_device(device)
        seq2seq: Any = load_seq2seq(model, dtype)
        generation = _generation_config(folder, seq2seq.generation_config, max_new_tokens)
        # generate() fills what is not set from the model's own: neutral, so that it is what this object says and no more.
        seq2seq.generation_config = GenerationConfig()
        has_tokenizer = folder is not None and (folder / "tokenizer_config.json").is_file()
        return cls(
            model=(_with_adapter(seq2seq, folder, model) if folder else seq2seq).to(place).eval(),
            tokenizer=load_tokenizer(str(folder) if has_tokenizer else model),
            prompt_format=(PromptFormat.load(folder) if folder else None) or prompt_format_for(model),
            generation_config=generation,
        )

    def __call__(self, dialogues: list[str], batch_size: int = 16) -> list[str]:
        """One summary a dialogue, in order; greedy, unless the saved generation config says otherwise."""
        return [summary for _, summary in self.stream(_checked(dialogues), batch_size)]

    def sample(self, dialogues: list[str], samples: int, seed: int, batch_size: int = 16) -> list[list[str]]:
        """`samples` summaries of each dialogue at temperature 1, from the whole distribution, as training samples them.

        The same for the same arguments, whatever else draws random numbers; ids without a token never come out.
        """
        checked = _checked(dialogues)
        config = self._sampling_config(samples)
        summaries: list[list[str]] = [[] for _ in checked]
        devices = [self.model.device] if self.model.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            for rows in _by_length(checked, batch_size):
                texts = self._generate([checked[row] for row in rows], config)
                for place, row in enumerate(rows):
                    summaries[row] = texts[place * samples : (place + 1) * samples]
        return summaries

    def stream(self, dialogues: Iterable[Dialogue], batch_size: int = 16) -> Iterator[tuple[Dialogue, str]]:
        """Each dialogue with its summary, in order and as batches are done; reads no more than WINDOW batches ahead."""
        source = iter(dialogues)
        while window := list(islice(source, batch_size * WINDOW)):
            done: dict[int, str] = {}
            row = 0
            for rows in _by_length(window, batch_size):
                done.update(
                    zip(rows, self._generate([window[row] for row in rows], self.generation_config), strict=True)
                )
                while row in done:
                    yield window[row], done.pop(row)
                    row += 1

    @torch.inference_mode()
    def _generate(self, dialogues: list[Dialogue], config: GenerationConfig) -> list[str]:
        batch = encode_prompts(dialogues, self.tokenizer, self.prompt_format)
        self.truncated += batch.truncated
        place = self.model.device
        ids = self.model.generate(
            input_ids=batch.input_ids.to(place), attention_mask=batch.attention_mask.to(place), generation_config=config
        )
        return [text.strip() for text in self.tokenizer.batch_decode(ids, skip_special_tokens=True)]

    def _sampling_config(self, samples: int) -> GenerationConfig:
        """Nothing that bends the distribution is taken over: only which ids have which role, and the length."""
        saved = self.generation_config
        outputs = self.model.get_output_embeddings().weight.shape[0]
        return GenerationConfig(
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            num_beams=1,
            num_return_sequences=samples,
            suppress_tokens=sorted({self.tokenizer.pad_token_id, *range(len(self.tokenizer), outputs)}),
            max_new_tokens=saved.max_new_tokens,
            max_length=None if saved.max_new_tokens else saved.max_length,
            decoder_start_token_id=saved.decoder_start_token_id,
            bos_token_id=saved.bos_token_id,
            eos_token_id=saved.eos_token_id,
            pad_token_id=saved.pad_token_id,
            forced_bos_token_id=saved.forced_bos_token_id,
        )


def _checked(texts: list[str]) -> list[Dialogue]:
    if isinstance(texts, str):
        raise InputError("dialogues must be a list of texts; put the one text into a list")
    return list(to_dialogues(({"dialogue": text} for text in texts), source="dialogues"))


def _by_length(dialogues: list[Dialogue], batch_size: int) -> Iterator[list[int]]:
    """Row numbers in batches of similar length."""
    rows = sorted(range(len(dialogues)), key=lambda row: len(dialogues[row].text))
    return (rows[first : first + batch_size] for first in range(0, len(rows), batch_size))


# ------------------------------------------------------------------------------------------------------ loading


def adapter_folder(adapter: str) -> Path:
    """Where the adapter's files lie: the folder itself, or the local copy of a hub id's."""
    folder = Path(adapter)
    if (folder / "adapter_config.json").is_file():
        return folder
    if (folder / "adapter" / "adapter_config.json").is_file():
        raise InputError(f"adapter {adapter} is a run's folder; give {folder / 'adapter'}")
    if folder.is_dir():
        raise InputError(
            f"adapter {adapter} has no adapter_config.json; give a folder that softspoken or PEFT saved an adapter to"
        )
    if folder.exists() or folder.is_absolute() or adapter.startswith(".") or adapter.count("/") != 1:
        raise InputError(f"no adapter folder at {adapter}; give the folder of a saved adapter, or a hub id")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    require_on_hub(adapter, "model", "give the folder of a local copy")
    try:
        return Path(snapshot_download(adapter, allow_patterns=["*.json", "*.safetensors", "*.model", "*.txt"]))
    except (OSError, HfHubHTTPError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"adapter {adapter} is no folder here, and the hub does not give it ({reason}); give the folder of a copy"
        ) from error


def _with_adapter(seq2seq: Any, folder: Path, model: str) -> Any:
    from peft import PeftModel, get_peft_model_state_dict, load_peft_weights
    from safetensors import SafetensorError

    try:
        with warnings.catch_warnings():
            # An adapter of another model may fit in part: PEFT warns of weights it misses, and drops those it has no place for.
            warnings.filterwarnings("error", message=".*missing adapter keys")
            adapted = PeftModel.from_pretrained(seq2seq, str(folder))
        placed = get_peft_model_state_dict(adapted, save_embedding_layers=False)
        dropped = [
            name for name in load_peft_weights(str(folder), device="cpu") if "lora_" in name and name not in placed
        ]
        if dropped:
            raise ValueError(f"there is no place for its {dropped[0]}")
        return adapted
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, UserWarning, SafetensorError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"adapter {folder} cannot be put on {model} ({reason[:200]}){_remedy(folder, model)}"
        ) from error


def _remedy(folder: Path, model: str) -> str:
    """Where the adapter's own record names another base, that is most likely what is wrong."""
    with contextlib.suppress(ValueError, KeyError):
        base = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"]
        if base not in (model, resolve(model)):
            return f"; it was made for {base}: pass that as --model"
    return "; give a folder that softspoken or PEFT saved whole"


def _generation_config(folder: Path | None, models: GenerationConfig, max_new_tokens: int | None) -> GenerationConfig:
    """A copy of the adapter's config, or of the model's; what the former leaves open is the latter's, as in generate()."""
    config = copy.deepcopy(models)
    if folder and (folder / "generation_config.json").is_file():
        try:
            config = GenerationConfig.from_pretrained(str(folder))
        except (OSError, ValueError, TypeError) as error:
            raise InputError(
                f"adapter {folder} has a generation_config.json that cannot be read; restore or remove it"
            ) from error
        for name, value in models.to_dict().items():
            if getattr(config, name, None) is None:
                setattr(config, name, value)
    if max_new_tokens or (config.max_new_tokens is None and config.max_length is None):
        config.max_new_tokens = max_new_tokens or MAX_NEW_TOKENS
    if config.max_new_tokens is not None:
        config.max_length = None  # the former counts; transformers warns about each batch where both are set
    return config


# -------------------------------------------------------------------------------------------------- the command


def summarize(config: SummarizeConfig, input: TextIO, output: TextIO) -> None:
    """Summaries of `config.file` (or of `input`) to `output`, as they are made: a JSON line each, or plain text for plain text."""
    as_json, dialogues = _read(config.file, input, config.on_bad_row)
    first = next(dialogues, None)  # input that cannot be read is said before the model is loaded
    if first is None:
        raise InputError(
            f"{_name(config.file)} has no dialogue in it; give JSON lines with id and dialogue, or plain text"
        )
    total = _checked_count(config)
    summarizer = Summarizer.from_pretrained(
        config.model, adapter=config.adapter, device=config.device, max_new_tokens=config.max_new_tokens
    )
    with _progress(output) as progress:
        task = progress.add_task("summarize", total=total)
        for count, (dialogue, summary) in enumerate(summarizer.stream(chain([first], dialogues), config.batch_size)):
            if as_json:
                output.write(json.dumps({"id": dialogue.id, "summary": summary}, ensure_ascii=False) + "\n")
            else:
                output.write(("\n" if count else "") + clean(summary) + "\n")
            output.flush()
            progress.advance(task)
    if summarizer.truncated:
        side = "end" if summarizer.prompt_format.truncation_side == "right" else "beginning"
        log.warning(
            "%d dialogues were longer than %d tokens; their %s was cut off",
            summarizer.truncated,
            summarizer.prompt_format.max_prompt_tokens,
            side,
        )


def _name(file: str) -> str:
    return "standard input" if file == "-" else file


def _read(file: str, input: TextIO, on_bad_row: OnBadRow) -> tuple[bool, Iterator[Dialogue]]:
    """(whether JSON lines are to be written, the dialogues) of a data file, a text file or a stream."""
    path = Path(file)
    if file != "-" and file_suffix(path) in SUFFIXES:
        return True, iterate_dialogues(file, "", on_bad_row=on_bad_row)
    if file != "-" and (path.is_dir() or not path.exists()):
        raise InputError(f"no file at {file}; give a text, JSON, JSONL, CSV or Parquet file, or - for standard input")
    lines = _lines(input if file == "-" else _open(path), _name(file))
    start = list(islice((line for line in lines if line.strip()), 1))
    lines = chain(start, lines)
    if start and start[0].lstrip().startswith("{"):
        return True, to_dialogues(
            parse_json_lines(lines, source=_name(file)), source=_name(file), on_bad_row=on_bad_row
        )
    return False, to_dialogues(
        ({"dialogue": block} for block in _blocks(lines)), source=_name(file), on_bad_row=on_bad_row
    )


def _checked_count(config: SummarizeConfig) -> int | None:
    """How many dialogues a file holds: read through once, so that row 900,000 is found bad now and not in an hour.

    A stream cannot be read twice; and with `skip` nothing needs to be found. Then the number is not known.
    """
    if config.on_bad_row == "skip" or config.file == "-" or not Path(config.file).is_file():
        return None
    return sum(1 for _ in _read(config.file, sys.stdin, config.on_bad_row)[1])


def _open(path: Path) -> Iterator[str]:
    with open_text(path) as file:
        yield from file


def _lines(stream: Iterable[str], source: str) -> Iterator[str]:
    with saying_what_is_wrong(source):
        for number, line in enumerate(stream):
            yield line if number else line.removeprefix("\ufeff")


def _blocks(lines: Iterable[str]) -> Iterator[str]:
    """Runs of lines between blank ones."""
    block: list[str] = []
    for line in chain(lines, [""]):
        if line.strip():
            block.append(line)
        elif block:
            yield "".join(block)
            block = []


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        # Over the whole run: a batch's dialogues are done at one moment, which makes rich's own speed jump.
        return Text(f"{task.completed / task.elapsed:.1f}/s" if task.elapsed else "")


def _progress(output: TextIO) -> Progress:
    """On a terminal's stderr, unless the summaries themselves go to the terminal."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        _Speed(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal or output.isatty(),
    )
