"""A run from its loop's side: steps one at a time, callbacks, evaluations on the way, the best weights, early ends, and going on."""

import json
import sys
from dataclasses import replace

import pytest
import torch
import yaml
from safetensors.torch import load_file

import softspoken
from softspoken.config import TrainConfig
from softspoken.tasks.task import load_task
from softspoken.train import steps, train
from softspoken.types import InputError, RunError
from tiny_run import LETTERS_TASK, config_for, metrics_of


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    path = tmp_path_factory.mktemp("tasks") / "letter_task.py"
    path.write_text(LETTERS_TASK)
    return path


@pytest.fixture
def config(tiny_t5, data, tmp_path, letters):
    return config_for(
        tiny_t5,
        data,
        tmp_path / "run",
        task=str(letters),
        judge=None,
        eval_every_limit=2,
        batch_size=2,
        mini_batch_size=4,
    )


def end_of(run):
    return json.loads((run / "end.json").read_text())


def ended(kept, **more):
    """Of a run that came to its end."""
    return {"step": 5, "of": 5, "why": "all 5 steps were done", "kept": kept, "collapsed": False, **more}


def adapter_of(run):
    return (run / "adapter" / "adapter_model.safetensors").read_bytes()


def test_steps_come_one_at_a_time_and_who_leaves_leaves_a_run_to_go_on_with(config, tmp_path):
    whole = train(replace(config, output=str(tmp_path / "whole")))
    seen = []
    for step in softspoken.steps(config):
        seen.append(step)
        if step.number == 3:
            break
    assert [step.number for step in seen] == [1, 2, 3]
    assert {step.steps for step in seen} == {5}
    assert len(seen[0].texts) == len(seen[0].responses) == len(seen[0].scores) == 4
    assert seen[0].texts[0] == seen[0].texts[1], "two samples of one text"
    assert sum(seen[0].scores) / 4 == pytest.approx(seen[0].metrics["objective/score"])
    run = tmp_path / "run"
    assert (run / "checkpoints" / "step-000003").is_dir()
    assert not (run / "adapter").exists()
    assert not list((run / ".softspoken").glob("owner.json")), "nobody has the folder any more"
    train(TrainConfig(resume=str(run)))
    assert metrics_of(run) == metrics_of(whole)
    assert adapter_of(run) == adapter_of(whole)
    assert end_of(run) == ended(5)
    assert list(steps(TrainConfig(resume=str(run)))) == [], "it is at its end"


def test_what_a_gpu_keeps_from_step_to_step_is_let_go_of_however_the_loop_ends(config, monkeypatch):
    module, made = sys.modules["softspoken.train"], []
    load = module.load_policy
    monkeypatch.setattr(module, "load_policy", lambda *given: made.append(load(*given)) or made[-1])
    for _ in softspoken.steps(replace(config, steps=2)):
        made[0].sampling_buffers["captured"] = made[0].passes["captured"] = "a graph"
        break
    assert made[0].sampling_buffers == made[0].passes == {}


def test_an_error_in_the_loops_body_leaves_the_step_saved(config, tmp_path):
    with pytest.raises(ZeroDivisionError):
        train(config, on_step=lambda step: 1 / (step.number - 3))
    assert (tmp_path / "run" / "checkpoints" / "step-000003").is_dir()


def test_callbacks_see_steps_evaluations_and_the_end_and_one_may_end_the_training(config, tmp_path):
    told = []
    train(
        replace(config, eval_every=2, steps=5, keep="last"),
        on_step=lambda step: told.append(step.number),
        on_evaluate=lambda step: told.append({*step.evaluation}) or step.number < 4,
        on_end=lambda run: told.append(run),
    )
    figures = {"letters", "size", "reward", "length"}
    assert told == [1, 2, figures, 3, 4, figures, tmp_path / "run"]
    end = end_of(tmp_path / "run")
    assert (end["step"], end["of"], end["why"], end["kept"]) == (4, 5, "a callback returned False", 4)
    assert {*end["start"]} == figures
    assert "| Ended | after step 4 of 5 (a callback returned False)" in (tmp_path / "run" / "README.md").read_text()


def made_up(monkeypatch, values):
    """Evaluations that find these letters in turn: of the start, then of each evaluated step."""
    told = iter(values)
    from softspoken.training import validation

    monkeypatch.setattr(
        validation.Validation, "__call__", lambda self, policy, reference=False: {"letters": next(told), "size": 5.0}
    )


