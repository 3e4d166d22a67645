"""What is deleted, replaced, refused and locked in a folder that a command writes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from faults import Died, deaths_at_every_operation
from softspoken.storage.run_folder import (
    PRIVATE,
    WRITTEN,
    RunFolder,
    local_paths,
    require_place,
    require_room,
    write_file,
)
from softspoken.types import InputError


def files(folder: Path) -> dict[str, str]:
    """Everything but our own folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(folder.rglob("*"))
        if path.is_file() and PRIVATE not in path.parts
    }


def a_run(path: Path, **options) -> Path:
    with RunFolder(path, **options) as folder:
        folder.begin()
        folder.write("config.yaml", "config: {}\n")
        with folder.replacing("checkpoints/step-000001") as beside:
            (beside / "weights.safetensors").write_text("1")
    return path


# ------------------------------------------------------------------------------------------------------- deletion


def test_only_what_the_record_names_is_deleted(tmp_path):
    run = a_run(tmp_path / "run")
    (run / "notes.txt").write_text("mine")
    (run / "checkpoints/step-000001/mine.txt").write_text("mine")
    with RunFolder(run, replace=True) as folder:
        folder.begin()
        assert files(run) == {"notes.txt": "mine", "checkpoints/step-000001/mine.txt": "mine"}
        folder.write("metrics.jsonl", "{}\n")
    with RunFolder(run, replace=True) as folder:
        folder.begin()
    assert set(files(run)) == {"notes.txt", "checkpoints/step-000001/mine.txt"}


def test_folders_left_empty_go_with_their_files(tmp_path):
    run = a_run(tmp_path / "run")
    with RunFolder(run, replace=True) as folder:
        folder.begin()
    assert list(run.iterdir()) == []


def test_a_users_file_is_not_replaced(tmp_path):
    run = a_run(tmp_path / "run")
    (run / "README.md").write_text("mine")
    with RunFolder(run, replace=True) as folder:
        folder.begin()
        with pytest.raises(InputError, match=r"README\.md is in the way"):
            folder.write("README.md", "ours")
    assert files(run) == {"README.md": "mine"}


def test_a_file_that_we_removed_is_the_users_when_it_comes_again(tmp_path):
    run = a_run(tmp_path / "run")
    with RunFolder(run, add=True) as folder:
        folder.begin()
        folder.remove("config.yaml")
    (run / "config.yaml").write_text("mine")
    with RunFolder(run, replace=True) as folder:
        folder.begin()
    assert files(run) == {"config.yaml": "mine"}


def test_a_link_that_leads_out_is_not_followed(tmp_path):
    run, elsewhere = a_run(tmp_path / "run"), tmp_path / "elsewhere"
    (run / "checkpoints").rename(elsewhere)
    (run / "checkpoints").symlink_to(elsewhere)
    with RunFolder(run, replace=True) as folder:
        folder.begin()
    assert files(elsewhere) == {"step-000001/weights.safetensors": "1"}


@pytest.mark.parametrize("line", ['"../mine.txt"', '"/etc/mine.txt"', '"a/../../mine.txt"', '"conf', "7", ""])
def test_a_line_of_the_record_that_leads_out_or_was_cut_short_names_nothing(line, tmp_path):
    run = a_run(tmp_path / "run")
    (tmp_path / "mine.txt").write_text("mine")
    with (run / PRIVATE / WRITTEN).open("a") as record:
        record.write(line)
    with RunFolder(run, replace=True) as folder:
        folder.begin()
        folder.write("config.yaml", "new")
    assert (tmp_path / "mine.txt").is_file()
    assert files(run) == {"config.yaml": "new"}
    assert (run / PRIVATE / WRITTEN).read_text() == '"config.yaml"\n'


# ------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("options", [{}, {"replace": True}, {"add": True}])
def test_a_folder_without_a_record_is_refused(options, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with (
        pytest.raises(InputError, match=r"no record of writing \(such as 'mine.txt'\)"),
        RunFolder(tmp_path, **options),
    ):
        pass
    (tmp_path / "mine.txt").unlink()
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="such as 'empty'"), RunFolder(tmp_path, **options):
        pass
    assert not (tmp_path / PRIVATE).exists()


