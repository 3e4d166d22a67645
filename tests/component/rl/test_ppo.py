"""Steps 3 and 4 on a tiny T5: rewards, advantages, the clipped update, and what must not change its result."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch

from one_rollout import optimizer_for, prepared
from softspoken.config import TrainConfig
from softspoken.rl import optimise, ppo
from softspoken.rl.optimise import require_moved, unmoved_adapters
from softspoken.rl.policy import VOCABULARY_ROWS
from softspoken.rl.rollout import widest, within_memory
from softspoken.types import Experience, InputError, RunError, Scores


def run_update(policy, experience, config, learning_rate=1e-2):
    return ppo.update(
        policy, optimizer_for(policy, learning_rate), experience, config, torch.Generator().manual_seed(0)
    )


def test_the_score_lands_on_the_last_counted_token_and_kl_on_every_one(tiny_t5, dialogues):
    _, config, rollout, scores = prepared(tiny_t5, dialogues)
    mask = torch.zeros_like(rollout.response_mask)
    mask[:, :3] = True
    rollout = replace(rollout, response_mask=mask, ref_logprobs=rollout.old_logprobs - 0.5, truncated=~mask[:, 0])
    rewards = ppo.token_rewards(rollout, scores, config, kl_coef=0.1)
    for row, total in enumerate(scores.total.tolist()):
        assert rewards[row].tolist() == pytest.approx(
            [-0.05, -0.05, total - 0.05] + [0.0] * (mask.shape[1] - 3), abs=1e-6
        )


HALF_A_NAT = [(None, 0.5, 0.1065307), ("k1", 0.5, 0.5), ("k2", 0.125, 0.125), ("k3", 0.1065307, 0.1065307)]
"""An estimator, and what it makes of 0.5 nats of drift in the reward and in the loss: k3 is e^−0.5 − 1 + 0.5."""


@pytest.mark.parametrize(("estimator", "in_reward", "in_loss"), HALF_A_NAT)
def test_the_kl_penalty_is_in_the_reward_or_in_the_loss(tiny_t5, dialogues, estimator, in_reward, in_loss):
    policy, config, rollout, _ = prepared(tiny_t5, dialogues, whiten_advantages=False)
    rollout = replace(rollout, ref_logprobs=(rollout.old_logprobs - 0.5) * rollout.response_mask)
    nothing, tokens = Scores(torch.zeros(8), {}), rollout.response_mask.sum().item()
    found = {}
    for place in ("reward", "loss"):
        one = replace(config, kl_in=place, value_coef=0.0, kl_estimator=estimator)
        experience = ppo.build_experience(rollout, nothing, one, 0.1)
        paid = ppo.token_rewards(rollout, nothing, one, 0.1).sum().item()
        loss, parts = ppo.ppo_loss(policy, experience, torch.arange(8), one)
        expected = {"reward": in_reward, "loss": in_loss}[place]
        assert experience.kl[rollout.response_mask].tolist() == pytest.approx([expected] * tokens, rel=1e-4)
        assert not experience.kl[~rollout.response_mask].any()
        found[place] = paid, (loss - parts["policy_loss"]).item()
    assert found["reward"] == pytest.approx((-0.1 * in_reward * tokens, 0.0), rel=1e-4)
    assert found["loss"] == pytest.approx((0.0, 0.1 * in_loss * tokens), rel=1e-3)


def test_an_estimator_that_is_weighted_only_in_the_loss_is_refused_in_the_reward():
    with pytest.raises(InputError, match=r"kl_estimator 'k3_unweighted' .*kl_in loss"):
        TrainConfig(kl_in="reward", kl_estimator="k3_unweighted")


def test_a_truncated_summary_pays_the_missing_eos_penalty(tiny_t5, dialogues):
    _, config, rollout, scores = prepared(tiny_t5, dialogues, missing_eos_penalty=0.7)
    rollout = replace(rollout, truncated=torch.tensor([True] + [False] * (len(scores.total) - 1)))
    paid = ppo.token_rewards(rollout, scores, config, 0.0).sum(dim=1) - scores.total
    assert paid.tolist() == pytest.approx([-0.7] + [0.0] * (len(paid) - 1), abs=1e-6)


def test_whitened_advantages_and_plain_returns(tiny_t5, dialogues):
    _, config, rollout, scores = prepared(tiny_t5, dialogues)
    experience = ppo.build_experience(rollout, scores, config, 0.0)
    counted = experience.advantages[rollout.response_mask]
    assert counted.mean().abs() < 1e-5
    assert counted.var().item() == pytest.approx(1.0, abs=1e-3)
    assert not experience.advantages[~rollout.response_mask].any()
    lambda_one = ppo.build_experience(rollout, scores, replace(config, gae_lambda=1.0), 0.0)
    expected = scores.total[:, None].expand_as(rollout.old_values)[rollout.response_mask]
    assert torch.allclose(lambda_one.returns[rollout.response_mask], expected, atol=1e-5)


def test_the_sibling_baseline_by_hand(tiny_t5, dialogues):
    """Four prompts of two, one, three and two samples: each is set against the mean of its siblings' first advantages."""
    _, _, rollout, _ = prepared(tiny_t5, dialogues)
    index = torch.tensor([0, 0, 1, 2, 2, 2, 3, 3])
    mask = torch.ones(8, 3, dtype=torch.bool)
    mask[7, 0] = False  # forced: its first sampled token is the second
    rollout = replace(rollout, prompt_index=index, response_mask=mask)
    first = torch.tensor([1.0, 3.0, 5.0, 1.0, 2.0, 6.0, 4.0, 9.0])
    advantages = torch.stack([first, first * 10, first * 100], dim=1)
    # The lone one's, 5, against the mean of the seven others': (1 + 3 + 1 + 2 + 6 + 4 + 90) / 7.
    expected = pytest.approx([3.0, 1.0, 107 / 7, 4.0, 3.5, 1.5, 90.0, 4.0])
    assert ppo.sibling_baseline(advantages, rollout).squeeze(1).tolist() == expected


