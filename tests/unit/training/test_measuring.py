"""What is said of a step, by hand."""

import math
from dataclasses import replace

import pytest
import torch

from made_rollout import made_config, made_experience, made_rollout
from softspoken.training.measuring import metrics_of
from softspoken.types import Scores, UpdateStats

STATS = UpdateStats(
    policy_loss=-0.1,
    value_loss=0.2,
    approx_kl=0.3,
    clip_fraction=0.4,
    entropy=0.5,
    ratio_mean=0.6,
    grad_norm=0.7,
    value_grad_norm=0.75,
    explained_variance=0.8,
    skipped=9,
    optimizer_steps=10,
)


def test_what_is_said_of_a_step_by_hand():
    """Two summaries of three and one tokens, drifted by ½ nat a token; a judge that scores them 0.9 and 0.6."""
    rollout = made_rollout([3, 1], logratio=0.5, truncated=[0])
    terms = {"mini": torch.tensor([0.9, 0.6]), "length:1-2": torch.tensor([0.0, 1.0])}
    experience = replace(made_experience(rollout, returns=1.0), scores=Scores(torch.tensor([0.9, 0.8]), terms))
    metrics = metrics_of(experience, STATS, made_config(reward="mini + 0.2*length:1-2"))
    k3 = math.exp(-0.5) - 1 + 0.5
    expected = {
        "objective/score": 0.85,
        "objective/score_std": 0.05,
        "objective/toxicity": 0.25,  # 1 − the mean of 0.9 and 0.6
        "objective/score/mini": 0.75,
        "objective/score/length:1-2": 0.5,
        "objective/kl": 0.5,
        "objective/kl_stderr": 0.0,
        "objective/kl_k2": 0.125,
        "objective/kl_k3": k3,
        "objective/entropy": 0.5,
        "ppo/value/loss": 0.2,
        "ppo/value/explained_variance": 0.8,
        "ppo/value/grad_norm": 0.75,
        "ppo/policy/loss": -0.1,
        "ppo/policy/clip_fraction": 0.4,
        "ppo/policy/approx_kl": 0.3,
        "ppo/policy/ratio_mean": 0.6,
        "ppo/grad_norm": 0.7,
        "ppo/skipped": 9,
        "ppo/optimizer_steps": 10,
        "tokens/response_mean": 2,
        "tokens/truncated_share": 0.5,
    }
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, abs=1e-6)


def test_the_standard_error_of_the_kl_is_over_tokens():
    """Drifts of 0 and 1 nat at two tokens: a variance of ½, over two of them."""
    rollout = made_rollout([2])
    rollout = replace(rollout, ref_logprobs=rollout.old_logprobs - torch.tensor([[0.0, 1.0]]))
    found = metrics_of(made_experience(rollout), STATS, made_config(reward="length:1-2"))
    assert (found["objective/kl"], found["objective/kl_stderr"]) == pytest.approx((0.5, 0.5))
    assert "objective/toxicity" not in found
