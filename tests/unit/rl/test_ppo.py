"""PPO's rewards, advantages and value loss on numbers that are given, by hand."""

import math

import pytest
import torch

from made_rollout import made_config, made_experience, made_rollout
from softspoken.rl import ppo
from softspoken.types import Scores


def scored(*values):
    return Scores(torch.tensor(values), {})


@pytest.mark.parametrize(
    ("estimator", "nats"), [("k1", 0.5), ("k2", 0.5**2 / 2), ("k3", math.exp(-0.5) - 1 + 0.5)]
)  # 0.5, 0.125, 0.10653
def test_the_penalty_is_by_the_estimator_that_is_asked_for(estimator, nats):
    rollout = made_rollout([2, 1], logratio=0.5)
    rewards = ppo.token_rewards(rollout, scored(1.0, 2.0), made_config(kl_estimator=estimator), kl_coef=0.1)
    expected = [[-0.1 * nats, 1 - 0.1 * nats], [2 - 0.1 * nats, 0]]
    assert rewards.tolist() == [pytest.approx(row, abs=1e-6) for row in expected]


def test_a_summary_without_its_end_pays_the_penalty_on_its_last_token():
    rewards = ppo.token_rewards(
        made_rollout([2, 1], truncated=[0]), scored(1.0, 2.0), made_config(missing_eos_penalty=0.75), kl_coef=0.0
    )
    assert rewards.tolist() == [[0, 0.25], [2, 0]]


def test_whitened_rewards_have_variance_1_and_keep_their_mean():
    """Rewards 0, 1 and 0, 3: mean 1, variance 2. Scaled about it: 1 − 1/√2, 1 and 1 − 1/√2, 1 + √2; summed to the end."""
    rollout = made_rollout([2, 2])
    experience = ppo.build_experience(rollout, scored(1.0, 3.0), made_config(whiten_rewards=True), 0.0)
    low = 1 - 1 / math.sqrt(2)
    expected = [[low + 1, 1], [low + 1 + math.sqrt(2), 1 + math.sqrt(2)]]
    assert experience.returns.tolist() == [pytest.approx(row, abs=1e-5) for row in expected]
    plain = ppo.build_experience(rollout, scored(1.0, 3.0), made_config(), 0.0)
    assert plain.returns.tolist() == [[1, 1], [3, 3]]


def test_advantages_are_whitened_only_where_that_is_asked_for():
    """1, 1 and 3, 3: mean 2, variance 4/3."""
    rollout = made_rollout([2, 2])
    white = ppo.build_experience(rollout, scored(1.0, 3.0), made_config(whiten_advantages=True), 0.0)
    assert white.advantages[:, 0].tolist() == pytest.approx([-math.sqrt(3) / 2, math.sqrt(3) / 2], abs=1e-5)
    assert ppo.build_experience(rollout, scored(1.0, 3.0), made_config(), 0.0).advantages[:, 0].tolist() == [1, 3]


def test_returns_are_advantages_and_values():
    """λ = 1: whatever the values are, the return is what is still to come; the advantage is that less the value."""
    experience = ppo.build_experience(made_rollout([2], values=0.25), scored(1.0), made_config(), 0.0)
    assert experience.returns.tolist() == [[1, 1]]
    assert experience.advantages.tolist() == [[0.75, 0.75]]


def test_the_discount_and_lambda_are_the_configurations():
    """γ ½, λ ½, values 0: the last reward is worth ½ · ½ of itself one token earlier."""
    experience = ppo.build_experience(made_rollout([2]), scored(1.0), made_config(gamma=0.5, gae_lambda=0.5), 0.0)
    assert experience.advantages.tolist() == [[0.25, 1]]


def test_the_siblings_or_where_there_are_none_the_others_are_what_a_row_is_compared_with():
    """First advantages 1, 3 of one prompt, 5 and 7 of two more: 3, 1, and the means of 1, 3, 7 and of 1, 3, 5."""
    rollout = made_rollout([2] * 4, index=[0, 0, 1, 2])
    advantages = torch.tensor([[1.0, 9.0], [3.0, 9.0], [5.0, 9.0], [7.0, 9.0]])
    assert ppo.sibling_baseline(advantages, rollout).tolist() == [[3], [1], [pytest.approx(11 / 3)], [3]]
    assert ppo.sibling_baseline(advantages[:1], made_rollout([2])).tolist() == [[0]]
    config = made_config(sibling_baseline=True)
    experience = ppo.build_experience(rollout, scored(1.0, 3.0, 5.0, 7.0), config, 0.0)
    assert experience.advantages[:, 1].tolist() == pytest.approx([-2, 2, 4 / 3, 4])


@pytest.mark.parametrize(
    ("kl", "samples", "weight"),
    [(0.1, 100, 0.5), (0.11, 100, 0.505), (9.0, 100, 0.51), (0.0, 100, 0.49), (0.0, 5000, 0.4), (9.0, 5000, 0.6)],
)
def test_the_adaptive_weight_moves_with_the_kl_by_a_fifth_at_most(kl, samples, weight):
    config = made_config(kl_controller="adaptive", kl_coef=0.5, kl_target=0.1, kl_horizon=1000)
    assert ppo.next_kl_coef(0.5, kl, samples, config) == pytest.approx(weight)


# ---------------------------------------------------------------------------------------------------------- value loss


def value_loss(monkeypatch, *, values, old, returns, clip=0.2, value_coef=1.0):
    """(the whole loss less the policy's, the value loss) of one token."""
    rollout = made_rollout([1], values=old)
    given = torch.tensor([[values]], requires_grad=True)
    monkeypatch.setattr(ppo, "score_rows", lambda *_: (rollout.old_logprobs, given))
    config = made_config(clip_range_value=clip, value_coef=value_coef)
    loss, parts = ppo.ppo_loss(None, made_experience(rollout, returns=returns), torch.tensor([0]), config)
    return (loss - parts["policy_loss"]).item(), parts["value_loss"].item()


@pytest.mark.parametrize(
    ("values", "old", "returns", "expected"),
    [
        (2.0, 1.0, 3.0, 1.8**2 / 2),  # gone further than 0.2 from 1: the clipped 1.2 is the worse of the two
        (2.0, 1.0, 1.0, 1.0**2 / 2),  # gone too far, and away from the return: the plain one is the worse
        (1.1, 1.0, 3.0, 1.9**2 / 2),  # within the clip both are the same
        (0.0, 1.0, 3.0, 3.0**2 / 2),  # down, away from the return
        (0.0, 1.0, -1.0, 1.8**2 / 2),  # down, towards it: 0.8 counts
    ],
)
def test_the_value_loss_is_the_worse_of_the_plain_and_the_clipped(monkeypatch, values, old, returns, expected):
    assert value_loss(monkeypatch, values=values, old=old, returns=returns)[1] == pytest.approx(expected, rel=1e-5)


def test_the_value_losss_weight_is_the_configurations(monkeypatch):
    whole, part = value_loss(monkeypatch, values=3.0, old=3.0, returns=1.0, value_coef=0.1)
    assert (whole, part) == pytest.approx((0.1 * 2.0, 2.0), rel=1e-5)
