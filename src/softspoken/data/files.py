"""Kinds of files → rows: JSON, JSONL, CSV, TSV, text and Parquet, gzip or not, read a row at a time.

Whoever made the file, reading it takes bounded memory: a line, a JSON file and what a gzip file unpacks to have a greatest length.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import IO, Any

from softspoken.types import InputError, first_line

TABLES = (".json", ".jsonl", ".csv", ".tsv", ".parquet")
"""Files whose rows have columns."""
SUFFIXES = (*TABLES, ".txt")
KINDS = "JSON, JSONL, CSV, TSV, Parquet or text (one text a line) file"
TEXT = "text"
"""The one column of a text file."""
LONGEST_LINE = 10_000_000
"""Characters of a line, of a CSV file's field, and of a text between blank lines."""
LONGEST_JSON = 200_000_000
"""Characters of a JSON file, which is read whole; JSONL has no such end."""
MOST_UNPACKED = (100_000_000, 200)
"""A gzip file may unpack to so many bytes, or to so many times its own size: text comes to 5 or 20 times, a bomb to 1,000."""
LARGEST_GROUP = 4 << 30
"""Bytes of a Parquet file's row group, unpacked, which is read at once."""
EXCELS = "cp1252"
"""What Excel writes in Western Europe unless it is asked for UTF-8."""


def file_suffix(path: Path) -> str:
    """`.csv` of x.csv and of x.csv.gz alike."""
    return path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix


