"""The learning rate of each step, worked out by hand."""

import warnings

import pytest
import torch

from softspoken.models.learning_rates import learning_rates, next_rate


def rates(steps: int, schedule: str, warmup_steps: int, horizon: int) -> list[float]:
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=8.0)
    scheduler = learning_rates(optimizer, schedule, warmup_steps, horizon)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize(
    ("schedule", "warmup_steps", "expected"),
    [
        ("constant", 0, [8, 8, 8, 8]),
        ("constant", 3, [2, 4, 6, 8]),
        ("linear", 0, [8, 6, 4, 2]),  # of a horizon of 4: three quarters are left after the first step
        ("linear", 1, [4, 8, 16 / 3, 8 / 3]),
        ("linear", 3, [2, 4, 6, 8]),
        ("cosine", 0, [8, 4 + 4 * 0.5**0.5, 4, 4 - 4 * 0.5**0.5]),  # half a wave, sampled at its eighths
        ("cosine", 1, [4, 8, 6, 2]),  # cos 60° is a half
        ("linear", 9, [0.8, 1.6, 2.4, 3.2]),  # longer than the training: it never comes to the peak
    ],
)
def test_warm_up_and_schedule_combine_and_every_step_trains(schedule, warmup_steps, expected):
    assert rates(4, schedule, warmup_steps, 4) == pytest.approx(expected)
    assert min(rates(4, schedule, warmup_steps, 4)) > 0


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_at_its_horizon_and_after_it_the_rate_is_0(schedule):
    assert rates(7, schedule, 2, 5)[5:] == [0, 0]


def test_a_first_step_that_taught_nothing_is_no_warning_and_moves_the_rate() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=8.0)
    scheduler = learning_rates(optimizer, "linear", 0, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        next_rate(scheduler)
    assert optimizer.param_groups[0]["lr"] == 6.0
