"""Dialogues in, padded batches out: reading files and hub sets, cleaning, the prompt, length-bucketed batches."""

from __future__ import annotations

import contextlib
import csv
import gzip
import json
import logging
import math
import zlib
from collections.abc import Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal

import torch

from softspoken import mini
from softspoken.hub import require_on_hub
from softspoken.types import Dialogue, InputError, PromptBatch

log = logging.getLogger(__name__)

OnBadRow = Literal["error", "skip"]
FORMAT_FILE = "softspoken.json"
"""Lies beside a model or an adapter and says how its prompts are made."""
SUFFIXES = (".json", ".jsonl", ".csv", ".parquet")
COLUMNS = {
    "dialogue": "text",
    "summary": "reference",
    "literal_summary": "literal_reference",
    "id": "id",
    "group": "group",
}


@dataclass(frozen=True)
class PromptFormat:
    """How a dialogue becomes a prompt, and which end gives way when it is too long for the encoder."""

    template: str = "Summarize the following conversation.\n\n{dialogue}\n\nSummary:"
    max_prompt_tokens: int = 512
    truncation_side: Literal["left", "right"] = "right"
    """`right` keeps the beginning of the dialogue, `left` its end. The template itself is never cut."""

    def __post_init__(self) -> None:
        if self.template.count("{dialogue}") != 1:
            raise InputError(f"prompt_template {self.template!r} must contain {{dialogue}} exactly once")

    def prompt(self, dialogue: str) -> str:
        return self.template.replace("{dialogue}", dialogue)  # other braces in a template are just braces

    def save(self, folder: Path) -> None:
        (folder / FORMAT_FILE).write_text(
            json.dumps({"prompt_format": asdict(self)}, indent=2) + "\n", encoding="utf-8"
        )

    @classmethod
    def load(cls, folder: str | Path) -> PromptFormat | None:
        """The format saved in `folder`, or None where there is none (a model that softspoken did not write)."""
        path = Path(folder) / FORMAT_FILE
        if not path.is_file():
            return None
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8"))["prompt_format"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path} is not a prompt format as softspoken writes it ({error}); restore or remove it"
            ) from error


# ---------------------------------------------------------------------------------------------------- reading


def load_dialogues(
    dataset: str, split: str, *, on_bad_row: OnBadRow = "error", limit: int | None = None
) -> list[Dialogue]:
    """All dialogues of a hub id, a local file, or `mini` (the embedded corpus).

    A local file holds one set: `split` does not apply to it. Raises InputError for anything that cannot be read.
    """
    dialogues = list(islice(iterate_dialogues(dataset, split, on_bad_row=on_bad_row), limit))
    if not dialogues:
        raise InputError(f"dataset {dataset!r} has no usable rows; give a file or hub set with at least one dialogue")
    return dialogues


def iterate_dialogues(dataset: str, split: str, *, on_bad_row: OnBadRow = "error") -> Iterator[Dialogue]:
    """The same, one at a time and in order, at constant memory (JSON files, which must be read whole, excepted)."""
    if dataset == "mini":
        rows: Iterable[Mapping[str, Any]] = _mini_rows(split)
    elif _is_local(dataset):
        rows = file_rows(Path(dataset))
    else:
        rows = _hub_rows(dataset, split)
    yield from to_dialogues(rows, source=dataset, on_bad_row=on_bad_row)


def to_dialogues(
    rows: Iterable[Mapping[str, Any]], *, source: str, on_bad_row: OnBadRow = "error"
) -> Iterator[Dialogue]:
    """Check and clean rows of `id, dialogue, summary` (and `literal_summary`, `group`); all but `dialogue` may be absent."""
    skipped = 0
    try:
        for number, row in enumerate(rows, start=1):
            try:
                dialogue = _to_dialogue(row, number, source)
            except InputError as error:
                if on_bad_row == "error" or (number == 1 and "dialogue" not in row):  # a missing column is no bad row
                    raise
                skipped += 1
                log.debug("skipped: %s", error)
            else:
                yield dialogue
    finally:  # also where a limit ends the reading early
        if skipped:
            log.warning("skipped %d bad rows of %s", skipped, source)


def _to_dialogue(row: Mapping[str, Any], number: int, source: str) -> Dialogue:
    if "dialogue" not in row:
        raise InputError(f"{source}: no column 'dialogue' in row {number}; it has {', '.join(map(str, row)) or 'none'}")
    fields: dict[str, str | None] = {}
    for column, name in COLUMNS.items():
        value = row.get(column)
        if column in ("id", "group") and isinstance(value, int):
            value = str(value)
        if value is not None and not isinstance(value, str):
            kind = type(value).__name__
            raise InputError(f"{source}: row {number} has {kind} {value!r} where text should be in column '{column}'")
        fields[name] = clean(value) if value is not None else None
    if not fields["text"]:
        raise InputError(f"{source}: row {number} has an empty dialogue; remove it or pass --on_bad_row skip")
    return Dialogue(
        id=fields["id"] or str(number),
        text=fields["text"],
        reference=fields["reference"] or None,
        literal_reference=fields["literal_reference"] or None,
        group=fields["group"] or None,
    )


