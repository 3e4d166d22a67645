"""A whole sweep on a tiny model: trials and seeds, stopped in the middle, gone on with, pruned."""

import importlib
import sys
from dataclasses import replace

import pytest
import yaml

from softspoken.config import SweepConfig
from softspoken.types import InputError
from tiny_run import LETTERS_TASK

optuna = pytest.importorskip("optuna", reason="Optuna is not installed (the extras sweep and dev bring it)")
SWEEP = importlib.import_module("softspoken.sweep")


@pytest.fixture
def config(tiny_t5, data, tmp_path):
    (tmp_path / "swept_task.py").write_text(LETTERS_TASK)
    sys.modules.pop("swept_task", None)
    plan = {
        "train": {
            "task": str(tmp_path / "swept_task.py"),
            "model": str(tiny_t5),
            "dataset": str(data),
            "device": "cpu",
            "steps": 1,
            "batch_size": 2,
            "samples_per_prompt": 2,
            "max_new_tokens": 4,
            "min_response_chars": 0,
            "eval_dataset": str(data),
            "eval_limit": 2,
            "eval_samples": 0,
            "learning_rate": 0.01,
        },
        "search": {"lora_r": [2, 4]},
        "seeds": [0, 1],
    }
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan))
    return SweepConfig(
        file=str(tmp_path / "plan.yaml"), output=str(tmp_path / "sweep"), trials=5, sampler="grid", prune=False
    )


def test_each_combination_is_trained_with_each_seed_and_a_stop_costs_only_what_it_stopped(
    config, tmp_path, monkeypatch
):
    trained, train = [], SWEEP.train

    def stopping(settings, **callbacks):
        trained.append((settings.lora_r, settings.seed))
        if len(trained) == 3:
            raise KeyboardInterrupt
        return train(settings, **callbacks)

    monkeypatch.setattr(SWEEP, "train", stopping)
    with pytest.raises(KeyboardInterrupt):
        SWEEP.sweep(config)
    folder = SWEEP.sweep(config)
    assert len(trained) == 5, "the first two are not trained again"
    assert {*trained} == {(2, 0), (2, 1), (4, 0), (4, 1)}
    assert len(list((folder / "runs").iterdir())) == 4
    page = (folder / "sweep.html").read_text(encoding="utf-8")
    assert page.count("/report.html") == 4
    assert "2 trials; letters (greedy), higher is better" in page
    assert "parcoords" in page
    SWEEP.sweep(config)
    assert len(trained) == 5, "it is at its end"
    (tmp_path / "plan.yaml").write_text((tmp_path / "plan.yaml").read_text().replace("- 4", "- 8"))
    with pytest.raises(InputError, match="holds a sweep of another file"):
        SWEEP.sweep(config)


def test_a_trial_that_is_worse_on_the_way_is_ended(config, tmp_path, monkeypatch):
    class Always(optuna.pruners.BasePruner):
        def prune(self, study, trial):
            return True

    monkeypatch.setattr(optuna.pruners, "MedianPruner", lambda **_: Always())
    plan = yaml.safe_load((tmp_path / "plan.yaml").read_text())
    plan["train"] |= {"eval_every": 1, "eval_every_limit": 1, "steps": 3}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan))
    folder = SWEEP.sweep(replace(config, prune=True, sampler="random", trials=1))
    assert ">pruned</td>" in (folder / "sweep.html").read_text(encoding="utf-8")
    (run,) = (folder / "runs").iterdir()
    assert not (run / "eval.json").exists()
