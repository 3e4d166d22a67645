"""What an update descends, by hand: each surrogate, the KL in the loss, and what a token weighs."""

import math
from dataclasses import replace

import pytest
import torch

from made_rollout import made_config, made_experience, made_rollout
from softspoken.config import TrainConfig
from softspoken.rl import losses
from softspoken.rl.losses import surrogate_loss
from softspoken.types import InputError

THREE_AND_ONE = [3, 1]
"""Tokens of two rows: a mean over tokens is not one over rows."""


def parts_of(logratio, advantages, **changes):
    """One row whose tokens' new log-probabilities lie `logratio` above the sampling policy's."""
    rollout = made_rollout([len(logratio)])
    experience = made_experience(rollout, advantages=torch.tensor([advantages]))
    logprobs = rollout.old_logprobs + torch.tensor([logratio])
    loss, parts = surrogate_loss(logprobs, experience, torch.tensor([0]), made_config(**changes))
    return loss.item(), {name: value.item() for name, value in parts.items()}


def test_the_clipped_objective_and_its_statistics_by_hand():
    """Ratios √e = 1.6487 and 1/√e = 0.6065 where 1 ± 0.2 is allowed.

    Pushed up and gone up: 1.2 counts, clipped. Pushed down and gone up: 1.6487 counts. Up and down: 0.6065 counts. Down and
    down: 0.8, clipped.
    """
    loss, parts = parts_of([0.5, 0.5, -0.5, -0.5], [1.0, -1.0, 1.0, -1.0], clip_range=0.2)
    assert loss == pytest.approx(-1.2 + 1.6487 - 0.6065 + 0.8, abs=1e-4)
    assert parts["policy_loss"] == pytest.approx(loss)
    assert parts["clip_fraction"] == 2
    assert parts["ratio_mean"] == pytest.approx(2 * 1.6487 + 2 * 0.6065, abs=1e-3)


def test_approx_kl_is_of_the_old_policy_to_the_new_under_the_olds_samples():
    """Schulman's k3 with r = new / old: r − 1 − ln r, which is e^½ − 1 − ½ = 0.14872; the other way round it were 0.10653."""
    assert parts_of([0.5], [1.0])[1]["approx_kl"] == pytest.approx(0.14872, abs=1e-5)
    assert parts_of([-0.5, 0.0], [1.0, 1.0])[1]["approx_kl"] == pytest.approx(0.10653, abs=1e-5)


def test_the_kl_in_the_loss_is_summed_over_the_tokens_that_count():
    """½ nat of drift at each of three tokens, before the update: 0.1 · k3 = 0.1 · (e^−½ − 1 + ½) each, and none off the mask."""
    rollout = made_rollout(THREE_AND_ONE, logratio=0.5)
    experience = made_experience(rollout, kl_coef=0.1)
    logprobs = torch.where(rollout.response_mask, rollout.old_logprobs, 2.0)
    for place, expected in (("loss", 0.1 * (math.exp(-0.5) - 0.5) * 4), ("reward", 0.0)):
        config = made_config(kl_in=place, kl_estimator="k3")
        found = losses.kl_loss(logprobs, experience, torch.tensor([0, 1]), config)
        assert found.item() == pytest.approx(expected, rel=1e-5)
    assert losses.kl_loss(logprobs, replace(experience, kl_coef=0.0), torch.tensor([0, 1]), config).item() == 0


def test_what_the_mask_hides_has_no_part_in_the_loss():
    rollout = made_rollout([1, 2])
    experience = made_experience(rollout)
    logprobs = rollout.old_logprobs.clone()
    logprobs[0, 1] = 3.0  # off the mask
    loss, parts = surrogate_loss(logprobs, experience, torch.tensor([0, 1]), made_config())
    assert loss.item() == pytest.approx(-3.0)
    assert (parts["ratio_mean"].item(), parts["clip_fraction"].item()) == (3.0, 0.0)


# ------------------------------------------------------------------------------------------------------ other surrogates


def test_clip_higher_leaves_more_room_above_and_none_below():
    """1 − 0.2 and 1 + 0.4: gone up to 1.2214 counts whole, to 1.6487 as 1.4; gone down to 0.6065 and pushed down, as 0.8."""
    loss, parts = parts_of([0.2, 0.5, -0.5], [1.0, 1.0, -1.0], clip_range=0.2, clip_range_high=0.4)
    assert loss == pytest.approx(-1.2214 - 1.4 + 0.8, abs=1e-4)
    assert parts["clip_fraction"] == 2


def test_dual_clip_bounds_what_a_bad_token_costs():
    """Ratio e² = 7.389. Pushed down it costs 3, no more; pushed up it is clipped at 1.2 as ever; e^½ pushed down costs 1.6487."""
    loss, parts = parts_of([2.0, 2.0, 0.5], [-1.0, 1.0, -1.0], clip_range=0.2, dual_clip=3.0)
    assert loss == pytest.approx(3 - 1.2 + 1.6487, abs=1e-4)
    assert parts["clip_fraction"] == 2
    assert parts_of([2.0], [-1.0], clip_range=0.2)[0] == pytest.approx(7.389, abs=1e-3)


