"""Trackers, each offline: what a run shows them arrives, and one that fails does not take the run with it."""

import json
import sqlite3
import sys
from types import SimpleNamespace

import pytest

from softspoken.config import TrainConfig
from softspoken.storage.run_folder import RunFolder
from softspoken.training import boards
from softspoken.training.boards import Boards, require_boards
from softspoken.types import InputError


@pytest.fixture
def folder(tmp_path):
    with RunFolder(tmp_path / "run") as made:
        made.begin()
        yield made


def shown(folder, name):
    config = TrainConfig(report_to=[name], dataset=[{"text": "a"}])
    require_boards(config)
    with Boards(config, folder) as board:
        board.log(1, {"objective/score": 0.25})
        board.log(2, {"objective/score": 0.5})


def test_tensorboard_reads_what_was_logged_and_its_files_are_the_runs(folder):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shown(folder, "tensorboard")
    events = EventAccumulator(str(folder.path / "tensorboard"))
    events.Reload()
    assert [(point.step, point.value) for point in events.Scalars("objective/score")] == [(1, 0.25), (2, 0.5)]
    (file,) = (folder.path / "tensorboard").iterdir()
    assert folder.has(f"tensorboard/{file.name}")


def test_trackio_keeps_what_was_logged(folder, tmp_path, monkeypatch, capsys):
    pytest.importorskip("trackio")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    for name in [name for name in sys.modules if name.split(".")[0] == "trackio"]:
        monkeypatch.delitem(sys.modules, name)  # it reads the variable when it is imported
    shown(folder, "trackio")
    database = tmp_path / "trackio" / "softspoken.db"
    rows = sqlite3.connect(database).execute("select metrics from metrics order by step").fetchall()
    found = [json.loads(text) for (text,) in rows]
    assert [row["objective/score"] for row in found if "objective/score" in row] == [0.25, 0.5]
    assert not capsys.readouterr().out, "standard output is ours"


def test_wandb_offline_writes_into_the_run(folder, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    shown(folder, "wandb")
    (run,) = (folder.path / "wandb").glob("offline-run-*/run-*.wandb")
    assert b"objective/score" in run.read_bytes()
    assert b"kl_coef" in run.read_bytes()
    assert folder.has(run.relative_to(folder.path).as_posix())


def test_mlflow_keeps_what_was_logged(folder, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    told = []
    monkeypatch.setattr(mlflow, "search_experiments", lambda **_: [])
    monkeypatch.setattr(mlflow, "create_experiment", lambda **_: "7")
    run = SimpleNamespace(info=SimpleNamespace(run_id="r"))
    monkeypatch.setattr(mlflow, "start_run", lambda **given: told.append(given["experiment_id"]) or run)
    monkeypatch.setattr(mlflow, "log_params", lambda params: told.append("seed" in params or None))
    monkeypatch.setattr(mlflow, "log_metrics", lambda metrics, step: told.append((step, metrics)))
    monkeypatch.setattr(mlflow, "end_run", lambda: told.append("end"))
    shown(folder, "mlflow")
    assert [one for one in told if one is not None and one is not True] == [
        "7",
        (1, {"objective/score": 0.25}),
        (2, {"objective/score": 0.5}),
        "end",
    ]


def test_what_is_not_installed_or_not_known_is_one_sentence(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        InputError, match="report_to mlflow needs mlflow-skinny, which is not installed; pip install 'softspoken"
    ):
        require_boards(TrainConfig(report_to=["mlflow"]))
    with pytest.raises(
        InputError, match=r"report_to \['neptune'\] cannot be used: give tensorboard, wandb, trackio, mlflow"
    ):
        TrainConfig(report_to=["neptune"])


def test_one_that_cannot_start_is_said_and_one_that_fails_later_is_let_go(folder, monkeypatch, caplog):
    def refuse(*_):
        raise OSError("no key\nand more")

    monkeypatch.setattr(boards, "_started", refuse)
    config = TrainConfig(report_to=["wandb"])
    with pytest.raises(InputError, match=r"report_to wandb cannot be started \(no key\)"), Boards(config, folder):
        pass
    monkeypatch.setattr(boards, "_started", lambda *_: SimpleNamespace(log=refuse, finish=refuse))
    with Boards(config, folder) as board:
        board.log(1, {})
        board.log(2, {})
    assert len([message for message in caplog.messages if "training goes on without it" in message]) == 1
    with Boards(config, folder):
        pass
    assert "wandb did not end well: no key" in caplog.messages
