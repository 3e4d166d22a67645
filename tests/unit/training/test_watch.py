"""Best, patience and collapse by hand."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from softspoken.config import TrainConfig
from softspoken.tasks.task import Guard, Objective, Task
from softspoken.training.watch import Watched, after_evaluation, after_step, is_good, lost_guards, watched_of
from softspoken.types import InputError

TASK = Task(
    name="made",
    objective=Objective("toxicity", "lower"),
    reward="mini",
    guards=(Guard("rougeL", margin=1.0), Guard("length", margin=2.0, better=""), Guard("loops", 0.1, better="lower")),
)
START = {"toxicity": 0.5, "rougeL": 40.0, "length": 10.0, "loops": 0.0}


def seen(figures, watched=None, config=None, step=10):
    return after_evaluation(
        watched or Watched(start=START), step, START | figures, TASK, config or TrainConfig(eval_every=5)
    )


def test_the_best_is_better_than_all_before_it_with_every_guard_held():
    first = seen({"toxicity": 0.4})
    assert (first.best_step, first.best, first.waited) == (10, 0.4, 0)
    assert seen({"toxicity": 0.5}).best_step == 0, "no better than the start"
    assert seen({"toxicity": 0.4}, first, step=15).best_step == 10, "a tie is none"
    assert seen({"toxicity": 0.4}, first, step=15).waited == 1
    assert seen({"toxicity": 0.3}, first, step=15).best_step == 15
    assert seen({"toxicity": 0.1, "rougeL": 38.9}, first, step=15).best_step == 10


@pytest.mark.parametrize(
    ("figures", "lost"),
    [
        ({"rougeL": 39.0}, []),
        ({"rougeL": 38.99}, ["rougeL"]),
        ({"rougeL": 60.0}, []),
        ({"length": 12.0}, []),
        ({"length": 12.1}, ["length"]),
        ({"length": 7.9}, ["length"]),
        ({"loops": 0.11}, ["loops"]),
        ({"loops": -1.0}, []),
    ],
)
def test_a_guard_is_lost_by_more_than_its_margin_its_own_way(figures, lost):
    assert lost_guards(START | figures, START, TASK) == lost


def test_what_is_not_measured_guards_nothing():
    assert lost_guards({"toxicity": 0.1}, START, TASK) == []
    assert lost_guards({"rougeL": 1.0}, {"toxicity": 0.5}, TASK) == []


def test_patience_counts_evaluations_since_the_best():
    config = TrainConfig(eval_every=5, patience=2)
    first = seen({"toxicity": 0.4}, config=config)
    second = seen({"toxicity": 0.45}, first, config, step=15)
    assert not second.ended
    third = seen({"toxicity": 0.45}, second, config, step=20)
    assert (
        third.ended
        == "patience: none of 2 evaluations in a row was better than the one at step 10 with the guards held"
    )
    assert third.ended_step == 20
    assert not third.collapsed
    better = seen({"toxicity": 0.3}, second, config, step=20)
    assert (better.waited, better.ended) == (0, "")
    never = seen({"toxicity": 0.9}, seen({"toxicity": 0.9}, config=config), config)
    assert "better than the start" in never.ended


@pytest.mark.parametrize(
    ("bound", "metric", "within", "beyond", "words"),
    [
        ("max_kl", "objective/kl", 0.5, 0.51, "KL 0.51 is above max_kl 0.5"),
        ("min_entropy", "objective/entropy", 0.5, 0.49, "entropy 0.49 is below min_entropy 0.5"),
        ("min_distinct", "tokens/distinct_2", 0.5, 0.4, "distinct pairs of words 0.4 is below min_distinct 0.5"),
        ("min_response_tokens", "tokens/response_mean", 0.5, 0.25, "tokens a response 0.25 is below min_response"),
        ("max_response_tokens", "tokens/response_mean", 0.5, 30, "tokens a response 30 is above max_response"),
    ],
)
def test_two_steps_in_a_row_beyond_a_bound_are_a_collapse(bound, metric, within, beyond, words):
    config = TrainConfig(**{bound: 0.5})
    healthy = after_step(Watched(), 1, {metric: within}, config)
    assert healthy == Watched()
    once = after_step(healthy, 2, {metric: beyond}, config)
    assert once.crossed == 1
    assert not once.ended
    assert not is_good(once, False), "no checkpoint is written of it"
    assert is_good(once, 15), "but for a stop"
    assert after_step(once, 3, {metric: within}, config) == Watched()
    twice = after_step(once, 3, {metric: beyond}, config)
    assert words in twice.ended
    assert "in 2 steps in a row" in twice.ended
    assert (twice.collapsed, twice.ended_step) == (True, 3)
    assert not is_good(twice, 15)
    assert after_step(once, 3, {}, config).crossed == 0


def test_settings_that_watch_nothing_are_refused():
    with pytest.raises(InputError, match="patience 2 cannot be used: it counts evaluations"):
        TrainConfig(patience=2)
    with pytest.raises(InputError, match=r"max_kl 0.5 cannot be used: there is no reference"):
        TrainConfig(trained="full", kl_coef=0.0, max_kl=0.5)
    assert replace(TrainConfig(), max_kl=0.5).max_kl == 0.5


def test_what_a_checkpoint_says_of_it_is_read_back_and_damage_is_a_sentence() -> None:
    watched = Watched(start=START, best_step=3, best=0.25, ended="patience", ended_step=4)
    assert watched_of(json.loads(json.dumps(asdict(watched))), Path("runs")) == watched
    for damaged in ([], {"best_step": "3"}, {"other": 1}, {"start": None}):
        with pytest.raises(InputError, match=r"progress.json of the last checkpoint in runs is damaged \(watched\)"):
            watched_of(damaged, Path("runs"))