def test_with_one_sample_of_each_dialogue_an_abusive_one_is_pushed_down(tiny_t5, dialogues):
    """One, abusive, scores 0.4, calm ones beside it 1.6: 0.4 − 1.6, where its score alone would push it up."""
    changes = {"samples_per_prompt": 1, "whiten_advantages": False}
    _, config, rollout, _ = prepared(tiny_t5, dialogues, **changes)
    scores = Scores(torch.tensor([0.4, 1.6, 1.6, 1.6]), {})
    experience = ppo.build_experience(rollout, scores, config, 0.0)
    # A calm one's others score 1.2 on average. The value head is 0 before training, so each token has the same.
    for row, expected in enumerate([-1.2, 0.4, 0.4, 0.4]):
        counted = experience.advantages[row][rollout.response_mask[row]]
        assert counted.tolist() == pytest.approx([expected] * len(counted), abs=1e-5)
    _, config, rollout, _ = prepared(tiny_t5, dialogues[:1], **changes)
    alone = ppo.build_experience(rollout, Scores(torch.tensor([0.4]), {}), config, 0.0)
    assert alone.advantages[0, 0].item() == pytest.approx(0.4, abs=1e-5)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"batch_size": 1, "samples_per_prompt": 1}, r"batch_size 1 .*sibling_baseline false"),
        ({"kl_controller": "adaptive", "kl_coef": 0.0}, r"kl_coef 0.0 .*above 0"),
        ({"short_margin": -0.1}, r"short_margin -0.1"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, said):
    with pytest.raises(InputError, match=said):
        TrainConfig(**settings)


def test_siblings_take_a_constant_of_the_prompt_out_of_the_advantages(tiny_t5, dialogues):
    _, config, rollout, _ = prepared(tiny_t5, dialogues, whiten_advantages=False)
    of_prompt = rollout.prompt_index.float()
    plain = Scores(torch.linspace(0, 1, 8), {})
    shifted = Scores(plain.total + of_prompt, {})
    one, other = (ppo.build_experience(rollout, scores, config, 0.0).advantages for scores in (plain, shifted))
    assert torch.allclose(one, other, atol=1e-5)
    without = replace(config, sibling_baseline=False)
    one, other = (ppo.build_experience(rollout, scores, without, 0.0).advantages for scores in (plain, shifted))
    assert not torch.allclose(one, other, atol=1e-1)


