"""Files made to fill the memory or to break the parser: one sentence, at bounded memory."""

import gzip
import io
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from softspoken.data import files
from softspoken.data.files import file_rows, lines_of
from softspoken.types import InputError


@pytest.fixture(autouse=True)
def smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bounds, a hundredth of the size, so that the tests are quick."""
    for name in ("LONGEST_LINE", "LONGEST_JSON"):
        monkeypatch.setattr(files, name, getattr(files, name) // 100)
    monkeypatch.setattr(files, "MOST_UNPACKED", (1_000_000, 20))


def bomb(path: Path, piece: bytes, megabytes: int = 3) -> Path:
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(megabytes):
            file.write(piece * (1_000_000 // len(piece)))
    return path


@pytest.mark.parametrize(
    ("name", "piece", "words"),
    [
        ("a.jsonl.gz", b" ", "line 1 has more than 100,000 characters"),
        ("a.csv.gz", b"a", "line 1 has more than 100,000 characters"),
        ("a.tsv.gz", b"a\t", "line 1 has more than 100,000 characters"),
        ("a.txt.gz", b"a", "line 1 has more than 100,000 characters"),
        ("a.json.gz", b"[", "has more than 2,000,000 characters; write it as JSONL"),
        ("b.jsonl.gz", b'{"dialogue": "hello hello hello"}\n', "unpacks to more than 1,000,000 bytes"),
        ("b.csv.gz", b"a,b\n", "unpacks to more than 1,000,000 bytes"),
        ("b.tsv.gz", b"a\tb\n", "unpacks to more than 1,000,000 bytes"),
        ("b.txt.gz", b"a\n", "unpacks to more than 1,000,000 bytes"),
    ],
)
def test_a_gzip_bomb(name: str, piece: bytes, words: str, tmp_path: Path) -> None:
    path = bomb(tmp_path / name, piece)
    with pytest.raises(InputError) as caught:
        for _ in file_rows(path):
            pass
    assert words in str(caught.value)


def test_text_that_packs_well_is_read(tmp_path: Path) -> None:
    rows = [json.dumps({"dialogue": f"row {number}: hello"}) for number in range(20_000)]
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(rows).encode()))
    assert sum(1 for _ in file_rows(path)) == 20_000


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[" * 40_000 + "]" * 40_000, "nested too deep"),
        ('{"a":' * 15_000 + "1" + "}" * 15_000, "nested too deep"),
        ('{"dialogue": "hi", "number": ' + "9" * 5000 + "}", "a number of more digits than can be read"),
    ],
)
def test_json_that_no_data_is(content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"dialogue": "hi"}\n' + content + "\n")
    (tmp_path / "a.json").write_text(f"[{content}]")
    for name, place in (("a.jsonl", "a.jsonl: line 2 "), ("a.json", "a.json ")):
        with pytest.raises(InputError) as caught:
            list(file_rows(tmp_path / name))
        assert words in str(caught.value)
        assert place in str(caught.value)


def test_a_csv_field_that_does_not_end(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('dialogue\n"' + "a\n" * 60_000)
    with pytest.raises(InputError, match=r"cannot be read as CSV at line \d+ \(field larger than field limit"):
        list(file_rows(tmp_path / "a.csv"))


def test_a_date_that_python_does_not_have(tmp_path: Path) -> None:
    far = pyarrow.array([400_000_000_000_000], pyarrow.timestamp("ms"))
    table = pyarrow.table({"dialogue": ["hi"], "when": far})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(InputError, match="the column 'when' has a value that cannot be read"):
        list(file_rows(tmp_path / "a.parquet"))


def test_a_row_group_that_is_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"dialogue": ["hi"] * 1000}), tmp_path / "a.parquet")
    assert len(list(file_rows(tmp_path / "a.parquet"))) == 1000
    monkeypatch.setattr(files, "LARGEST_GROUP", 10)
    with pytest.raises(InputError, match="write it with smaller ones"):
        list(file_rows(tmp_path / "a.parquet"))


def test_standard_input_has_the_same_bound() -> None:
    assert list(lines_of(io.StringIO("a\nb"), "standard input")) == ["a\n", "b"]
    with pytest.raises(InputError, match="standard input: line 2 has more than"):
        list(lines_of(io.StringIO("a\n" + "b" * 100_001), "standard input"))
