"""The critic-free algorithms: advantages by hand, and that an update goes the right way."""

from dataclasses import replace

import pytest
import torch

from one_rollout import optimizer_for, prepared
from softspoken.config import TrainConfig
from softspoken.rl import groups, optimise, ppo
from softspoken.rl.optimise import unmoved_adapters
from softspoken.rl.rollout import alike, score_rows
from softspoken.types import InputError, Scores


def with_index(rollout, index):
    return replace(rollout, prompt_index=torch.tensor(index))


def test_leave_one_out_by_hand(tiny_t5, dialogues):
    _, _, rollout, _ = prepared(tiny_t5, dialogues, algorithm="rloo")
    rollout = with_index(rollout, [0, 0, 1, 2, 2, 2, 3, 3])
    rewards = torch.tensor([1.0, 3.0, 5.0, 1.0, 2.0, 6.0, 4.0, 4.0])
    assert groups.leave_one_out(rewards, rollout).tolist() == [-2.0, 2.0, 0.0, -3.0, -1.5, 4.5, 0.0, 0.0]


def test_group_relative_by_hand(tiny_t5, dialogues):
    _, _, rollout, _ = prepared(tiny_t5, dialogues, algorithm="grpo")
    rollout = with_index(rollout, [0, 0, 0, 0, 1, 1, 2, 3])
    scores = torch.tensor([0.0, 0.0, 1.0, 1.0, 2.0, 2.0, 7.0, 9.0])
    found = groups.group_relative(scores, rollout).tolist()
    assert found == pytest.approx([-1, -1, 1, 1, 0, 0, 0, 0], abs=1e-3)


@pytest.mark.parametrize(("estimator", "paid"), [("k1", 0.15), ("k2", 0.0375), ("k3", 0.0319592)])
def test_rloo_takes_the_kl_of_the_whole_summary_off_its_reward(tiny_t5, dialogues, estimator, paid):
    """Three tokens at 0.1 times 0.5, ½·0.5² or e^−0.5 − 1 + 0.5."""
    _, config, rollout, _ = prepared(tiny_t5, dialogues, algorithm="rloo", kl_estimator=estimator)
    mask = torch.zeros_like(rollout.response_mask)
    mask[:, :3] = True
    drift = torch.zeros(8)
    drift[0] = 0.5  # nats at each of the first row's three tokens
    rollout = replace(rollout, response_mask=mask, ref_logprobs=rollout.old_logprobs - drift[:, None])
    experience = groups.build_experience(rollout, Scores(torch.ones(8), {}), config, kl_coef=0.1)
    assert experience.advantages[0].tolist() == pytest.approx([-paid] * 3 + [0.0] * (mask.shape[1] - 3), abs=1e-5)
    assert experience.advantages[1, 0].item() == pytest.approx(paid, abs=1e-5)
    assert not experience.advantages[2:].any()


@pytest.mark.parametrize("algorithm", ["rloo", "grpo"])
def test_an_update_makes_what_scored_higher_than_its_siblings_likelier(tiny_t5, dialogues, algorithm):
    policy, config, rollout, scores = prepared(tiny_t5, dialogues, algorithm=algorithm, ppo_epochs=4)
    assert rollout.old_values is None
    experience = groups.build_experience(rollout, scores, config, 0.0)
    stats = groups.update(policy, optimizer_for(policy, 3e-2), experience, config, torch.Generator().manual_seed(0))
    assert stats.optimizer_steps == 4
    assert unmoved_adapters(policy) == []
    assert not policy.value_head.weight.any(), "there is no critic to train"
    with torch.no_grad():
        after, _ = score_rows(policy, rollout, torch.arange(8), config)
    assert ((after - rollout.old_logprobs) * experience.advantages).sum() > 0.1


@pytest.mark.parametrize(("estimator", "kl"), [("k1", 0.5), (None, 2.718281828**-0.5 - 1 + 0.5)])
def test_grpo_pulls_back_to_the_reference_in_its_loss_alone(tiny_t5, dialogues, estimator, kl):
    changes = {"kl_in": "loss", "kl_estimator": estimator}
    policy, config, rollout, _ = prepared(tiny_t5, dialogues, algorithm="grpo", **changes)
    rollout = replace(rollout, ref_logprobs=(rollout.old_logprobs - 0.5) * rollout.response_mask)
    flat = Scores(torch.ones(8), {})
    losses = [
        groups.policy_loss(policy, groups.build_experience(rollout, flat, config, coef), torch.arange(8), config)[
            0
        ].item()
        for coef in (0.0, 0.1)
    ]
    assert losses[0] == pytest.approx(0.0, abs=1e-4)
    assert losses[1] == pytest.approx(0.1 * kl * rollout.response_mask.sum().item(), rel=1e-3)


def test_one_sample_a_dialogue_is_refused():
    with pytest.raises(InputError, match=r"samples_per_prompt 1 .*rloo compares"):
        TrainConfig(algorithm="rloo", samples_per_prompt=1)


def test_ppo_and_rloo_share_their_signatures():
    import inspect

    from softspoken.rl import ppo

    for name in ("build_experience", "update"):
        assert inspect.signature(getattr(ppo, name)) == inspect.signature(getattr(groups, name))


@pytest.mark.parametrize(
    "settings", [{"algorithm": "rloo"}, {"algorithm": "grpo"}, {"algorithm": "ppo", "value_coef": 0.0}]
)
def test_leaving_out_what_has_no_advantage_takes_the_same_step(tiny_t5, dialogues, settings, monkeypatch):
    """Two of four prompts are alike; two passes over all eight, with and without them."""
    module = ppo if settings["algorithm"] == "ppo" else groups
    stepped = []
    for every in (False, True):
        policy, config, rollout, _ = prepared(
            tiny_t5, dialogues, ppo_epochs=2, micro_batch_size=3, whiten_advantages=False, **settings
        )
        scores = Scores(torch.tensor([0.1, 0.9, 0.4, 0.4, 0.3, 0.3, 0.8, 0.2]), {})
        experience = module.build_experience(rollout, scores, config, 0.0)
        if every:
            monkeypatch.setattr(optimise, "teaching", lambda experience, config: torch.ones(8, dtype=torch.bool))
        stats = module.update(policy, optimizer_for(policy), experience, config, torch.Generator().manual_seed(0))
        assert (stats.rows, stats.optimizer_steps) == (8 if every else 4, 2)
        stepped.append(policy.adapter_parameters())
    for name, weight in stepped[0].items():
        assert torch.allclose(weight, stepped[1][name], atol=1e-6), name


def test_what_scores_alike_by_rounding_is_alike(tiny_t5, dialogues):
    _, config, rollout, _ = prepared(tiny_t5, dialogues, algorithm="rloo")
    rollout = with_index(rollout, [0, 0, 0, 1, 1, 2, 2, 3])
    scores = Scores(torch.tensor([0.1, 0.1, 0.1 + 1e-8, 1000.0, 1000.0001, 0.5, 0.50001, 7.0]), {})
    assert alike(scores.total, rollout).tolist() == [True, True, False, True]
    advantages = groups.build_experience(rollout, scores, config, 0.0).advantages
    assert advantages.any(dim=1).tolist() == [False] * 5 + [True, True, False]
