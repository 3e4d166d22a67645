"""Rows that are safe on the disk, a window at a time."""

import json
import os

import pytest

from softspoken.evaluation import rows as module
from softspoken.evaluation.rows import PARTIAL_FILE, ROWS_FILE, STATE_FILE, OtherEvaluation, RowsFile
from softspoken.storage.run_folder import RunFolder

ONE, TWO = [{"row": 0, "said": "Grüße"}, {"row": 1, "said": "…"}], [{"row": 2, "said": "x"}]


@pytest.fixture
def folder(tmp_path):
    with RunFolder(tmp_path / "run") as made:
        made.begin()
        yield made


def opened(folder, *, resume=False, **made_of):
    return RowsFile(folder, made_of, resume=resume)


def stopped(folder, **made_of):
    """Three windows, the middle one of no rows; and the beginning of a fourth."""
    with opened(folder, **made_of) as rows:
        rows.add("base|greedy|0|0", ONE, cut=1)
        rows.add("base|greedy|0|2", [])
        rows.add("base|sampled|0|0", TWO, cut=3)
    with (folder.path / PARTIAL_FILE).open("ab") as file:
        file.write(b'{"row": 7')


def test_windows_are_read_again_as_they_were_written(folder):
    with opened(folder) as rows:
        rows.add("a", ONE)
        rows.add("b", TWO)
        assert (rows.read("a"), rows.read("b")) == (ONE, TWO)
        assert list(rows) == ONE + TWO
        assert ("a" in rows, "c" in rows) == (True, False)
        rows.finish()
    assert (folder.path / ROWS_FILE).read_text(encoding="utf-8").splitlines()[0] == '{"row": 0, "said": "Grüße"}'
    assert rows._file.closed
    assert not (folder.path / PARTIAL_FILE).exists()


def test_the_rows_are_on_the_disk_before_the_note_that_they_are_whole(folder, monkeypatch):
    order = []
    partial = folder.path / PARTIAL_FILE
    sync, write = os.fsync, RunFolder.write

    def synced(number):
        if partial.exists() and os.fstat(number).st_ino == partial.stat().st_ino:
            order.append(partial.read_bytes().count(b"\n"))
        sync(number)

    monkeypatch.setattr(module.os, "fsync", synced)
    monkeypatch.setattr(RunFolder, "write", lambda *given: order.append(given[1]) or write(*given))
    with opened(folder) as rows:
        rows.add("a", ONE)
    assert order == [2, STATE_FILE]
    assert rows._file.closed


def test_how_many_were_cut_is_told_by_how_a_windows_name_begins(folder):
    stopped(folder)
    with opened(folder, resume=True) as rows:
        assert rows.cut("base") == [1, 0, 3]
        assert rows.cut("base", "greedy", "0") == [1, 0]
        assert rows.cut("bas") == []


def test_what_was_stopped_goes_on_after_its_last_whole_window(folder):
    stopped(folder, seed=1)
    with opened(folder, resume=True, seed=1) as rows:
        assert list(rows.windows) == ["base|greedy|0|0", "base|greedy|0|2", "base|sampled|0|0"]
        rows.add("tuned|greedy|0|0", TWO)
        assert list(rows) == ONE + TWO + TWO
        rows.finish()
    assert (folder.path / ROWS_FILE).read_bytes().count(b"\n") == 4


def test_one_that_had_got_its_name_goes_on_as_well(folder):
    stopped(folder)
    folder.rename(PARTIAL_FILE, ROWS_FILE)
    with opened(folder, resume=True) as rows:
        assert len(list(rows)) == 3
    assert not (folder.path / ROWS_FILE).exists()


def test_a_finished_evaluation_beside_one_that_was_stopped_is_left_alone(folder):
    folder.write(ROWS_FILE, "finished\n")
    stopped(folder)
    with opened(folder, resume=True) as rows:
        assert len(list(rows)) == 3
    assert (folder.path / ROWS_FILE).read_text() == "finished\n"


def test_what_is_started_again_or_of_something_else_is_not_gone_on_with(folder):
    stopped(folder, seed=1, files={})
    with pytest.raises(OtherEvaluation, match="was started with another more, seed; give the same command"):
        opened(folder, resume=True, seed=2, files={}, more=0)
    with opened(folder, seed=2) as rows:
        assert list(rows) == []
        assert (folder.path / PARTIAL_FILE).stat().st_size == 0
        assert not (folder.path / STATE_FILE).exists()


def test_where_nothing_was_measured_nothing_stays(folder):
    with opened(folder) as rows:
        assert (folder.path / PARTIAL_FILE).exists()
    assert not (folder.path / PARTIAL_FILE).exists()
    with opened(folder) as rows:
        rows.add("a", ONE)
    assert (folder.path / PARTIAL_FILE).exists()


@pytest.mark.parametrize("broken", [{"windows": {"a": [4, 2, "x"], "b": [0, 4, "y"]}}, {"cut": {}}])
def test_a_note_that_contradicts_itself_is_not_believed(folder, broken, caplog):
    stopped(folder)
    note = folder.path / STATE_FILE
    note.write_text(json.dumps(json.loads(note.read_text()) | {"cut": {"a": 0, "b": 0}} | broken))
    with opened(folder, resume=True) as rows:
        assert list(rows) == []
    assert "measuring from the start" in caplog.text