def test_the_best_weights_are_kept_though_later_ones_were_saved_and_a_stop_changes_nothing(
    config, tmp_path, monkeypatch
):
    config = replace(config, eval_every=1, steps=5, save_every=1)
    made_up(monkeypatch, [0.5, 0.4, 0.9, 0.8, 0.7, 0.6])
    best = {}

    def look(step):
        if step.number == 3:  # step 2 is saved by now
            best.update(load_file(tmp_path / "run" / "checkpoints" / "step-000002" / "weights.safetensors"))

    run = train(config, on_step=look)
    assert end_of(run) == ended(2, start={"letters": 0.5, "size": 5.0})
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [
        *("step-000002", "step-000004", "step-000005"),
    ]
    saved = load_file(run / "adapter" / "adapter_model.safetensors")
    for name, weight in saved.items():
        assert torch.equal(weight, best[name.replace(".weight", ".default.weight")])
    assert [row["eval/letters"] for row in metrics_of(run)] == [0.4, 0.9, 0.8, 0.7, 0.6]

    made_up(monkeypatch, [0.5, 0.4, 0.9, 0.8, 0.7, 0.6])
    other = replace(config, output=str(tmp_path / "stopped"))
    for step in steps(other):
        if step.number == 3:
            break
    train(TrainConfig(resume=other.output))
    assert adapter_of(tmp_path / "stopped") == adapter_of(run)
    train(TrainConfig(resume=str(run), keep="last"))
    assert end_of(run)["kept"] == 5
    assert adapter_of(run) != adapter_of(tmp_path / "stopped")


def test_patience_ends_a_run_and_more_of_it_goes_on(config, tmp_path, monkeypatch):
    config = replace(config, eval_every=1, patience=2, steps=5)
    made_up(monkeypatch, [0.5, 0.6, 0.4, 0.4, 0.7, 0.1])
    run = train(config)
    assert end_of(run)["step"] == 3
    assert end_of(run)["kept"] == 1
    assert end_of(run)["why"].startswith("patience: none of 2 evaluations in a row was better than the one at step 1")
    before = adapter_of(run)
    train(TrainConfig(resume=str(run)))
    assert (end_of(run)["step"], adapter_of(run)) == (3, before), "its end stays its end"
    train(TrainConfig(resume=str(run), patience=3))
    assert end_of(run) == ended(4, start={"letters": 0.5, "size": 5.0})
    record = yaml.safe_load((run / "config.yaml").read_text())
    assert record["config"]["patience"] == 3
    assert record["changes"] == [{"after_step": 3, "patience": [2, 3]}]


def test_a_collapse_before_the_first_checkpoint_leaves_nothing_to_keep_and_fails(config, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(RunError, match=r"collapse: entropy .* is below min_entropy .*before the first checkpoint"):
        train(replace(config, min_entropy=1e5, save_every=1))
    assert not (run / "checkpoints").exists(), "no checkpoint is written of a collapse"


def test_a_collapse_after_a_good_checkpoint(config, tmp_path, monkeypatch):
    import sys

    loop = sys.modules["softspoken.train"]
    found = loop.metrics_of
    calls = []

    def metrics_of_steps(*given):
        calls.append(1)
        return found(*given) | {"objective/kl": 9.0 if len(calls) >= 3 else 0.1}

    monkeypatch.setattr(loop, "metrics_of", metrics_of_steps)
    run = train(replace(config, max_kl=5.0, save_every=1))
    end = end_of(run)
    assert (end["step"], end["kept"], end["collapsed"]) == (4, 2, True)
    assert end["why"] == "collapse: KL 9 is above max_kl 5 in 2 steps in a row"
    assert [path.name for path in sorted((run / "checkpoints").iterdir())] == ["step-000001", "step-000002"]
    assert len(metrics_of(run)) == 4
    before = adapter_of(run)
    train(TrainConfig(resume=str(run)))
    assert (end_of(run), adapter_of(run), len(metrics_of(run))) == (end, before, 4)


def test_evaluations_take_what_is_held_out_the_same_of_the_start_whenever_it_is_asked(config, tmp_path):
    config = replace(config, eval_every=2, steps=2)
    found = []
    run = train(config, on_evaluate=lambda step: found.append(step.evaluation))
    [figures] = found
    assert 0 <= figures["letters"] <= 1
    assert figures["reward"] == pytest.approx(figures["letters"], abs=0.2)
    progress = json.loads((run / "checkpoints" / "step-000002" / "progress.json").read_text())
    assert {*progress["watched"]["start"]} == {"letters", "size", "reward", "length"}
    assert load_task(config.task).objective.metric == "letters"


def test_an_objective_that_is_not_measured_is_said_before_the_first_step(config, tmp_path):
    other = tmp_path / "other_task.py"
    other.write_text(
        LETTERS_TASK.replace('Objective("letters"', 'Objective("chrf"').replace('"letters", obj', '"other", obj')
    )
    rows = [{"text": f"number {n}"} for n in range(10)]
    with pytest.raises(InputError, match=r"eval_every: the objective of task .*, chrf, is not measured"):
        train(replace(config, task=str(other), dataset=rows, eval_every=1))


def test_a_run_goes_on_for_more_steps_at_another_rate(config, tmp_path):
    run = train(replace(config, steps=2))
    train(TrainConfig(resume=str(run), steps=4, learning_rate=2e-2))
    rates = [row["ppo/learning_rate"] for row in metrics_of(run)]
    assert rates == pytest.approx([1e-2, 1e-2 * 2 / 3, 2e-2 * 3 / 5, 2e-2 * 2 / 5])
    assert end_of(run)["of"] == 4
    with pytest.raises(InputError, match="steps 3 is fewer than the 4 that are done"):
        train(TrainConfig(resume=str(run), steps=3))