def clean(text: str) -> str:
    """One kind of line break, no trailing blanks, no blank lines; the words are left alone."""
    text = text.encode("utf-8", "replace").decode("utf-8")  # half an emoji, as JSON escapes can hold, is no character
    lines = (line.strip() for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"))
    return "\n".join(line for line in lines if line)


def require_references(dialogues: list[Dialogue], dataset: str, purpose: str) -> None:
    missing = [dialogue.id for dialogue in dialogues if not dialogue.reference]
    if missing:
        raise InputError(
            f"{dataset}: {len(missing)} rows have no 'summary' (the first is id {missing[0]}), which {purpose} needs"
        )


def _is_local(dataset: str) -> bool:
    """A path, rather than a hub id `owner/name`: it exists, or it is written as only a path can be."""
    path = Path(dataset)
    return (
        path.exists()
        or path.is_absolute()
        or dataset.startswith(".")
        or file_suffix(path) in SUFFIXES
        or dataset.count("/") > 1
    )


def file_suffix(path: Path) -> str:
    """`.csv` of x.csv and of x.csv.gz alike."""
    return path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix


def open_text(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def file_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    if not path.is_file():
        raise InputError(f"no file at {path}; give a JSON, JSONL, CSV or Parquet file of id, dialogue, summary")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty; it needs at least one row of id, dialogue, summary")
    readers = {".json": _json_rows, ".jsonl": _jsonl_rows, ".csv": _csv_rows, ".parquet": _parquet_rows}
    if file_suffix(path) not in readers:
        raise InputError(f"{path}: unknown kind of file {file_suffix(path)!r}; use one of {', '.join(SUFFIXES)}")
    with saying_what_is_wrong(str(path)):
        yield from readers[file_suffix(path)](path)


@contextlib.contextmanager
def saying_what_is_wrong(source: str) -> Iterator[None]:
    """Turns what can go wrong while `source` is read into an InputError."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise not_utf8(source, error) from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{source} is not a whole gzip file ({error}); make or fetch it again") from error
    except PermissionError as error:
        raise InputError(f"{source} cannot be read ({error.strerror}); change its permissions or copy it") from error


def not_utf8(source: str, error: UnicodeDecodeError) -> InputError:
    byte = error.object[error.start]  # its place is not known: files are decoded in pieces
    return InputError(f"{source} is not UTF-8 (it has a byte 0x{byte:02x}); convert it, for example with iconv")


def _json_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        with open_text(path) as file:
            rows = json.load(file)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path} is not JSON (line {error.lineno}: {error.msg}); one object a line is JSONL"
        ) from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path} must hold a list of objects with id, dialogue, summary")
    yield from rows


def _jsonl_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    with open_text(path) as file:
        yield from parse_json_lines(file, source=str(path))


def parse_json_lines(lines: Iterable[str], *, source: str) -> Iterator[Mapping[str, Any]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{source}: line {number} is not JSON ({error.msg})") from error
        if not isinstance(row, dict):
            raise InputError(f"{source}: line {number} must be an object with id, dialogue, summary")
        yield row


def _csv_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    csv.field_size_limit(10_000_000)
    with open_text(path) as file:
        reader = csv.DictReader(file)
        try:
            yield from reader
        except csv.Error as error:
            raise InputError(f"{path} cannot be read as CSV at line {reader.line_num} ({error})") from error


def _parquet_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        for batch in parquet.ParquetFile(path).iter_batches(batch_size=1024):
            yield from batch.to_pylist()
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise InputError(f"{path} cannot be read as Parquet ({_first_line(error)})") from error


def _hub_rows(dataset: str, split: str) -> Iterable[Mapping[str, Any]]:
    import datasets

    ways_on = "give a local file of id, dialogue, summary, or use mini, the embedded corpus"
    require_on_hub(dataset, "dataset", ways_on)
    try:
        return datasets.load_dataset(dataset, split=split)
    except ValueError as error:
        raise InputError(f"dataset {dataset!r}: {_first_line(error)}") from error
    except (OSError, datasets.exceptions.DatasetNotFoundError) as error:
        raise InputError(f"cannot get dataset {dataset!r} from the hub ({_first_line(error)}); {ways_on}") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _mini_rows(split: str) -> Iterator[Mapping[str, Any]]:
    path = mini.corpus / f"{split}.jsonl.gz"
    if not path.is_file():
        raise InputError(f"the embedded corpus has no split {split!r}; it has train, validation and test")
    return _jsonl_rows(path)


# --------------------------------------------------------------------------------------------------- prompting


def encode_prompts(dialogues: list[Dialogue], tokenizer: Any, prompt_format: PromptFormat) -> PromptBatch:
    """Format, cut to fit, tokenize, pad on the right (the masks and T5's relative positions make the side irrelevant)."""
    ids, truncated = prompt_ids(dialogues, tokenizer, prompt_format)
    padded = tokenizer.pad({"input_ids": ids}, padding_side="right", return_tensors="pt")
    return PromptBatch(dialogues, padded["input_ids"], padded["attention_mask"], truncated)


def prompt_ids(dialogues: list[Dialogue], tokenizer: Any, prompt_format: PromptFormat) -> tuple[list[list[int]], int]:
    """Each dialogue's prompt as token ids, none longer than `max_prompt_tokens`, and how many had to be cut for that."""
    prompts = [prompt_format.prompt(dialogue.text) for dialogue in dialogues]
    ids: list[list[int]] = tokenizer(prompts, verbose=False)["input_ids"]
    long = [row for row, prompt in enumerate(ids) if len(prompt) > prompt_format.max_prompt_tokens]
    for row in long:
        ids[row] = _cut_to_fit(dialogues[row].text, len(ids[row]), tokenizer, prompt_format)
    return ids, len(long)


def _cut_to_fit(text: str, length: int, tokenizer: Any, prompt_format: PromptFormat) -> list[int]:
    """The prompt's ids with the dialogue shortened on the stated side, from `length` tokens to at most `max_prompt_tokens`."""
    offsets = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False, verbose=False)["offset_mapping"]
    while (excess := length - prompt_format.max_prompt_tokens) > 0:
        if excess >= len(offsets):
            limit = prompt_format.max_prompt_tokens
            raise InputError(
                f"max_prompt_tokens {limit} leaves no room for a dialogue in the prompt template; raise it"
            )
        offsets = offsets[excess:] if prompt_format.truncation_side == "left" else offsets[:-excess]
        shortened = text[offsets[0][0] : offsets[-1][1]]
        ids: list[int] = tokenizer(prompt_format.prompt(shortened), verbose=False)["input_ids"]
        length = len(ids)
    return ids


# ---------------------------------------------------------------------------------------------------- batching


def training_order(lengths: list[int], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """One pass over the data as batches of similar length, in an order that depends on `seed` and `epoch` alone.

    The rows are shuffled, cut into windows of eight batches, sorted by length inside each, and the batches shuffled. The last
    batch may be smaller.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    shuffled = torch.randperm(len(lengths), generator=generator).tolist()
    window = 8 * batch_size
    batches = []
    for start in range(0, len(shuffled), window):
        rows = sorted(shuffled[start : start + window], key=lambda row: lengths[row])
        batches += [rows[first : first + batch_size] for first in range(0, len(rows), batch_size)]
    return [batches[place] for place in torch.randperm(len(batches), generator=generator).tolist()]


def require_a_batch(dialogues: list[Dialogue], batch_size: int) -> None:
    """Raises InputError where there are fewer dialogues than a batch holds."""
    if batch_size > len(dialogues):
        raise InputError(
            f"batch_size {batch_size} is larger than the dataset ({len(dialogues)} dialogues); lower it or give more data"
        )


def prompt_batches(
    dialogues: list[Dialogue],
    tokenizer: Any,
    prompt_format: PromptFormat,
    *,
    batch_size: int,
    seed: int,
    first_step: int,
    steps: int,
) -> Generator[PromptBatch, None, None]:
    """Batches for the steps first_step … steps−1, pass after pass over the data; the same whether or not earlier ones were drawn."""
    require_a_batch(dialogues, batch_size)
    lengths = [len(dialogue.text) for dialogue in dialogues]
    per_epoch = math.ceil(len(dialogues) / batch_size)
    epoch, order = -1, []
    for step in range(first_step, steps):
        if step // per_epoch != epoch:
            epoch = step // per_epoch
            order = training_order(lengths, batch_size, seed, epoch)
        rows = order[step % per_epoch]
        yield encode_prompts([dialogues[row] for row in rows], tokenizer, prompt_format)


def one_ahead(batches: Iterator[PromptBatch], device: torch.device) -> Generator[PromptBatch, None, None]:
    """The same batches on `device`, each drawn by a thread of its own while the one before it is used.

    What drawing one raises comes out where that one would have. Closing this generator ends the thread.
    """

    def draw() -> PromptBatch | None:
        batch = next(batches, None)
        return None if batch is None else on_device(batch, device)

    with ThreadPoolExecutor(max_workers=1) as thread:
        coming = thread.submit(draw)
        while (batch := coming.result()) is not None:
            coming = thread.submit(draw)
            yield batch


def on_device(prompts: PromptBatch, device: torch.device) -> PromptBatch:
    return replace(prompts, input_ids=prompts.input_ids.to(device), attention_mask=prompts.attention_mask.to(device))


def padding_share(batch: PromptBatch) -> float:
    """The share of positions that are padding, in [0, 1]."""
    return 1.0 - batch.attention_mask.float().mean().item()
