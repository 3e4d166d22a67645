"""The critic-free algorithms' advantages on numbers that are given."""

import pytest
import torch

from made_rollout import made_config, made_rollout
from softspoken.rl import groups
from softspoken.types import Scores

NEAR, FAR = 0.35 / 0.3501, 0.5 / 0.5001


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        ("rloo", [[-0.7, -0.7], [0.7, 0.0], [1.0, 1.0], [-1.0, -1.0]]),
        ("grpo", [[-NEAR, -NEAR], [NEAR, 0.0], [FAR, FAR], [-FAR, -FAR]]),
    ],
)
def test_a_summary_without_its_end_pays_the_penalty(algorithm, expected):
    """Two alike, of which one was cut off: 1 − 0.7 beside 1; and 2 beside 1, neither cut. GRPO: over .35 and .5, and a hair."""
    rollout = made_rollout([2, 1, 2, 2], index=[0, 0, 1, 1], truncated=[0])
    config = made_config(algorithm=algorithm, samples_per_prompt=2, missing_eos_penalty=0.7)
    experience = groups.build_experience(rollout, Scores(torch.tensor([1.0, 1.0, 2.0, 1.0]), {}), config, 0.0)
    assert experience.advantages.tolist() == [pytest.approx(row, abs=1e-5) for row in expected]
    assert experience.returns is None


def test_in_the_loss_the_penalty_is_not_in_the_reward_as_well():
    rollout = made_rollout([2, 1], index=[0, 0], logratio=0.5)
    flat = Scores(torch.ones(2), {})
    found = {
        place: groups.build_experience(
            rollout, flat, made_config(algorithm="rloo", samples_per_prompt=2, kl_in=place), 0.1
        )
        .advantages[:, 0]
        .tolist()
        for place in ("reward", "loss")
    }
    # One summary has drifted by 1 nat, the other by ½: −0.1 and −0.05.
    assert found == {"reward": pytest.approx([-0.05, 0.05], abs=1e-6), "loss": [0, 0]}


def test_rloos_advantage_is_dr_grpos_times_k_by_k_less_one():
    """Scores 1, 2, 6 less their mean of 3, times 3/2."""
    rollout = made_rollout([1, 1, 1], index=[0, 0, 0])
    assert groups.leave_one_out(torch.tensor([1.0, 2.0, 6.0]), rollout).tolist() == [-2 * 1.5, -1 * 1.5, 3 * 1.5]
