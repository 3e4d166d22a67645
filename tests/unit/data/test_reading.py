"""Reading dialogues from files and the embedded corpus, and what is said of those that cannot be read."""

import csv
import gzip
import io
import json
import logging
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from softspoken.config import EvaluateConfig
from softspoken.data.columns import Columns
from softspoken.data.reading import (
    iterate_examples,
    load_examples,
    read_examples,
    record_of,
    require_references,
    to_examples,
)
from softspoken.tasks.summarization import TASK as SUMMARIZATION
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
        {"id": 3, "dialogue": " Nora:  a \r\n\r\n Felix: b\rMila: c \n", "summary": " ", "group": 4, "other": 2.5},
        {"dialogue": "x", "summary": None, "literal_summary": "y "},
        {"id": None, "dialogue": "half of one: \ud83d", "summary": math.nan},
    ]
    assert list(to_examples(rows, source="s", cleaned=True)) == [
        Example("3", "Nora:  a\nFelix: b\nMila: c", group="4", columns={"other": 2.5}),
        Example("2", "x", literal_reference="y"),
        Example("3", "half of one: ?"),
    ]


def test_white_space_is_the_rows_own() -> None:
    code = "def f(x):\n    if x:\n\n        return 1\t\n"
    verse = "  O rose,\r\n\r\n    thou art sick.  "
    [example] = to_examples([{"dialogue": verse, "summary": code}], source="s")
    assert (example.text, example.reference) == (verse, code)
    compile(example.reference, "reference", "exec")


def test_the_embedded_corpus_is_clean_already() -> None:
    examples = load_examples("mini", "validation")
    assert examples == list(iterate_examples("mini", "validation", cleaned=True))


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
        ("d.xml", b"x", "unknown kind of file '.xml'; use one of .json, .jsonl, .csv, .tsv, .parquet, .txt"),
        ("d.json", b'[{"dialogue": "x"', "d.json is not JSON"),
        ("d.json", b'{"dialogue": "x"}', "must hold a list of objects"),
        ("d.json", b'["x"]', "must hold a list of objects"),
        ("d.jsonl", b'{"dialogue": "x"}\n\n{"dialogue"', "line 3 is not JSON"),
        ("d.jsonl", b'{"dialogue": "x"}\n7\n', "line 2 must be an object"),
        ("d.csv", b"id,dialogue\na,sch\xf6n\n", r"not UTF-8 \(it has a byte 0xf6, in cp1252 'ö'\); save it as UTF-8 \(in Excel: CSV UTF-8\)"),
        ("d.csv", "id,dialogue\na,schön\n".encode("utf-16"), r"not UTF-8 \(it has a byte 0xff, with which UTF-16 begins\)"),
        ("d.jsonl", b'{"dialogue": "sch\xf6n"}', r"not UTF-8 \(it has a byte 0xf6"),
        ("d.json", b'["\xf6"]', "not UTF-8"),
        ("d.jsonl.gz", gzip.compress(as_jsonl(ROWS), mtime=0)[:30], "is not a whole gzip file"),
        ("d.csv.gz", b"no gzip", "is not a whole gzip file"),
        ("d.csv", b"id,said\na,x\n", r"none of its columns is known to be the text \(dialogue, document, article, text, source, input would be\); row 1 has id, said: name one with --text_column"),
        ("d.jsonl", b'{"said": {"en": "x"}, "by": {}}', "row 1 has said.en, by: name one"),
        ("d.csv", b"text,input\na,x\n", "the text could be any of its columns text, input; name one with --text_column"),
        ("d.csv", b"text,highlights,target\na,x,y\n", "the reference could be any of its columns highlights, target; name one with --reference_column"),
        ("d.csv", b"id,dialogue\na,x,y\n", "row 1 has more fields than the first line names"),
        ("d.tsv", b'id\tdialogue\na\t"x" y\tz\nb\t"x"\n', "d.tsv cannot be read as TSV at line 1"),
        ("d.jsonl", b'{"dialogue": "x"}\n{"dialogue": " \\n"}', "row 2 has an empty 'dialogue'; remove it or pass --on_bad_row skip"),
        ("d.csv", b"id,dialogue\na,x\nb\n", "row 2 has an empty 'dialogue'"),
        ("d.jsonl", b'{"dialogue": "x"}\n{"dialogue": 5}', "row 2 has int 5 where text should be in column 'dialogue'"),
        ("d.jsonl", b'{"dialogue": "x", "summary": ["y", 5]}', "row 1 has int 5 where text should be in column 'summary'"),
        ("d.jsonl", b'{"dialogue": ["x"]}', "row 1 has list .* where text should be in column 'dialogue'"),
        ("d.jsonl", b'{"dialogue": {"a": [1' + b", 1" * 5000 + b"]}}", r"row 1 has dict \{'a': \[1, 1, 1, 1, 1, 1, \.\.\.\]\} where text"),
        ("d.jsonl", b'{"dialogue": "x"}\n{"text": "y"}', "row 2 has no column 'dialogue'; remove it"),
        ("d.jsonl", b'{"dialogue": "x"}\n{"dialogue": null}', "row 2 has an empty 'dialogue'"),
    ],
)  # fmt: skip
def test_bad_files(name: str, content: bytes, match: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(InputError, match=match) as caught:
        load_examples(str(file), "any")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["nothing.jsonl", "./nothing", "a/b/c"])
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
    file.write_text("id,said\na,x\n")
    with pytest.raises(InputError, match="none of its columns"):
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
    with pytest.raises(InputError, match=r"d.csv: 1 rows have no reference \(the first is id b\), which sft needs"):
        require_references([Example("a", "x", "y"), Example("b", "x")], "d.csv", "sft")


