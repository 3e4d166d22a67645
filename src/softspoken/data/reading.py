"""Files and hub sets in, dialogues out: reading, checking, cleaning."""

from __future__ import annotations

import contextlib
import csv
import gzip
import json
import logging
import zlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal

from softspoken import mini
from softspoken.hub import require_on_hub
from softspoken.types import Example, InputError

log = logging.getLogger(__name__)

OnBadRow = Literal["error", "skip"]
SUFFIXES = (".json", ".jsonl", ".csv", ".parquet")
COLUMNS = {
    "dialogue": "text",
    "summary": "reference",
    "literal_summary": "literal_reference",
    "id": "id",
    "group": "group",
}


def load_examples(
    dataset: str, split: str, *, on_bad_row: OnBadRow = "error", limit: int | None = None
) -> list[Example]:
    """All dialogues of a hub id, a local file, or `mini` (the embedded corpus).

    A local file holds one set: `split` does not apply to it. Raises InputError for anything that cannot be read.
    """
    examples = list(islice(iterate_examples(dataset, split, on_bad_row=on_bad_row), limit))
    if not examples:
        raise InputError(f"dataset {dataset!r} has no usable rows; give a file or hub set with at least one dialogue")
    return examples


def iterate_examples(dataset: str, split: str, *, on_bad_row: OnBadRow = "error") -> Iterator[Example]:
    """The same, one at a time and in order, at constant memory (JSON files, which must be read whole, excepted)."""
    if dataset == "mini":
        rows: Iterable[Mapping[str, Any]] = _mini_rows(split)
    elif _is_local(dataset):
        rows = file_rows(Path(dataset))
    else:
        rows = _hub_rows(dataset, split)
    yield from to_examples(rows, source=dataset, on_bad_row=on_bad_row)


def to_examples(rows: Iterable[Mapping[str, Any]], *, source: str, on_bad_row: OnBadRow = "error") -> Iterator[Example]:
    """Check and clean rows of `id, dialogue, summary` (and `literal_summary`, `group`); all but `dialogue` may be absent."""
    skipped = 0
    try:
        for number, row in enumerate(rows, start=1):
            try:
                example = _to_example(row, number, source)
            except InputError as error:
                if on_bad_row == "error" or (number == 1 and "dialogue" not in row):  # a missing column is no bad row
                    raise
                skipped += 1
                log.debug("skipped: %s", error)
            else:
                yield example
    finally:  # also where a limit ends the reading early
        if skipped:
            log.warning("skipped %d bad rows of %s", skipped, source)


def _to_example(row: Mapping[str, Any], number: int, source: str) -> Example:
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
    return Example(
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


def require_references(examples: list[Example], dataset: str, purpose: str) -> None:
    missing = [example.id for example in examples if not example.reference]
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
    except (ValueError, RuntimeError) as error:  # the latter where it is a script, which datasets runs no more
        raise InputError(f"dataset {dataset!r}: {_first_line(error)}; {ways_on}") from error
    except (OSError, datasets.exceptions.DatasetNotFoundError) as error:
        raise InputError(f"cannot get dataset {dataset!r} from the hub ({_first_line(error)}); {ways_on}") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _mini_rows(split: str) -> Iterator[Mapping[str, Any]]:
    path = mini.corpus / f"{split}.jsonl.gz"
    if not path.is_file():
        raise InputError(f"the embedded corpus has no split {split!r}; it has train, validation and test")
    return _jsonl_rows(path)
