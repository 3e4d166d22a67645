"""What is written of each step, what a resumed run keeps of it, and what the terminal and whoever else is shown."""

import json
import os
from types import SimpleNamespace

import pytest

from softspoken.rl import tracking
from softspoken.rl.tracking import METRICS_FILE, Tracker
from softspoken.storage.run_folder import RunFolder
from softspoken.types import RunError


@pytest.fixture
def folder(tmp_path):
    with RunFolder(tmp_path / "run") as made:
        made.begin()
        yield made


@pytest.fixture
def shown(monkeypatch):
    """What the progress bar was told, in turn."""
    told = []

    def telling(name):
        return lambda *given, **named: told.append((name, *given, *named.values()))

    bar = SimpleNamespace(**{name: telling(name) for name in ("start", "stop", "update")})
    bar.add_task = lambda name, **named: told.append(("task", *named.values())) or 7
    monkeypatch.setattr(tracking, "progress_bar", lambda *_: bar)
    return told


def lines(folder):
    return (folder.path / METRICS_FILE).read_text(encoding="utf-8").splitlines()


def test_each_step_is_a_line_at_once_a_point_on_the_board_and_a_figure_on_the_bar(folder, shown):
    with Tracker(folder, first_step=0, steps=3, shown=lambda step, row: shown.append(("board", step, row))) as tracker:
        tracker.log(1, {"objective/score": 0.5, "time/step": 1.25})
        assert [json.loads(line) for line in lines(folder)] == [{"step": 1, "objective/score": 0.5, "time/step": 1.25}]
        tracker.log(2, {"objective/kl": 0.25, "tokens/short": 2.0, "time/step": 2.0})
        assert [json.loads(line)["step"] for line in lines(folder)] == [1, 2]
    assert shown == [
        ("task", 3, 0, ""),
        ("start",),
        ("board", 1, {"objective/score": 0.5, "time/step": 1.25}),
        ("update", 7, 1, "reward 0.500 · 1.2 s/step"),
        ("board", 2, {"objective/kl": 0.25, "tokens/short": 2.0, "time/step": 2.0}),
        ("update", 7, 2, "KL 0.250 · 2 too short · 2.0 s/step"),
        ("stop",),
    ]
    with pytest.raises(ValueError, match="closed file"):
        tracker.log(3, {"time/step": 1.0})


def test_without_anybody_to_show_them_to_steps_are_written_alone(folder, shown):
    with Tracker(folder, first_step=0, steps=1) as tracker:
        tracker.log(1, {"time/step": 1.0})
    assert {name for name, *_ in shown} == {"task", "start", "update", "stop"}


def test_what_is_no_number_is_written_and_then_said(folder, shown):
    with (
        Tracker(folder, first_step=0, steps=1) as tracker,
        pytest.raises(RunError, match="step 1: objective/kl is not a finite number; lower the learning rate"),
    ):
        tracker.log(1, {"objective/kl": float("nan"), "objective/score": 1.0, "time/step": 1.0})
    assert len(lines(folder)) == 1
    assert "update" not in {name for name, *_ in shown}


def test_before_a_checkpoint_the_lines_are_on_the_disk(folder, shown, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(os.fstat(number).st_ino))
    with Tracker(folder, first_step=0, steps=1) as tracker:
        del synced[:]
        tracker.sync()
    assert synced == [(folder.path / METRICS_FILE).stat().st_ino]


def test_a_resumed_run_keeps_each_step_up_to_its_checkpoint_once_and_says_what_it_lacks(folder, shown, caplog):
    rows = [
        {"step": 0},
        {"step": 1, "ppo/optimizer_steps": 2.0},
        "{ half a li",
        {"step": 3, "of": "a first try", "ppo/optimizer_steps": 9.0},
        {"step": 3, "ppo/optimizer_steps": 4.0},
        {"step": "2"},
        {"ppo/skipped": 1.0},
        {"step": 2},
        {"step": 4},
    ]
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    folder.write(METRICS_FILE, text)
    with Tracker(folder, first_step=3, steps=5) as tracker:
        assert tracker.optimizer_steps == 6
        tracker.log(4, {"ppo/optimizer_steps": 1.0, "time/step": 1.0})
        assert tracker.optimizer_steps == 7
        tracker.log(5, {"time/step": 1.0})
        assert tracker.optimizer_steps == 7
    assert [json.loads(line)["step"] for line in lines(folder)] == [1, 2, 3, 4, 5]
    assert shown[0] == ("task", 5, 3, "")
    assert not caplog.messages
    folder.write(METRICS_FILE, '{"step": 1}\n')
    with Tracker(folder, first_step=2, steps=5):
        pass
    assert [message.split(METRICS_FILE)[1] for message in caplog.messages] == [
        " has 1 of the 2 steps before this one; the others cannot be read"
    ]
