"""Reading dialogues from files and the embedded corpus, and what is said of those that cannot be read."""

import csv
import gzip
import io
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from softspoken.data.reading import iterate_examples, load_examples, require_references, to_examples
from softspoken.types import Example, InputError

ROWS = [
    {"id": "a", "dialogue": "Nora: Where, then?\nFelix: On the bus.", "summary": "Felix is on the bus."},
    {"id": "b", "dialogue": "Leon: schön “hi” 🙂", "summary": "Leon says hi."},
]


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode()


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    return file.getvalue()


def as_jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()


def as_json(rows: list[dict[str, Any]]) -> bytes:
    return json.dumps(rows, ensure_ascii=False).encode()


WRITERS: dict[str, Callable[[list[dict[str, Any]]], bytes]] = {
    "json": as_json,
    "jsonl": as_jsonl,
    "csv": as_csv,
    "parquet": as_parquet,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_kind_of_file(kind: str, tmp_path: Path) -> None:
    file = tmp_path / f"d.{kind}"
    file.write_bytes(WRITERS[kind](ROWS))
    assert load_examples(str(file), "any") == [
        Example("a", "Nora: Where, then?\nFelix: On the bus.", "Felix is on the bus."),
        Example("b", "Leon: schön “hi” 🙂", "Leon says hi."),
    ]


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv"])
@pytest.mark.parametrize("packed", [False, True])
def test_byte_order_mark_and_gzip(kind: str, packed: bool, tmp_path: Path) -> None:
    content = b"\xef\xbb\xbf" + WRITERS[kind](ROWS)
    file = tmp_path / f"d.{kind}{'.gz' if packed else ''}"
    file.write_bytes(gzip.compress(content) if packed else content)
    assert [dialogue.id for dialogue in load_examples(str(file), "any")] == ["a", "b"]


def test_columns_ids_and_cleaning() -> None:
    rows = [
        {"id": 3, "dialogue": " Nora:  a \r\n\r\n Felix: b\rMila: c \n", "summary": " ", "group": 4, "other": object()},
        {"dialogue": "x", "summary": None, "literal_summary": "y "},
        {"id": None, "dialogue": "half of one: \ud83d"},
    ]
    assert list(to_examples(rows, source="s")) == [
        Example("3", "Nora:  a\nFelix: b\nMila: c", group="4"),
        Example("2", "x", literal_reference="y"),
        Example("3", "half of one: ?"),
    ]


def test_limit_does_not_read_on(tmp_path: Path) -> None:
    file = tmp_path / "d.jsonl"
    file.write_text('{"dialogue": "x"}\n{"dialogue": ""}\n')
    assert len(load_examples(str(file), "any", limit=1)) == 1


def test_the_embedded_corpus() -> None:
    dialogues = load_examples("mini", "validation", limit=30)
    assert len(dialogues) == 30
    assert all(dialogue.reference and dialogue.group for dialogue in dialogues)
    with pytest.raises(InputError, match="no split 'dev'; it has train, validation and test"):
        load_examples("mini", "dev")


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("d.jsonl", b"", "d.jsonl is empty"),
        ("d.json", b"[]", "has no usable rows"),
        ("d.csv", b"id,dialogue\n", "has no usable rows"),
        ("d.parquet", as_parquet(ROWS)[:50], "cannot be read as Parquet"),
        ("d.txt", b"x", "unknown kind of file '.txt'; use one of .json, .jsonl, .csv, .parquet"),
        ("d.json", b'[{"dialogue": "x"', "d.json is not JSON"),
        ("d.json", b'{"dialogue": "x"}', "must hold a list of objects"),
        ("d.json", b'["x"]', "must hold a list of objects"),
        ("d.jsonl", b'{"dialogue": "x"}\n\n{"dialogue"', "line 3 is not JSON"),
        ("d.jsonl", b'{"dialogue": "x"}\n7\n', "line 2 must be an object"),
        ("d.csv", b"id,dialogue\na,sch\xf6n\n", r"not UTF-8 \(it has a byte 0xf6\)"),
        ("d.jsonl", b'{"dialogue": "sch\xf6n"}', r"not UTF-8 \(it has a byte 0xf6\)"),
        ("d.json", b'["\xf6"]', "not UTF-8"),
        ("d.jsonl.gz", gzip.compress(as_jsonl(ROWS))[:30], "is not a whole gzip file"),
        ("d.csv.gz", b"no gzip", "is not a whole gzip file"),
        ("d.csv", b"id,text\na,x\n", "no column 'dialogue' in row 1; it has id, text"),
        ("d.jsonl", b'{"text": "x"}', "no column 'dialogue' in row 1; it has text"),
        ("d.jsonl", b'{"dialogue": "x"}\n{"dialogue": " \\n"}', "row 2 has an empty dialogue; remove it or pass --on_bad_row skip"),
        ("d.csv", b"id,dialogue\na,x\nb\n", "row 2 has an empty dialogue"),
        ("d.jsonl", b'{"dialogue": "x"}\n{"dialogue": 5}', "row 2 has int 5 where text should be in column 'dialogue'"),
        ("d.jsonl", b'{"dialogue": "x", "summary": ["y"]}', "row 1 has list .* where text should be in column 'summary'"),
        ("d.jsonl", b'{"dialogue": "x"}\n{"dialogue": null}', "row 2 has an empty dialogue"),
    ],
)  # fmt: skip
def test_bad_files(name: str, content: bytes, match: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(InputError, match=match) as caught:
        load_examples(str(file), "any")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["nothing.jsonl", "./nothing", "a/b/c", "."])
def test_no_such_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no file at"):
        load_examples(name, "any")


def test_bad_rows_can_be_skipped_and_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "d.jsonl"
    file.write_text('{"dialogue": "a"}\n{"dialogue": ""}\n{"dialogue": 5}\n{"text": "x"}\n{"dialogue": "b"}\n')
    with caplog.at_level(logging.WARNING, logger="softspoken"):
        assert [dialogue.text for dialogue in load_examples(str(file), "any", on_bad_row="skip")] == ["a", "b"]
    assert f"skipped 3 bad rows of {file}" in caplog.text
    caplog.clear()
    assert len(load_examples(str(file), "any", on_bad_row="skip", limit=2)) == 2  # the count is told here too
    assert "skipped 3 bad rows" in caplog.text


def test_a_missing_column_is_not_skipped(tmp_path: Path) -> None:
    file = tmp_path / "d.csv"
    file.write_text("id,text\na,x\n")
    with pytest.raises(InputError, match="no column 'dialogue'"):
        load_examples(str(file), "any", on_bad_row="skip")


def test_reading_is_one_row_at_a_time() -> None:
    read = 0

    def rows() -> Iterator[dict[str, str]]:
        nonlocal read
        for _ in range(10):
            read += 1
            yield {"dialogue": "x"}

    next(to_examples(rows(), source="s"))
    assert read == 1


def test_long_fields_of_a_csv(tmp_path: Path) -> None:
    file = tmp_path / "d.csv"
    file.write_text(f'id,dialogue\na,"{"x" * 200_000}"\n')
    assert len(next(iterate_examples(str(file), "any")).text) == 200_000


def test_required_references() -> None:
    require_references([Example("a", "x", "y")], "d.csv", "sft")
    with pytest.raises(InputError, match=r"d.csv: 1 rows have no 'summary' \(the first is id b\), which sft needs"):
        require_references([Example("a", "x", "y"), Example("b", "x")], "d.csv", "sft")
