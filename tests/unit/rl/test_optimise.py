"""Step 4 on weights and losses made up for the purpose: what a mini-batch weighs, what is clipped, and what is counted."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import Parameter

from made_rollout import made_config, made_experience, made_policy, made_rollout
from softspoken.rl import optimise

THREE_AND_ONE = [3, 1]
"""Tokens of two rows: a mean over tokens is not one over rows."""


def run(policy, experience, config, loss_of, *, rate=1.0, seed=0):
    optimizer = torch.optim.SGD(policy.trainable().values(), lr=rate)
    return optimise.optimise(policy, optimizer, experience, config, torch.Generator().manual_seed(seed), loss_of)


def per_row(policy, *, slope=(1.0, 1.0), **parts):
    """A loss of `slope` times the weight at each row, and statistics that each row has at each of its tokens."""
    weight = next(iter(policy.trainable().values()))

    def loss_of(policy, experience, rows, config):
        tokens = experience.rollout.response_mask[rows].sum(dim=1)
        slopes = torch.tensor(slope)[rows]
        sums = {name: (torch.tensor(value)[rows] * tokens).sum() for name, value in parts.items()}
        return (slopes * weight).sum(), {"approx_kl": torch.zeros(()), **sums}

    return loss_of


@pytest.mark.parametrize("micro_batch_size", [1, 2])
def test_each_token_weighs_the_same_however_the_mini_batch_is_split(micro_batch_size):
    """Slopes 6 and 2 summed over the rows' tokens, four of them: a gradient of 8 / 4."""
    policy = made_policy(adapter=Parameter(torch.zeros(1)))
    config = made_config(micro_batch_size=micro_batch_size, max_grad_norm=100.0)
    stats = run(policy, made_experience(made_rollout(THREE_AND_ONE)), config, per_row(policy, slope=(6.0, 2.0)))
    assert policy.trainable()["adapter"].item() == pytest.approx(-2.0)
    assert stats.grad_norm == pytest.approx(2.0)


def test_the_gradient_is_clipped_and_its_norm_before_that_is_what_is_said():
    """A gradient of 6 / 4 for each of two weights, a norm of √4.5; with at most 0.5, 0.5 / √2 each."""
    policy = made_policy(adapter=Parameter(torch.zeros(2)))
    loss_of = per_row(policy, slope=(6.0, 6.0))

    def both(*given):
        loss, parts = loss_of(*given)
        return loss.sum(), parts

    stats = run(policy, made_experience(made_rollout(THREE_AND_ONE)), made_config(max_grad_norm=0.5), both)
    assert policy.trainable()["adapter"].tolist() == pytest.approx([-0.5 / math.sqrt(2)] * 2, rel=1e-4)
    assert stats.grad_norm == pytest.approx(math.sqrt(4.5))


def test_a_gradient_below_the_limit_is_left_as_it_is():
    policy = made_policy(adapter=Parameter(torch.zeros(1)))
    run(policy, made_experience(made_rollout([2, 2])), made_config(max_grad_norm=0.6), per_row(policy))
    assert policy.trainable()["adapter"].item() == pytest.approx(-0.5)


def test_without_a_critic_its_norm_is_0_where_the_weights_are(monkeypatch):
    """On a GPU too: of no gradient torch's norm lies on the CPU, here on a device that stands for any other."""
    clip = torch.nn.utils.clip_grad_norm_

    def elsewhere(weights, most):
        reached = any(weight.grad is not None for weight in weights)
        return clip(weights, most) if reached else torch.zeros((), device="meta")

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", elsewhere)
    policy = made_policy(adapter=Parameter(torch.zeros(1)), **{"value_head.weight": Parameter(torch.zeros(1))})
    stats = run(policy, made_experience(made_rollout(THREE_AND_ONE)), made_config(), per_row(policy, slope=(6.0, 2.0)))
    assert (stats.grad_norm, stats.value_grad_norm) == (pytest.approx(2.0), 0.0)


def test_statistics_are_means_over_tokens_not_over_mini_batches():
    """One mini-batch of three tokens, one of one: 1 · 3/4 + 5 · 1/4 = 2, and (0.2 · 3 + 0.6) / 4 = 0.3."""
    policy = made_policy(adapter=Parameter(torch.zeros(1)))
    loss_of = per_row(
        policy, policy_loss=(1.0, 5.0), value_loss=(0.2, 0.6), clip_fraction=(0.0, 1.0), ratio_mean=(1.0, 2.0)
    )
    stats = run(policy, made_experience(made_rollout(THREE_AND_ONE)), made_config(mini_batch_size=1), loss_of)
    assert (stats.policy_loss, stats.value_loss) == pytest.approx((2.0, 0.3))
    assert (stats.clip_fraction, stats.ratio_mean) == pytest.approx((0.25, 1.25))
    assert (stats.optimizer_steps, stats.skipped) == (2, 0)
    # Each mini-batch by its own tokens: slopes 1 / 3 and 1 / 1.
    assert stats.grad_norm == pytest.approx((1 / 3 + 1) / 2)


