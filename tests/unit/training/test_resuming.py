"""What may change in a run that is gone on with, and where its schedule then stands."""

from dataclasses import replace

import pytest
import torch

from softspoken.config import TrainConfig
from softspoken.models.learning_rates import learning_rates
from softspoken.training.resuming import continued, go_on_from, reopened, require_steps_left
from softspoken.training.watch import Watched
from softspoken.types import InputError

SAVED = TrainConfig(steps=50, learning_rate=1e-3, lora_r=4, output="runs/a", reward="mini", judge=["mini"])


def test_what_was_given_counts_and_defaults_do_not():
    config, changes = continued(SAVED, TrainConfig(resume="runs/a"))
    assert (config, changes) == (SAVED, {})
    config, changes = continued(SAVED, TrainConfig(resume="runs/a", steps=80, judge=["profanity"], lora_r=4))
    assert config == replace(SAVED, steps=80, judge=["profanity"])
    assert changes == {"steps": (50, 80), "judge": (["mini"], ["profanity"])}
    assert TrainConfig().learning_rate != SAVED.learning_rate
    config, changes = continued(SAVED, TrainConfig(resume="runs/a", learning_rate=TrainConfig().learning_rate))
    assert changes == {"learning_rate": (1e-3, 4e-3)}, "a default that was given is given"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            {"lora_r": 8},
            "resume: lora_r of runs/a is 4, not 8: it cannot change within a run; leave it out, or start another with",
        ),
        ({"output": "runs/b"}, "output of runs/a is 'runs/a', not 'runs/b'"),
        ({"seed": 1}, "--config runs/a/config.yaml --seed … --output …"),
        ({"eval_every": 5}, "eval_every of runs/a is None, not 5: it holds examples out of the training set"),
        ({"batch_size": 4}, "batch_size"),
        ({"reward": "profanity"}, "reward"),
    ],
)
def test_what_may_not_change_is_one_sentence(given, words):
    with pytest.raises(InputError) as said:
        continued(SAVED, TrainConfig(resume="runs/a", **given))
    assert words in str(said.value)


def test_evaluations_may_come_more_often_where_they_are_held_already():
    saved = replace(SAVED, eval_every=10)
    assert continued(saved, TrainConfig(resume="runs/a", eval_every=5))[1] == {"eval_every": (10, 5)}
    with pytest.raises(InputError, match="eval_every_limit"):
        continued(saved, TrainConfig(resume="runs/a", eval_every_limit=5))


def test_steps_that_are_done_cannot_be_taken_back():
    with pytest.raises(InputError, match="steps 30 is fewer than the 40 that are done"):
        require_steps_left(replace(SAVED, steps=30), 40, {"steps": (50, 30)})
    require_steps_left(replace(SAVED, steps=40), 40, {"steps": (50, 40)})


def test_an_end_that_came_early_is_none_after_a_change_of_what_decided_it():
    ended = Watched(best_step=5, waited=2, ended="patience", ended_step=20)
    assert reopened(ended, {"judge": (None, ["mini"])}) == ended
    assert reopened(ended, {"patience": (2, 4)}) == Watched(best_step=5, waited=2)


@pytest.mark.parametrize(("steps", "rate", "expected"), [(4, 1.0, 3 / 5), (9, 1.0, 8 / 10), (4, 2.0, 2 * 3 / 5)])
def test_the_schedule_goes_on_where_it_stood_on_todays_way(steps, rate, expected):
    """Two of four steps are done: a line to 0 at the fifth; with nine, at the tenth; or from another peak."""

    def made(steps, rate):
        optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=rate)
        return optimizer, learning_rates(optimizer, "linear", 0, steps + 1)

    optimizer, scheduler = made(4, 1.0)
    for _ in range(2):
        optimizer.step()
        scheduler.step()
    saved = scheduler.state_dict()
    optimizer, scheduler = made(steps, rate)
    go_on_from(saved, optimizer, scheduler)
    assert optimizer.param_groups[0]["lr"] == scheduler.get_last_lr()[0] == pytest.approx(expected)
    optimizer.step()
    scheduler.step()
    assert scheduler.get_last_lr()[0] == pytest.approx(rate * (steps + 1 - 3) / (steps + 1))