def open_text(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def lines_of(stream: IO[str], source: str) -> Iterator[str]:
    """The lines of a file or of standard input. Raises InputError for one that is longer than LONGEST_LINE, and where a gzip file
    unpacks to more than any text does."""
    packed = getattr(stream, "buffer", None)
    most = _most_unpacked(packed) if isinstance(packed, gzip.GzipFile) else None
    number = 0
    while line := stream.readline(LONGEST_LINE + 1):
        number += 1
        if len(line) > LONGEST_LINE:
            raise InputError(
                f"{source}: line {number} has more than {LONGEST_LINE:,} characters; put a row on each line"
            )
        if most is not None and packed is not None and packed.tell() > most:
            raise InputError(
                f"{source} unpacks to more than {most:,} bytes, far more than text does; unpack it yourself"
            )
        yield line


def _most_unpacked(packed: gzip.GzipFile) -> int:
    at_least, times = MOST_UNPACKED
    return max(at_least, times * Path(packed.name).stat().st_size)


def file_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    if not path.is_file():
        raise InputError(f"no file at {path}; give a {KINDS}, or a folder that datasets.save_to_disk wrote")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty; it needs at least one row")
    readers = {
        ".json": _json_rows,
        ".jsonl": _jsonl_rows,
        ".csv": _csv_rows,
        ".tsv": _tsv_rows,
        ".txt": _text_rows,
        ".parquet": _parquet_rows,
    }
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
    """Its place is not known, as files are decoded in pieces; what stands around the byte says which encoding it may be."""
    byte = error.object[error.start : error.start + 1]
    found = f"{source} is not UTF-8 (it has a byte 0x{byte[0]:02x}"
    if error.object[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return InputError(f"{found}, with which UTF-16 begins); save it as UTF-8, for example with iconv -f UTF-16")
    with contextlib.suppress(UnicodeDecodeError):
        found += f", in {EXCELS} {byte.decode(EXCELS)!r}"
    return InputError(f"{found}); save it as UTF-8 (in Excel: CSV UTF-8), for example with iconv -f {EXCELS} -t UTF-8")


def _json_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    with open_text(path) as file:
        text = file.read(LONGEST_JSON + 1)
    if len(text) > LONGEST_JSON:
        raise InputError(
            f"{path} has more than {LONGEST_JSON:,} characters; write it as JSONL, a row a line, which has no such end"
        )
    rows = parse_json(text, str(path), "; one object a line is JSONL")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path} must hold a list of objects, each with the columns of a row")
    yield from rows


def _jsonl_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    with open_text(path) as file:
        yield from parse_json_lines(lines_of(file, str(path)), source=str(path))


def parse_json(text: str, source: str, hint: str = "") -> Any:
    """Raises InputError for what is no JSON, and for what no data is: nested by the thousand, or numbers of thousands of digits."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}: " if hint else ""
        raise InputError(f"{source} is not JSON ({place}{error.msg}){hint}") from error
    except RecursionError as error:
        raise InputError(f"{source} is nested too deep to be read; give rows of plain values") from error
    except ValueError as error:  # Python's own limit
        raise InputError(f"{source} has a number of more digits than can be read; write it as text") from error


def parse_json_lines(lines: Iterable[str], *, source: str) -> Iterator[Mapping[str, Any]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        row = parse_json(line, f"{source}: line {number}")
        if not isinstance(row, dict):
            raise InputError(f"{source}: line {number} must be an object with the columns of a row")
        yield row


def _csv_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    """Separated by commas or, as Excel does it where the comma is the decimal point, by semicolons."""
    with open_text(path) as file:
        lines = lines_of(file, str(path))
        first = next(lines, "")
        if said := re.fullmatch(r"sep=(.)\r?\n", first):  # a line of Excel's own
            yield from _separated(path, lines, said[1])
        else:
            separator = max(",", ";", key=lambda one: len(next(csv.reader([first], delimiter=one))))
            yield from _separated(path, chain([first], lines), separator)


def _tsv_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    """Where each line has as many tabs as the first, lines are rows and quotes are themselves, unless they frame a field whole;
    elsewhere quotes hold tabs and line breaks together, as in a CSV."""
    with open_text(path) as file:
        lines = lines_of(file, str(path))
        tabs = next(lines, "").count("\t")
        lines_are_rows = all(line.count("\t") == tabs for line in lines if line.strip())
    with open_text(path) as file:
        lines = lines_of(file, str(path))
        if not lines_are_rows:
            yield from _separated(path, lines, "\t")
            return
        names = _tsv_fields(next(lines))
        for line in lines:
            if line.strip():
                yield dict(zip(names, _tsv_fields(line), strict=True))


def _tsv_fields(line: str) -> list[str]:
    return [
        field[1:-1].replace('""', '"') if re.fullmatch(r'"(?:[^"]|"")*"', field) else field
        for field in line.rstrip("\r\n").split("\t")
    ]


def _separated(path: Path, lines: Iterable[str], separator: str) -> Iterator[Mapping[str, Any]]:
    csv.field_size_limit(LONGEST_LINE)
    reader = csv.DictReader(lines, delimiter=separator, strict=separator == "\t")
    try:
        yield from reader
    except csv.Error as error:
        kind = file_suffix(path)[1:].upper()
        raise InputError(f"{path} cannot be read as {kind} at line {reader.line_num} ({error})") from error


def _text_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    with open_text(path) as file:
        yield from ({TEXT: line.rstrip("\r\n")} for line in lines_of(file, str(path)))


def _parquet_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        file = parquet.ParquetFile(path)
        groups = [file.metadata.row_group(number).total_byte_size for number in range(file.metadata.num_row_groups)]
        if max(groups, default=0) > LARGEST_GROUP:
            raise InputError(
                f"{path} has a row group of {max(groups):,} bytes; write it with smaller ones (row_group_size)"
            )
        for batch in file.iter_batches(batch_size=1024):
            columns = {name: _values(batch[name], name, path) for name in batch.schema.names}
            yield from (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path} cannot be read as Parquet ({first_line(error)})") from error


def _values(column: Any, name: str, path: Path) -> list[Any]:
    """As Python's own; a date of the year 50,000, say, has no such form."""
    try:
        return column.to_pylist()
    except (ValueError, OverflowError) as error:  # pyarrow's ArrowInvalid is a ValueError
        raise InputError(
            f"{path}: the column {name!r} has a value that cannot be read ({first_line(error)}); take the column out of the file"
        ) from error