def test_the_entropy_is_minus_the_mean_log_probability_of_what_was_sampled():
    policy = made_policy(adapter=Parameter(torch.zeros(1)))
    rollout = made_rollout(THREE_AND_ONE)
    rollout.old_logprobs[0, :3] = torch.tensor([-1.0, -2.0, -3.0])
    rollout.old_logprobs[1, 0] = -4.0
    assert run(policy, made_experience(rollout), made_config(), per_row(policy)).entropy == pytest.approx(2.5)


def test_explained_variance_is_of_the_values_before_the_update():
    """Returns 1, 2, 3, 4 and values 1, 2, 3, 3: the rest 0, 0, 0, 1 has variance 1/4, the returns 5/3."""
    policy = made_policy(adapter=Parameter(torch.zeros(1)))
    rollout = made_rollout([4])
    rollout.old_values[0] = torch.tensor([1.0, 2.0, 3.0, 3.0])
    experience = made_experience(rollout, returns=torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
    assert run(policy, experience, made_config(), per_row(policy, slope=(1.0,))).explained_variance == pytest.approx(
        1 - 0.25 / (5 / 3)
    )


def test_without_a_critic_no_variance_is_explained():
    policy = made_policy(adapter=Parameter(torch.zeros(1)))
    experience = replace(made_experience(made_rollout([2]), returns=torch.tensor([[1.0, 2.0]])), returns=None)
    assert run(policy, experience, made_config(), per_row(policy, slope=(1.0,))).explained_variance == 0
    blind = made_experience(replace(made_rollout([2]), old_values=None), returns=torch.tensor([[1.0, 2.0]]))
    assert run(policy, blind, made_config(), per_row(policy, slope=(1.0,))).explained_variance == 0


def test_the_update_stops_where_the_mean_kl_of_a_mini_batch_passes_the_target():
    """0.3 nats a token in the second row; what has been applied is kept, what is left is counted."""
    rollout = made_rollout([2, 2], index=[0, 0])  # side by side, in their order
    for target, done in ((0.29, 1), (0.31, 2)):
        policy = made_policy(adapter=Parameter(torch.zeros(1)))
        loss_of = per_row(policy, approx_kl=(0.0, 0.3))
        stats = run(policy, made_experience(rollout), made_config(mini_batch_size=1, target_kl=target), loss_of)
        assert (stats.optimizer_steps, stats.skipped) == (done, 2 - done)
        assert policy.trainable()["adapter"].item() == pytest.approx(-0.5 * done)


def test_of_an_update_that_was_left_out_nothing_is_said():
    policy = made_policy(adapter=Parameter(torch.zeros(1)))
    loss_of = per_row(policy, approx_kl=(0.3, 0.3), policy_loss=(1.0, 1.0), clip_fraction=(1.0, 1.0))
    stats = run(policy, made_experience(made_rollout([2, 2])), made_config(target_kl=0.1), loss_of)
    assert (stats.policy_loss, stats.value_loss, stats.approx_kl, stats.clip_fraction) == (0, 0, 0, 0)
    assert (stats.ratio_mean, stats.grad_norm, stats.value_grad_norm) == (1, 0, 0)
    assert (stats.optimizer_steps, stats.skipped) == (0, 1)
    assert policy.trainable()["adapter"].item() == 0


def test_mini_batches_come_in_another_order_each_epoch_and_seed():
    """Eight prompts in mini-batches of one: there are 40,320 orders."""
    config, rollout = made_config(ppo_epochs=2, mini_batch_size=1), made_rollout([1] * 8)
    plans = [optimise._mini_batches(rollout, config, torch.Generator().manual_seed(seed)) for seed in range(5)]
    orders = [tuple(int(rows) for rows in plan[first : first + 8]) for plan in plans for first in (0, 8)]
    assert all(sorted(order) == list(range(8)) for order in orders)
    assert len({*orders}) == 10
    assert tuple(range(8)) not in orders


@pytest.mark.parametrize(("normalization", "gradient"), [("token", 8 / 4), ("sequence", 8 / 2), ("constant", 8 / 20)])
@pytest.mark.parametrize("micro_batch_size", [1, 2])
def test_a_mini_batch_is_divided_by_what_is_asked_for_however_it_is_split(normalization, gradient, micro_batch_size):
    """A loss of 6 and 2 times the weight in two rows of three tokens and one, of at most ten: over 4 tokens, 2 rows, 2 · 10."""
    policy = made_policy(adapter=Parameter(torch.zeros(1)))
    config = made_config(
        loss_normalization=normalization, micro_batch_size=micro_batch_size, max_new_tokens=10, max_grad_norm=100.0
    )
    loss_of = per_row(policy, slope=(6.0, 2.0), policy_loss=(2.0, 2.0), ratio_mean=(1.5, 1.5))
    stats = run(policy, made_experience(made_rollout(THREE_AND_ONE)), config, loss_of)
    assert policy.trainable()["adapter"].item() == pytest.approx(-gradient)
    assert stats.policy_loss == pytest.approx(gradient), "what is said of the loss is what was descended"
    assert stats.ratio_mean == pytest.approx(1.5), "statistics stay means over tokens"


# ------------------------------------------------------------------------------------------ rows without an advantage

PAIRS = [0, 0, 1, 1, 2, 2]
ADVANTAGES = torch.tensor([[1.0], [-1.0], [0.0], [0.0], [0.0], [2.0]])
"""Of two samples each: one prompt with an advantage at both, one that is all alike, one with an advantage at the second alone."""


@pytest.mark.parametrize(
    ("settings", "kl_coef", "rows"),
    [
        ({"algorithm": "rloo"}, 0.0, [0, 1, 5]),
        ({"algorithm": "rloo", "kl_in": "reward"}, 0.1, [0, 1, 5]),
        ({"algorithm": "rloo", "kl_in": "loss"}, 0.0, [0, 1, 5]),
        ({"algorithm": "grpo", "kl_in": "loss"}, 0.1, [0, 1, 4, 5]),  # the KL of a prompt that has something to learn
        ({"algorithm": "best_of_n", "kl_in": "loss"}, 0.1, [0, 1, 5]),
        ({"algorithm": "ppo"}, 0.0, [0, 1, 2, 3, 4, 5]),  # the value head learns from every row
        ({"algorithm": "ppo", "value_coef": 0.0}, 0.0, [0, 1, 5]),
        ({"algorithm": "ppo", "value_coef": 0.0, "kl_in": "loss"}, 0.1, [0, 1, 2, 3, 4, 5]),
    ],
)
def test_which_rows_an_update_is_computed_with(settings, kl_coef, rows):
    experience = made_experience(made_rollout([1] * 6, index=PAIRS), advantages=ADVANTAGES, kl_coef=kl_coef)
    assert optimise.teaching(experience, made_config(**settings)).nonzero().squeeze(1).tolist() == rows


def test_what_is_left_out_still_counts_in_what_the_mini_batch_is_divided_by():
    """Slopes of 6 at three tokens, and of 2 at one without an advantage: 6 / 4, and statistics of the three alone."""
    policy, seen = made_policy(adapter=Parameter(torch.zeros(1))), []
    plain = per_row(policy, slope=(6.0, 2.0), ratio_mean=(1.5, 9.0))

    def loss_of(policy, experience, rows, config):
        seen.extend(rows.tolist())
        return plain(policy, experience, rows, config)

    rollout = made_rollout(THREE_AND_ONE, index=[0, 0])
    experience = made_experience(rollout, advantages=torch.tensor([[1.0], [0.0]]))
    config = made_config(algorithm="rloo", samples_per_prompt=2, max_grad_norm=100.0)
    stats = run(policy, experience, config, loss_of)
    assert policy.trainable()["adapter"].item() == pytest.approx(-1.5)
    assert (seen, stats.rows, stats.ratio_mean) == ([0], 1, 1.5)


def test_a_mini_batch_without_an_advantage_takes_no_step():
    policy = made_policy(adapter=Parameter(torch.zeros(1)))
    experience = made_experience(made_rollout([1, 1, 1, 1], index=[0, 0, 1, 1]), advantages=0.0)
    config = made_config(algorithm="rloo", samples_per_prompt=2, mini_batch_size=2)
    stats = run(policy, experience, config, per_row(policy, slope=(1.0,) * 4))
    assert (stats.optimizer_steps, stats.skipped, stats.rows) == (0, 0, 0)
    assert policy.trainable()["adapter"].item() == 0