def test_a_folder_of_ours_is_refused_unless_asked_for(tmp_path):
    run = a_run(tmp_path / "run")
    with pytest.raises(InputError, match=r"--overwrite true to replace .*, or --resume x to go on"):
        RunFolder(run, go_on="--resume x").__enter__()
    a_run(run, replace=True)
    with RunFolder(run, add=True) as folder:
        folder.begin()
        assert folder.has("config.yaml")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.yaml", "config: {seed: 1}\nversions: {}\n"),
        ("eval.json", '{"systems": [], "judges": []}'),
        ("metrics.jsonl", '{"step": 1}\n'),
    ],
)
def test_a_run_of_an_earlier_version_is_known_by_its_files(name, content, tmp_path):
    (tmp_path / name).write_text(content)
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter/adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match="--overwrite true"):
        RunFolder(tmp_path).__enter__()
    with RunFolder(tmp_path, add=True) as folder:
        folder.begin()
        assert folder.has("adapter/adapter_config.json")
    (tmp_path / PRIVATE / WRITTEN).unlink()
    (tmp_path / "adapter/notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"such as 'adapter/notes\.txt'"):
        RunFolder(tmp_path, replace=True).__enter__()
    with RunFolder(tmp_path, add=True) as folder:
        folder.begin()
        assert not folder.has("adapter/notes.txt")
    with RunFolder(tmp_path, replace=True) as folder:
        folder.begin()
    assert files(tmp_path) == {"adapter/notes.txt": "mine"}


@pytest.mark.parametrize("content", ["learning_rate: 1\n", "config: {}\n", "- config\n- x\n", "{", "null"])
def test_a_file_that_is_called_as_ours_is_not_enough(content, tmp_path):
    (tmp_path / "config.yaml").write_text(content)
    for options in ({}, {"replace": True}, {"add": True}):
        with pytest.raises(InputError, match="no record"):
            RunFolder(tmp_path, **options).__enter__()


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (".", "the working folder"),
        ("", "the working folder"),
        ("..", "the working folder or a folder above"),
        ("a/..", "the working folder"),
        ("/", "the working folder or a folder above"),
        ("to_here", "the working folder"),
        ("../home", "your home folder"),
        ("models/t5", "is or holds 'models/t5'"),
        ("models", "is or holds 'models/t5'"),
        ("to_model", "is or holds"),
        ("data", "is or holds 'data/chats.jsonl'"),
        ("run", "is or holds 'ppo=run/adapter'"),
        ("judge", "hf:judge:toxic', which is read"),
    ],
)
def test_places_that_are_refused(output, words, tmp_path, monkeypatch):
    here, home = tmp_path / "here", tmp_path / "home"
    for folder in (home, *(here / name for name in ("a", "models/t5", "data", "run/adapter", "judge"))):
        folder.mkdir(parents=True)
    (here / "data/chats.jsonl").write_text("{}")
    (here / "to_here").symlink_to(here)
    (here / "to_model").symlink_to(here / "models/t5")
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(home))
    inputs = [
        "mini",
        None,
        "models/t5",
        "data/chats.jsonl",
        "ppo=run/adapter",
        "mini + 0.5*hf:judge:toxic",
        "hf:judge:toxic",
    ]
    with pytest.raises(InputError) as caught:
        require_place(output, inputs)
    assert words in str(caught.value)
    require_place("runs/new", inputs)


def test_an_evaluation_may_lie_beside_the_adapter_but_not_on_what_it_reads(tmp_path):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "eval.json").write_text("{}")
    require_place(str(tmp_path), [str(tmp_path / "adapter")], writes=("eval.json",))
    with pytest.raises(InputError, match="is or holds"):
        require_place(str(tmp_path), [f"theirs={tmp_path / 'eval.json'}"], writes=("eval.json",))
    with pytest.raises(InputError, match="is or holds"):
        require_place(str(tmp_path), [str(tmp_path)], writes=("eval.json",))


def test_a_disk_without_room_is_said_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1_000_000 * (path == tmp_path)))
    require_room(tmp_path / "a/run", 1_000_000, "its checkpoints")
    with pytest.raises(
        InputError, match="1 MB are free on its disk, and its checkpoints will take 2 MB; make room there"
    ):
        require_room(tmp_path / "a/run", 2_000_000, "its checkpoints")


def test_paths_in_what_is_given(tmp_path):
    for given in (
        f"{tmp_path}",
        f"a={tmp_path}",
        f"hf:{tmp_path}:label",
        f"similarity:{tmp_path}",
        f"mini + 0.2*entails:{tmp_path}",
    ):
        assert local_paths(given) == [tmp_path], given
    assert local_paths("detoxify:original") == []
    assert local_paths("x" * 5000) == []