def test_the_first_loss_is_the_negative_mean_advantage_and_nothing_is_clipped(tiny_t5, dialogues):
    """Before the first update every ratio is 1, so each token's policy loss is −A, and the value loss ½(V − R)²."""
    policy, config, rollout, scores = prepared(tiny_t5, dialogues)
    experience = ppo.build_experience(rollout, scores, config, 0.1)
    _, parts = ppo.ppo_loss(policy, experience, torch.arange(len(rollout.responses)), config)
    tokens = rollout.response_mask.sum()
    assert parts["policy_loss"].item() == pytest.approx(-experience.advantages.sum().item(), abs=1e-3)
    assert (parts["ratio_mean"] / tokens).item() == pytest.approx(1.0, abs=1e-5)
    assert parts["clip_fraction"].item() == 0
    assert parts["approx_kl"].item() == pytest.approx(0.0, abs=1e-4)
    gap = (rollout.old_values - experience.returns)[rollout.response_mask]
    assert parts["value_loss"].item() == pytest.approx((gap.square() / 2).sum().item(), rel=1e-4)


@pytest.mark.parametrize(
    ("advantage", "logratio", "expected"),
    [
        (1.0, 0.0, -1.0),
        (1.0, 1.0, -1.2),  # a ratio of e counts as 1.2: no reward for going further
        (1.0, -1.0, -0.36788),  # going the wrong way is not clipped
        (-1.0, 1.0, 2.71828),
        (-1.0, -1.0, 0.8),
    ],
)
def test_the_clipped_objective_by_hand(tiny_t5, dialogues, advantage, logratio, expected):
    policy, config, rollout, scores = prepared(tiny_t5, dialogues[:1], samples_per_prompt=1)
    rollout = replace(rollout, old_logprobs=(rollout.old_logprobs - logratio) * rollout.response_mask)
    mask = rollout.response_mask
    experience = Experience(rollout, scores, mask * 0.0, mask * advantage, rollout.old_values)
    _, parts = ppo.ppo_loss(policy, experience, torch.tensor([0]), config)
    assert (parts["policy_loss"] / mask.sum()).item() == pytest.approx(expected, rel=1e-3)


def test_an_update_makes_what_scored_high_likelier(tiny_t5, dialogues):
    """The sign test: after a few updates the log-probability of high-scoring samples has risen against low-scoring ones."""
    policy, config, rollout, scores = prepared(tiny_t5, dialogues, ppo_epochs=4)
    experience = ppo.build_experience(rollout, scores, config, 0.0)
    before = rollout.old_logprobs
    run_update(policy, experience, config, learning_rate=3e-2)
    with torch.no_grad():
        after, _ = ppo.score_rows(policy, rollout, torch.arange(len(before)), config)
    gain = ((after - before) * experience.advantages).sum()
    assert gain > 0.1


def test_after_one_step_every_lora_b_has_moved(tiny_t5_each, dialogues):
    policy, config, rollout, scores = prepared(tiny_t5_each, dialogues)
    assert unmoved_adapters(policy)
    with pytest.raises(RunError, match="did not move"):
        require_moved(policy)
    stats = run_update(policy, ppo.build_experience(rollout, scores, config, 0.0), config)
    assert stats.optimizer_steps == 1
    assert unmoved_adapters(policy) == []
    require_moved(policy)


