"""Dialogues in, padded batches out: reading files and hub sets, cleaning, the prompt, length-bucketed batches."""

from __future__ import annotations

import csv
import gzip
import json
import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Literal

import torch

from softspoken import mini
from softspoken.types import Dialogue, InputError, PromptBatch

log = logging.getLogger(__name__)

OnBadRow = Literal["error", "skip"]
FORMAT_FILE = "softspoken.json"
"""Lies beside a model or an adapter and says how its prompts are made."""
SUFFIXES = (".json", ".jsonl", ".csv", ".parquet")
COLUMNS = {"dialogue": "text", "summary": "reference", "literal_summary": "literal_reference", "id": "id", "group": "group"}


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

    def save(self, folder: Path) -> None:
        (folder / FORMAT_FILE).write_text(json.dumps({"prompt_format": asdict(self)}, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> PromptFormat | None:
        """The format saved in `folder`, or None where there is none (a model that softspoken did not write)."""
        path = Path(folder) / FORMAT_FILE
        if not path.is_file():
            return None
        return cls(**json.loads(path.read_text(encoding="utf-8"))["prompt_format"])


# ---------------------------------------------------------------------------------------------------- reading


def load_dialogues(dataset: str, split: str, *, on_bad_row: OnBadRow = "error", limit: int | None = None) -> list[Dialogue]:
    """All dialogues of a hub id, a local file, or `mini` (the embedded corpus).

    A local file holds one set: `split` does not apply to it. Raises InputError for anything that cannot be read.
    """
    dialogues: list[Dialogue] = []
    for dialogue in iterate_dialogues(dataset, split, on_bad_row=on_bad_row):
        if limit is not None and len(dialogues) >= limit:
            break
        dialogues.append(dialogue)
    if not dialogues:
        raise InputError(f"dataset {dataset!r} has no usable rows; give a file or hub set with at least one dialogue")
    return dialogues


def iterate_dialogues(dataset: str, split: str, *, on_bad_row: OnBadRow = "error") -> Iterator[Dialogue]:
    """The same, one at a time and in order, at constant memory (JSON files, which must be read whole, excepted)."""
    if dataset == "mini":
        rows: Iterable[Mapping[str, Any]] = _mini_rows(split)
    elif _is_local(dataset):
        rows = _file_rows(Path(dataset))
    else:
        rows = _hub_rows(dataset, split)
    yield from to_dialogues(rows, source=dataset, on_bad_row=on_bad_row)


def to_dialogues(rows: Iterable[Mapping[str, Any]], *, source: str, on_bad_row: OnBadRow = "error") -> Iterator[Dialogue]:
    """Check and clean rows of `id, dialogue, summary` (and `literal_summary`, `group`); all but `dialogue` may be absent."""
    skipped = 0
    for number, row in enumerate(rows, start=1):
        try:
            yield _to_dialogue(row, number, source)
        except InputError as error:
            if on_bad_row == "error" or "dialogue" not in row:
                raise
            skipped += 1
            log.debug("skipped: %s", error)
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
    lines = (line.strip() for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"))
    return "\n".join(line for line in lines if line)


def require_references(dialogues: list[Dialogue], dataset: str, purpose: str) -> None:
    missing = [dialogue.id for dialogue in dialogues if not dialogue.reference]
    if missing:
        raise InputError(f"{dataset}: {len(missing)} rows have no 'summary' (the first is id {missing[0]}), which {purpose} needs")


def _is_local(dataset: str) -> bool:
    """A path, rather than a hub id `owner/name`: it exists, or it is written as only a path can be."""
    path = Path(dataset)
    return path.exists() or path.is_absolute() or dataset.startswith(".") or _suffix(path) in SUFFIXES or dataset.count("/") > 1


def _suffix(path: Path) -> str:
    return path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix


def open_text(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _file_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    if not path.is_file():
        raise InputError(f"no file at {path}; give a JSON, JSONL, CSV or Parquet file of id, dialogue, summary")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty; it needs at least one row of id, dialogue, summary")
    readers = {".json": _json_rows, ".jsonl": _jsonl_rows, ".csv": _csv_rows, ".parquet": _parquet_rows}
    if _suffix(path) not in readers:
        raise InputError(f"{path}: unknown kind of file {_suffix(path)!r}; use one of {', '.join(SUFFIXES)}")
    try:
        yield from readers[_suffix(path)](path)
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 (byte {error.start}); convert it, for example with iconv") from error


def _json_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        with open_text(path) as file:
            rows = json.load(file)
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is not JSON (line {error.lineno}: {error.msg}); one object a line is JSONL") from error
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
    with open_text(path) as file:
        yield from csv.DictReader(file)


def _parquet_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    import pyarrow.parquet as parquet

    for batch in parquet.ParquetFile(path).iter_batches(batch_size=1024):
        yield from batch.to_pylist()


def _hub_rows(dataset: str, split: str) -> Iterable[Mapping[str, Any]]:
    import datasets

    try:
        return datasets.load_dataset(dataset, split=split)
    except ValueError as error:
        raise InputError(f"dataset {dataset!r}: {_first_line(error)}") from error
    except (OSError, datasets.exceptions.DatasetNotFoundError) as error:
        raise InputError(
            f"cannot get dataset {dataset!r} from the hub ({_first_line(error)}); "
            "give a local file of id, dialogue, summary, or use `mini`, the embedded corpus"
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _mini_rows(split: str) -> Iterator[Mapping[str, Any]]:
    path = mini.corpus / f"{split}.jsonl.gz"
    if not path.is_file():
        raise InputError(f"the embedded corpus has no split {split!r}; it has train, validation and test")
    return _jsonl_rows(path)


# --------------------------------------------------------------------------------------------------- prompting


def encode_prompts(dialogues: list[Dialogue], tokenizer: Any, prompt_format: PromptFormat) -> PromptBatch:
    """Format, cut to fit, tokenize, pad on the right (T5's relative positions and the masks are the same for either side)."""
    prompts, cut = [], 0
    for dialogue in dialogues:
        prompt, was_cut = _fitted_prompt(dialogue.text, tokenizer, prompt_format)
        prompts.append(prompt)
        cut += was_cut
    encoded = tokenizer(prompts, padding=True, padding_side="right", return_tensors="pt")
    return PromptBatch(dialogues, encoded["input_ids"], encoded["attention_mask"], cut)


def _fitted_prompt(text: str, tokenizer: Any, prompt_format: PromptFormat) -> tuple[str, bool]:
    """The prompt, its dialogue shortened on the stated side until it has at most `max_prompt_tokens` tokens."""
    prompt = prompt_format.template.format(dialogue=text)
    excess = len(tokenizer(prompt, verbose=False)["input_ids"]) - prompt_format.max_prompt_tokens
    if excess <= 0:
        return prompt, False
    offsets = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False, verbose=False)["offset_mapping"]
    while excess > 0:
        if excess >= len(offsets):
            raise InputError(f"max_prompt_tokens={prompt_format.max_prompt_tokens} leaves no room for a dialogue in the prompt template")
        offsets = offsets[excess:] if prompt_format.truncation_side == "left" else offsets[:-excess]
        shortened = text[offsets[0][0] : offsets[-1][1]]
        prompt = prompt_format.template.format(dialogue=shortened)
        excess = len(tokenizer(prompt, verbose=False)["input_ids"]) - prompt_format.max_prompt_tokens
    return prompt, True


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


def prompt_batches(
    dialogues: list[Dialogue], tokenizer: Any, prompt_format: PromptFormat, *, batch_size: int, seed: int, first_step: int, steps: int
) -> Iterator[PromptBatch]:
    """Batches for the steps first_step … steps−1, pass after pass over the data; the same whether or not earlier ones were drawn."""
    if batch_size > len(dialogues):
        raise InputError(f"batch_size {batch_size} is larger than the dataset ({len(dialogues)} dialogues); lower it or give more data")
    lengths = [len(dialogue.text) for dialogue in dialogues]
    per_epoch = math.ceil(len(dialogues) / batch_size)
    epoch, order = -1, []
    for step in range(first_step, steps):
        if step // per_epoch != epoch:
            epoch = step // per_epoch
            order = training_order(lengths, batch_size, seed, epoch)
        rows = order[step % per_epoch]
        yield encode_prompts([dialogues[row] for row in rows], tokenizer, prompt_format)


def padding_share(batch: PromptBatch) -> float:
    """The share of positions that are padding, in [0, 1]."""
    return 1.0 - batch.attention_mask.float().mean().item()
