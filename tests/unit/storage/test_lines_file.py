"""A file of lines that is begun, stopped, gone on with and renamed; what it may replace, and what it refuses."""

import json
import os
from pathlib import Path

import pytest

from faults import deaths_at_every_operation
from softspoken.storage.lines_file import LinesFile
from softspoken.storage.run_folder import RunFolder
from softspoken.types import InputError

WINDOW = 2


def lines_file(path, *, inputs=(), **settings):
    given = {"output": str(path), "overwrite": False, "resume": False, "batch_size": WINDOW, **settings}
    return LinesFile("generate", given, inputs=list(inputs), key="id")


def line(number):
    return json.dumps({"id": str(number), "text": "é" * number}, ensure_ascii=False) + "\n"


WHOLE = "".join(line(number) for number in range(5))


def write(path, *, stop_after=5, **settings):
    """A command that makes five lines in windows of two; returns how many it did not have to make."""
    with lines_file(path, **settings) as file:
        if file.is_finished:
            return 5
        done = file.begin(WINDOW)
        for number in range(done, 5):
            if number == stop_after:
                raise KeyboardInterrupt
            file.write(line(number))
            file.flush()
        file.finish()
        return done


def stop(path, after, **settings):
    with pytest.raises(KeyboardInterrupt):
        write(path, stop_after=after, **settings)


def test_it_is_there_when_it_is_whole_and_nothing_beside_it(tmp_path):
    stop(tmp_path / "out.jsonl", 3)
    assert not (tmp_path / "out.jsonl").exists()
    assert write(tmp_path / "out.jsonl", resume=True) == 2  # of three lines, a window of two is whole
    assert (tmp_path / "out.jsonl").read_text(encoding="utf-8") == WHOLE
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]
    assert write(tmp_path / "out.jsonl", resume=True) == 5


@pytest.mark.parametrize(("left", "done"), [(b'{"id": "9"', 2), (b"\0\0\0\n\0\n", 2), (b"\n" * 3, 2), (b"", 2)])
def test_what_a_stop_or_a_power_cut_left_after_the_whole_windows_is_cut_off(left, done, tmp_path):
    stop(tmp_path / "out.jsonl", 2)
    with (tmp_path / ".out.jsonl.unfinished/lines.jsonl").open("ab") as file:
        file.write(left)
    assert write(tmp_path / "out.jsonl", resume=True) == done
    assert (tmp_path / "out.jsonl").read_text(encoding="utf-8") == WHOLE


def test_a_file_that_is_there_is_replaced_only_where_asked_for_and_at_the_end(tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_text('{"id": "old"}\n')
    with pytest.raises(InputError, match=r"out\.jsonl is there; pass --overwrite true"):
        write(path)
    stop(path, 3, overwrite=True)
    assert path.read_text() == '{"id": "old"}\n'
    with pytest.raises(InputError, match="was begun and stopped; pass --resume true"):
        write(path)
    assert write(path, resume=True) == 2
    assert path.read_text(encoding="utf-8") == WHOLE


def test_a_start_from_the_beginning(tmp_path):
    stop(tmp_path / "out.jsonl", 3)
    assert write(tmp_path / "out.jsonl", overwrite=True) == 0
    stop(tmp_path / "other.jsonl", 0)  # before the first line
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


@pytest.mark.parametrize("content", ["my notes\n", "[1]\n", '{"name": 1}\n', '{"id": "1"}', "\0"])
def test_what_is_not_ours_is_never_replaced(content, tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text(content)
    for settings in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(InputError, match="holds what softspoken has not written"):
            write(path, **settings)
    assert path.read_text() == content
    assert [one.name for one in tmp_path.iterdir()] == ["notes.txt"]


def test_places_that_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    Path("in.jsonl").write_text(line(1))
    Path("link").symlink_to("in.jsonl")
    for place, words in (
        ("folder", "is not a file"),
        ("/dev/null", "is not a file"),
        (".", "the working folder"),
        ("in.jsonl", "is or holds 'in.jsonl'"),
        ("link", "is or holds 'in.jsonl'"),
        ("in.jsonl/x", "cannot be written"),
        ("x" * 300, "cannot be written"),
    ):
        with pytest.raises(InputError, match=words):
            write(place, inputs=["in.jsonl"], overwrite=True)
    assert Path("in.jsonl").read_text(encoding="utf-8") == line(1)
    Path(".mine.unfinished").mkdir()
    Path(".mine.unfinished/notes").write_text("mine")
    with pytest.raises(InputError, match="no record of writing"):
        write("mine", overwrite=True)


def test_only_the_same_command_goes_on(tmp_path):
    data = tmp_path / "data"
    data.write_text("a")
    stop(tmp_path / "out.jsonl", 3, inputs=[str(data)])
    with pytest.raises(InputError, match="was begun with another batch_size; give the same command"):
        write(tmp_path / "out.jsonl", resume=True, batch_size=3, inputs=[str(data)])
    data.write_text("other")
    with pytest.raises(InputError, match="was begun with another files"):
        write(tmp_path / "out.jsonl", resume=True, inputs=[str(data)])
    (tmp_path / ".out.jsonl.unfinished/settings.json").write_text("[")
    with pytest.raises(InputError, match=r"settings\.json cannot be read"):
        write(tmp_path / "out.jsonl", resume=True, inputs=[str(data)])


def test_one_process_at_a_time(tmp_path):
    stop(tmp_path / "out.jsonl", 3)
    with RunFolder(tmp_path / ".out.jsonl.unfinished", add=True) as other:
        other.begin()
        with pytest.raises(InputError, match=f"in use by process {os.getpid()}"):
            write(tmp_path / "out.jsonl", resume=True)


@pytest.mark.parametrize("old", [False, True])
def test_dying_at_any_operation_it_goes_on_and_ends_in_the_same(old, tmp_path, monkeypatch):
    def before(number):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "notes").write_text("mine")
        if old:
            (tmp_path / str(number) / "out.jsonl").write_text('{"id": "old"}\n')

    def again(number):
        path = tmp_path / str(number) / "out.jsonl"
        if old:
            assert path.read_text(encoding="utf-8") in ('{"id": "old"}\n', WHOLE)
        begun = path.with_name(".out.jsonl.unfinished").exists()
        write(path, resume=begun, overwrite=old and not begun) if begun or not path.exists() or old else None
        assert path.read_text(encoding="utf-8") == WHOLE, number
        assert sorted(one.name for one in path.parent.iterdir()) == ["notes", "out.jsonl"], number

    deaths = deaths_at_every_operation(
        lambda number: write(tmp_path / str(number) / "out.jsonl", overwrite=old), again, monkeypatch, before
    )
    assert deaths > 30