@pytest.mark.parametrize("micro_batch_size", [1, 3])
def test_micro_batches_give_the_same_gradient(tiny_t5_each, dialogues, micro_batch_size):
    policy, config, rollout, scores = prepared(tiny_t5_each, dialogues)
    experience = ppo.build_experience(rollout, scores, config, 0.1)
    gradients = []
    for size in (8, micro_batch_size):
        config = replace(config, micro_batch_size=size)
        every = torch.arange(len(rollout.responses))
        optimise._accumulate_gradient(policy, optimizer_for(policy), experience, every, every, config, ppo.ppo_loss)
        gradients.append({name: weight.grad for name, weight in policy.trainable().items()})
    for name, gradient in gradients[0].items():
        difference = (gradient - gradients[1][name]).norm()
        assert difference <= 1e-4 * gradient.norm().clamp(min=1e-6), name


@pytest.mark.parametrize("scope", ["all", "decoder"])
def test_the_fast_way_has_the_plain_ways_gradient(tiny_t5_each, dialogues, monkeypatch, scope):
    """Of long and short prompts and responses, of more tokens than are projected or encoded at once, in pieces, and after memory
    ran out halfway."""
    monkeypatch.setattr("softspoken.rl.policy.READ_TOKENS", 40)
    gradients, sampled = [], None
    for fast in (False, True):
        changes = {"adapter_scope": scope, "fast": fast, "samples_per_prompt": 16, "max_new_tokens": 16}
        policy, config, rollout, scores = prepared(tiny_t5_each, dialogues, micro_batch_size=64, **changes)
        # One set of samples for both: where a uniform lies within rounding of two tokens' border, each would draw its own.
        sampled = sampled or rollout
        rollout = replace(sampled, memory=rollout.memory)
        torch.manual_seed(1)
        for name, weight in policy.adapter_parameters().items():
            if "lora_B" in name:
                weight.data.normal_(std=0.1)
        experience = ppo.build_experience(rollout, scores, config, 0.1)
        every, calls = torch.arange(len(rollout.responses)), []

        def loss_of(policy, experience, rows, config, fast=fast, calls=calls):
            calls.append(len(rows))
            if fast and len(calls) == 2:
                raise torch.OutOfMemoryError("as CUDA says it")
            return ppo.ppo_loss(policy, experience, rows, config)

        policy.tokens_per_microbatch = 32 * widest(rollout, every) if fast else None
        accumulate = partial(
            optimise._accumulate_gradient, policy, optimizer_for(policy), experience, every, every, config, loss_of
        )
        within_memory(policy, len(every), widest(rollout, every), accumulate)
        gradients.append({name: weight.grad for name, weight in policy.trainable().items()})
    assert len(calls) > 4, "pieces, and again with smaller ones"
    assert len(rollout.response_mask.sum(dim=1).unique()) > 1
    assert rollout.response_mask.sum() > VOCABULARY_ROWS[0]
    for name, gradient in gradients[0].items():
        assert (gradient - gradients[1][name]).norm() <= 1e-4 * gradient.norm().clamp(min=1e-6), name


def test_the_update_stops_at_the_target_kl_and_counts_what_it_left_out(tiny_t5, dialogues):
    changes = {"ppo_epochs": 4, "mini_batch_size": 4, "micro_batch_size": 4, "target_kl": 1e-6}
    policy, config, rollout, scores = prepared(tiny_t5, dialogues, **changes)
    stats = run_update(policy, ppo.build_experience(rollout, scores, config, 0.0), config, learning_rate=0.1)
    assert stats.optimizer_steps == 1
    assert stats.skipped == 7  # 8 samples in mini-batches of 4, 4 epochs: 8 in all


def test_a_gradient_that_is_not_finite_is_skipped_and_counted(tiny_t5, dialogues):
    policy, config, rollout, scores = prepared(tiny_t5, dialogues)
    experience = ppo.build_experience(rollout, scores, config, 0.0)
    experience.advantages[0, 0] = float("nan")
    before = {name: weight.clone() for name, weight in policy.trainable().items()}
    stats = run_update(policy, experience, config)
    assert (stats.optimizer_steps, stats.skipped) == (0, 1)
    assert all(torch.equal(weight, before[name]) for name, weight in policy.trainable().items())