def test_cispo_weighs_the_log_probability_by_the_bounded_ratio():
    """Old log-probability −1, new −0.5, −0.5 and −1.5: ratios 1.6487, held at 1.2, and 0.6065, which is not held below."""
    loss, parts = parts_of([0.5, 0.5, -0.5], [1.0, -2.0, 1.0], surrogate="cispo", clip_range_high=0.2)
    assert loss == pytest.approx(-1.2 * 1 * -0.5 - 1.2 * -2 * -0.5 - 0.6065 * 1 * -1.5, abs=1e-4)
    assert parts["clip_fraction"] == 2


def test_gspo_has_one_ratio_for_a_response():
    """Log-ratios 0.5 and −0.1: a mean of 0.2, a ratio of 1.2214 at both, held at 1.1; −(1.1 · 2 tokens) by 2 tokens is −1.1."""
    changes = {"algorithm": "rloo", "importance_ratio": "sequence", "clip_range": 0.1}
    loss, parts = parts_of([0.5, -0.1], [1.0, 1.0], loss_normalization="sequence", **changes)
    assert loss == pytest.approx(-1.1, abs=1e-4)
    assert (parts["clip_fraction"], parts["ratio_mean"]) == pytest.approx((2, 2 * 1.2214), abs=1e-3)
    assert parts_of([0.5, -0.1], [-1.0, -1.0], **changes)[0] == pytest.approx(2 * 1.2214, abs=1e-3)


@pytest.mark.parametrize(
    ("normalization", "expected"), [("token", 3 + 2), ("sequence", 3 / 3 + 2), ("constant", 3 + 2)]
)
def test_what_a_token_weighs_beside_another_response(normalization, expected):
    """Losses of 1 at three tokens of one response, and of 2 at the one token of another."""
    given = torch.tensor([[1.0, 1, 1], [2, 9, 9]])
    mask = torch.tensor([[True, True, True], [True, False, False]])
    assert losses.weighted_sum(given, mask, made_config(loss_normalization=normalization)).item() == expected
    divisors = {"token": 4, "sequence": 2, "constant": 2 * 7}
    found = losses.divisor(mask, made_config(loss_normalization=normalization, max_new_tokens=7))
    assert found.item() == divisors[normalization]


def slope_by_hand(logratio, advantage, tokens, config):
    """d loss / d log π of one token, from the papers: of the clipped surrogates −A r (of GSPO −A s / |o|), where nothing holds it and
    else 0; of CISPO −A min(r, 1 + high)."""
    ratio = math.exp(logratio)
    high = config.clip_range if config.clip_range_high is None else config.clip_range_high
    if config.surrogate == "cispo":
        return -advantage * min(ratio, 1 + high)
    held = ratio > 1 + high if advantage > 0 else ratio < 1 - config.clip_range
    if config.dual_clip is not None and advantage < 0:
        held = held or ratio > config.dual_clip
    return 0.0 if held else -advantage * ratio / tokens


SURROGATES = [
    {},
    {"clip_range_high": 0.5},
    {"dual_clip": 1.5},
    {"surrogate": "cispo", "clip_range_high": 0.3},
    {"importance_ratio": "sequence", "clip_range": 0.05, "loss_normalization": "sequence"},
    {"loss_normalization": "sequence"},
]


@pytest.mark.parametrize("changes", SURROGATES)
def test_the_gradient_is_the_papers_in_float64(changes):
    """Five rows of one to five tokens, ratios from a third to three, both signs; each token's slope worked out by itself."""
    lengths = [5, 4, 3, 2, 1]
    rollout = made_rollout(lengths)
    generator = torch.Generator().manual_seed(0)
    old = -torch.rand((5, 5), generator=generator, dtype=torch.float64) - 1
    logratio = 0.6 * torch.randn((5, 5), generator=generator, dtype=torch.float64)
    advantages = torch.randn((5, 1), generator=generator, dtype=torch.float64).expand(5, 5) * rollout.response_mask
    rollout = replace(rollout, old_logprobs=old * rollout.response_mask)
    experience = replace(made_experience(rollout), advantages=advantages)
    config = made_config(algorithm="rloo", **changes)
    logprobs = (rollout.old_logprobs + logratio).requires_grad_()
    surrogate_loss(logprobs, experience, torch.arange(5), config)[0].backward()
    for row, length in enumerate(lengths):
        mean = sum(logratio[row, :length].tolist()) / length
        for token in range(5):
            of_sequence = config.importance_ratio == "sequence"
            expected = slope_by_hand(
                mean if of_sequence else logratio[row, token].item(), advantages[row, 0].item(), 1, config
            )
            if config.loss_normalization == "sequence":
                expected /= length
            expected *= token < length
            assert logprobs.grad[row, token].item() == pytest.approx(expected, rel=1e-9, abs=1e-12), (row, token)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"importance_ratio": "sequence"}, r"importance_ratio 'sequence' .*--algorithm rloo or grpo"),
        ({"surrogate": "cispo", "dual_clip": 3.0}, r"dual_clip 3.0 .*leave it out"),
        ({"dual_clip": 1.0}, r"dual_clip 1.0"),
        ({"clip_range_high": 0.0}, r"clip_range_high 0.0 .*above 0"),
        ({"loss_normalization": "length"}, r"loss_normalization 'length' .*token or sequence or constant"),
    ],
)
def test_settings_of_the_loss_that_cannot_work_are_refused(settings, said):
    with pytest.raises(InputError, match=said):
        TrainConfig(**settings)