@pytest.mark.parametrize(("output", "words"), [("file", "is not a folder"), ("file/run", "cannot be written"), ("x" * 300, "cannot be written"), ("dangling", "not a folder"), ("a\0b", "cannot be a name")])  # fmt: skip
def test_outputs_that_cannot_be(output, words, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match=words), RunFolder(tmp_path / output) as folder:
        folder.begin()
    assert files(tmp_path) == {"file": "mine"}


def test_nothing_is_made_before_the_beginning(tmp_path):
    with RunFolder(tmp_path / "a/run"):
        assert not (tmp_path / "a").exists()
    run = a_run(tmp_path / "run")
    before = files(run)
    with RunFolder(run, replace=True):
        pass
    assert files(run) == before


def test_a_numbered_folder_is_never_another_runs(tmp_path):
    (tmp_path / "mini-1").mkdir()
    names = []
    for _ in range(2):
        with RunFolder(tmp_path / "mini-1", numbered=True) as folder:
            folder.begin()
            names.append(folder.path.name)
    assert names == ["mini-1-2", "mini-1-3"]


# ------------------------------------------------------------------------------------------------------- the lock

OTHER = """
import sys
from softspoken.storage.run_folder import RunFolder
folder = RunFolder(sys.argv[1], add=True).__enter__()
folder.begin()
print("on", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(os.name == "nt", reason="POSIX processes")
def test_one_process_at_a_time_and_a_dead_ones_folder_is_taken_over(tmp_path, caplog):
    run = a_run(tmp_path / "run")
    caplog.set_level("INFO", "softspoken")
    with subprocess.Popen(
        [sys.executable, "-c", OTHER, run], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "on\n"
        for options in ({"replace": True}, {"add": True}):
            with pytest.raises(InputError, match=f"in use by process {other.pid} on .*; wait for its end"):
                RunFolder(run, **options).__enter__()
        other.kill()
    assert not caplog.messages
    with RunFolder(run, add=True) as folder:
        folder.begin()
        assert json.loads((run / PRIVATE / "owner.json").read_text())["process"] == os.getpid()
    assert len(caplog.messages) == 1
    assert f"left by process {other.pid}" in caplog.text
    a_run(run, replace=True)
    assert len(caplog.messages) == 1  # an end is said to have been one


def test_two_that_start_in_one_new_folder(tmp_path):
    with RunFolder(tmp_path / "run") as first, RunFolder(tmp_path / "run") as second:
        first.begin()
        with pytest.raises(InputError, match="in use"):
            second.begin()
        first.write("config.yaml", "x")
        first.__exit__(None, None, None)
        with pytest.raises(InputError, match="not empty"):
            second.begin()


# ------------------------------------------------------------------------------------------------- whole or not at all


def test_dying_at_any_operation_leaves_whole_files_and_nobody_elses_touched(tmp_path, monkeypatch):
    """At each call of the system in turn: what is there is of the old run or the new one, and doing it again ends alike."""

    def job(path):
        with RunFolder(path, replace=True) as folder:
            folder.begin()
            folder.write("config.yaml", "new")
            with folder.replacing("checkpoints/step-000002") as beside:
                (beside / "weights.safetensors").write_text("2")
            folder.write("config.yaml", "newer")
            folder.claim("partial")
            (path / "partial").write_text("rows")
            folder.rename("partial", "rows")

    def old(path):
        a_run(path)
        (path / "notes.txt").write_text("mine")
        return path

    job(old(tmp_path / "whole"))
    end = files(tmp_path / "whole")
    assert end == {
        "config.yaml": "newer",
        "checkpoints/step-000002/weights.safetensors": "2",
        "rows": "rows",
        "notes.txt": "mine",
    }
    allowed = {
        "notes.txt": {"mine"},
        "config.yaml": {"config: {}\n", "new", "newer"},
        "checkpoints/step-000001/weights.safetensors": {"1"},
        "checkpoints/step-000002/weights.safetensors": {"2"},
        "partial": {"", "ro", "rows"},  # which the test writes in place
        "rows": {"rows"},
    }

    def again(number):
        path = tmp_path / str(number)
        left = files(path)
        assert left.items() <= {(name, text) for name in left for text in allowed[name]}, number
        assert left["notes.txt"] == "mine"
        job(path)
        assert files(path) == end, number

    deaths = deaths_at_every_operation(
        lambda number: job(tmp_path / str(number)), again, monkeypatch, lambda number: old(tmp_path / str(number))
    )
    assert deaths > 30


def test_a_file_is_written_beside_and_renamed(tmp_path, monkeypatch):
    write_file(tmp_path / "page.html", "old")
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(Died))
    with pytest.raises(Died):
        write_file(tmp_path / "page.html", "new")
    assert (tmp_path / "page.html").read_text() == "old"