def test_a_token_a_hundred_nats_off_leaves_its_mini_batch_a_gradient(tiny_t5, dialogues):
    for advantage in (0.0, 1.0, -1.0):
        policy, config, rollout, scores = prepared(tiny_t5, dialogues, kl_in="loss")
        rollout.old_logprobs[0, 0] -= 100.0
        experience = replace(
            ppo.build_experience(rollout, scores, config, 0.1), advantages=rollout.response_mask * advantage
        )
        stats = run_update(policy, experience, config)
        assert (stats.optimizer_steps, stats.skipped) == (1, 0)
        assert math.isfinite(stats.grad_norm)
        assert stats.grad_norm > 0 or not advantage


def test_the_gradients_of_adapter_and_critic_are_clipped_apart(tiny_t5, dialogues):
    """A critic a thousand times off takes nothing of the adapter's step; each has its own norm in the statistics."""
    moved, norms = [], []
    for value_coef in (1e-6, 1e3):
        policy, config, rollout, scores = prepared(tiny_t5, dialogues, value_coef=value_coef, max_grad_norm=0.05)
        experience = ppo.build_experience(rollout, scores, config, 0.0)
        optimizer = torch.optim.SGD(policy.trainable().values(), lr=1.0)
        before = {name: weight.clone() for name, weight in policy.trainable().items()}
        stats = ppo.update(policy, optimizer, experience, config, torch.Generator().manual_seed(0))
        steps = {name: weight.detach() - before[name] for name, weight in policy.trainable().items()}
        parts = [[steps[name] for name in steps if name.startswith("value_head") == head] for head in (False, True)]
        moved.append([torch.nn.utils.get_total_norm(part).item() for part in parts])
        norms.append((stats.grad_norm, stats.value_grad_norm))
    assert norms[0][0] == pytest.approx(norms[1][0], rel=1e-4)
    assert norms[1][0] > 0.05
    assert norms[1][1] == pytest.approx(1e9 * norms[0][1], rel=1e-3)
    assert moved[0][0] == pytest.approx(0.05, rel=1e-3)
    assert moved[1] == pytest.approx([0.05, 0.05], rel=1e-3)
    assert moved[0][1] < 1e-4


def test_a_last_mini_batch_may_be_smaller(tiny_t5, dialogues):
    policy, config, rollout, scores = prepared(tiny_t5, dialogues, mini_batch_size=3, micro_batch_size=2)
    stats = run_update(policy, ppo.build_experience(rollout, scores, config, 0.0), config)
    assert stats.optimizer_steps == 3  # 8 samples: 3 + 3 + 2


def test_mini_batches_hold_every_sample_once_an_epoch_and_keep_prompts_together(tiny_t5, dialogues):
    _, config, rollout, _ = prepared(tiny_t5, dialogues, ppo_epochs=2, mini_batch_size=4)
    plan = optimise._mini_batches(rollout, config, torch.Generator().manual_seed(3))
    assert sorted(torch.cat(plan[:2]).tolist()) == list(range(8))
    for batch in plan:
        assert rollout.prompt_index[batch].unique().numel() == 2


def test_the_adaptive_kl_controller_by_hand():
    config = TrainConfig(kl_controller="adaptive", kl_target=0.1, kl_horizon=1000)
    assert ppo.next_kl_coef(0.5, 0.1, 100, config) == pytest.approx(0.5)
    assert ppo.next_kl_coef(0.5, 0.11, 100, config) == pytest.approx(0.5 * 1.01)
    assert ppo.next_kl_coef(0.5, 9.0, 100, config) == pytest.approx(0.5 * 1.02)  # the error is held to ±0.2
    assert ppo.next_kl_coef(0.5, 0.0, 100, config) == pytest.approx(0.5 * 0.98)
    assert ppo.next_kl_coef(0.5, 9.0, 100, TrainConfig()) == 0.5
    soon = replace(config, kl_horizon=5)  # 48 samples are more than it: 0.2·(1 − 0.2·48/5) would be −0.18
    assert ppo.next_kl_coef(0.2, 0.0, 48, soon) == pytest.approx(0.16)
    assert ppo.next_kl_coef(0.2, 9.0, 48, soon) == pytest.approx(0.24)