# ------------------------------------------------------------------------------------- data as people have it


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('a\tdocument\n1\tsay "hi" \t\n', {"a": "1"}),
        ('a\tdocument\n"1"\t"say ""hi"" "\n', {"a": "1"}),
    ],
)
def test_quotes_in_a_tsv_are_themselves_unless_they_frame_a_field(
    content: str, expected: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "d.tsv").write_text(content.replace(" \t\n", " \n"))
    assert load_examples(str(tmp_path / "d.tsv"), "any") == [Example("1", 'say "hi" ', columns=expected)]


def test_quotes_in_a_tsv_hold_line_breaks_together(tmp_path: Path) -> None:
    (tmp_path / "d.tsv").write_text(
        'dialogue\tsummary\n"Nora: hi\nFelix: ""ho"""\tThey\tgreet\n'.replace("\tgreet", " greet")
    )
    assert load_examples(str(tmp_path / "d.tsv"), "any") == [Example("1", 'Nora: hi\nFelix: "ho"', "They greet")]


def test_excels_csv(tmp_path: Path) -> None:
    file = tmp_path / "d.csv"
    file.write_bytes(b"\xef\xbb\xbfdialogue;summary\r\nso, so;a; b\r\n".replace(b"a; b", b'"a; b"'))
    assert load_examples(str(file), "any") == [Example("1", "so, so", "a; b")]
    file.write_bytes(b"sep=|\r\ndialogue|summary\r\nx|y\r\n")
    assert load_examples(str(file), "any") == [Example("1", "x", "y")]


def test_a_text_file_has_one_text_a_line(tmp_path: Path) -> None:
    (tmp_path / "d.txt").write_bytes("\ufeff Hello there,\r\nyou.".encode())
    assert [example.text for example in load_examples(str(tmp_path / "d.txt"), "any")] == [" Hello there,", "you."]


def test_a_folder_of_save_to_disk(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_list(ROWS)
    rows.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"train": rows, "test": rows.select([1])}).save_to_disk(str(tmp_path / "splits"))
    assert [example.id for example in load_examples(str(tmp_path / "one"), "any")] == ["a", "b"]
    assert [example.id for example in load_examples(str(tmp_path / "splits"), "test")] == ["b"]
    with pytest.raises(InputError, match="has no split 'dev'; it has train, test"):
        load_examples(str(tmp_path / "splits"), "dev")
    with pytest.raises(InputError, match=r"not one that datasets\.save_to_disk wrote"):
        load_examples(str(tmp_path), "any")
    (tmp_path / "one" / "dataset_info.json").write_text("{")
    with pytest.raises(InputError, match=r"cannot be read as datasets\.save_to_disk writes it"):
        load_examples(str(tmp_path / "one"), "any")


def test_rows_given_in_python() -> None:
    expected = [
        Example("a", ROWS[0]["dialogue"], ROWS[0]["summary"]),
        Example("b", ROWS[1]["dialogue"], "Leon says hi."),
    ]
    rows = datasets.Dataset.from_list(ROWS)
    assert load_examples(ROWS, "any") == expected
    assert load_examples(rows, "any") == expected
    assert load_examples(datasets.DatasetDict({"x": rows}), "x") == expected
    assert record_of(ROWS) == record_of(rows)  # so that a run on one can go on with the other
    assert record_of(ROWS).startswith("rows given in Python: 2, SHA-256 ")
    assert record_of(ROWS[:1]) != record_of(ROWS)
    for wrong, match in (
        ([ROWS[0], "x"], "row 2 is no dict"),
        (7, "dataset is a int; give a name, a path, a list of dicts"),
        (record_of(ROWS), "which are not here; give them again"),
        ([], "has no usable rows"),
    ):
        with pytest.raises(InputError, match=match):
            load_examples(wrong, "any")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="dataset_config 'x' is for a hub set"):
        load_examples(ROWS, "any", dataset_config="x")


def test_what_was_taken_is_said_once_unless_it_was_named(caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"article": "x", "highlights": "y"}, {"article": "z", "highlights": "w"}]
    with caplog.at_level(logging.INFO, logger="softspoken"):
        load_examples(rows, "any", limit=1)
        assert caplog.messages == ["rows given in Python: text from 'article', reference from 'highlights'"]
        caplog.clear()
        load_examples(rows, "any", columns=Columns("article", "highlights"))
        load_examples("mini", "validation", limit=2)
        assert not caplog.messages
        with pytest.raises(InputError):
            load_examples([*rows, {"article": ""}], "any")
        assert not caplog.messages  # the error is the one sentence


def test_what_is_odd_about_all_of_them_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="softspoken"):
        load_examples([{"text": "a", "summary": "s"}, {"text": "b"}, {"text": "c", "summary": " "}], "any")
        load_examples([{"text": "a", "summary": "s"}] * 3, "any")
    assert [message.rpartition(": ")[2] for message in caplog.messages] == [
        "2 of 3 rows have no reference",
        "all 3 texts are the same",
        "all 3 references are the same",
    ]


def test_a_reference_column_that_is_nowhere() -> None:
    with pytest.raises(InputError, match=r"no row has text in the column 'gist' \(reference_column\)"):
        load_examples([{"text": "a"}], "any", columns=Columns(reference="gist"))


def test_a_split_of_what_has_none_is_said_to_make_no_difference(tmp_path, caplog):
    (tmp_path / "rows.jsonl").write_text('{"dialogue": "a", "summary": "b"}\n')
    given = {"output": "x", "dataset": str(tmp_path / "rows.jsonl")}
    for split, said in (
        ("test", []),
        ("validation", [f"split validation makes no difference: {given['dataset']} is one set of rows"]),
    ):
        caplog.clear()
        assert len(read_examples(EvaluateConfig(**given, split=split), SUMMARIZATION, None)) == 1
        assert caplog.messages == said
