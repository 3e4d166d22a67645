"""The arithmetic of a step in TRL's words, its statistics, its controller and what it warns of: by hand."""

import math
import warnings

import numpy as np
import pytest
import torch
from torch import tensor

from softspoken.trl import shaping, stats, watch
from softspoken.trl.config import PPOConfig, native_config
from softspoken.trl.control import KLController, RunningMoments

HALF = math.log(2)


def config(**changes) -> PPOConfig:
    return PPOConfig(batch_size=4, mini_batch_size=2, **changes)


# ------------------------------------------------------------------------------------------------------------- shaping


@pytest.mark.parametrize(("kind", "expected"), [("kl", [0.5, -2.0]), ("abs", [0.5, 2.0]), ("mse", [0.125, 2.0])])
def test_the_penalty_of_each_kind(kind, expected):
    assert shaping.kl_penalty(tensor([[-1.0, -3.0]]), tensor([[-1.5, -1.0]]), kind).tolist() == [expected]


def test_the_exact_penalty_is_the_policys_divergence_from_the_reference():
    """½, ½ and ¼, ¾, where a third token can come out under neither: ½ ln 2 + ½ ln ⅔."""
    logprobs, reference = (
        torch.log(tensor([[probabilities]])) for probabilities in ([0.5, 0.5, 0.0], [0.25, 0.75, 0.0])
    )
    found = shaping.kl_penalty(logprobs, reference, "full")
    assert found.tolist() == [[pytest.approx(0.5 * HALF + 0.5 * math.log(2 / 3))]]


def test_the_score_lands_on_the_last_masked_token_and_the_penalty_on_each():
    kls, masks = tensor([[1.0, 2.0, 4.0], [1.0, 0.5, 9.0]]), tensor([[1, 1, 1], [1, 1, 0]])
    rewards, rest = shaping.token_rewards(tensor([5.0, -1.0]), kls, masks, 0.5)
    assert rest.tolist() == [[-0.5, -1.0, -2.0], [-0.5, -0.25, -4.5]]
    assert rewards.tolist() == [[-0.5, -1.0, 3.0], [-0.5, -1.25, -4.5]]


def test_advantages_are_whitened_over_the_mask_and_returns_are_advantages_and_values():
    """λ = γ = 1: what is still to come less the value: 1.5, 0.5 and 3.5; mean 11/6, variance 7/3."""
    values, rewards = tensor([[0.5, 1.5, 7.0], [0.5, 7.0, 7.0]]), tensor([[0.0, 2.0, 9.0], [4.0, 9.0, 9.0]])
    mask = tensor([[1, 1, 0], [1, 0, 0]])
    kept, advantages, returns = shaping.advantages_of(values, rewards, mask, config(lam=1.0))
    assert kept.tolist() == [[0.5, 1.5, 0.0], [0.5, 0.0, 0.0]]
    assert returns.tolist() == [[2.0, 2.0, 0.0], [4.0, 0.0, 0.0]]
    scaled = [(each - 11 / 6) / math.sqrt(7 / 3) for each in (1.5, 0.5, 3.5)]
    assert advantages[mask.bool()].tolist() == pytest.approx(scaled, abs=1e-6)
    assert not advantages[~mask.bool()].any()


def test_rewards_that_are_all_alike_are_whitened_to_what_they_are():
    _, _, returns = shaping.advantages_of(
        torch.zeros(1, 2), tensor([[3.0, 3.0]]), tensor([[1, 1]]), config(whiten_rewards=True, lam=1.0)
    )
    assert returns.tolist() == [[6.0, 3.0]]


def losses(*, logratio, advantages, vpreds, returns, values=0.0, mask=None, **changes):
    row = lambda value: torch.full((1, 2), value) if isinstance(value, float) else tensor([value])  # noqa: E731
    logprobs = row(logratio) - 1.0
    given = [-torch.ones(1, 2), row(values), torch.zeros(1, 2, 4), row(vpreds), logprobs]
    given += [torch.ones(1, 2) if mask is None else tensor([mask]), row(advantages), row(returns)]
    return shaping.losses(*given, config(**changes))


def test_both_losses_and_their_statistics():
    """Ratios 2 and ½ where 1 ± 0.2 is allowed; values 0 gone to 1 and 0.1 where ± 0.2 is: (0.2 − 3)² and (0.1 − 1)²."""
    policy_loss, value_loss, found = losses(
        logratio=[HALF, -HALF], advantages=[1.0, 3.0], vpreds=[1.0, 0.1], returns=[3.0, 1.0], vf_coef=0.5
    )
    assert policy_loss.item() == pytest.approx((-1.2 - 1.5) / 2)
    assert value_loss.item() == pytest.approx(0.5 * 0.5 * (2.8**2 + 0.9**2) / 2)
    expected = {
        "loss/total": -1.35 + 0.5 * 0.5 * 4.325,
        "policy/entropy": math.log(4),
        "policy/approxkl": HALF**2 / 2,
        "policy/policykl": 0.0,
        "policy/advantages_mean": 2.0,
        "policy/clipfrac": 0.5,
        "policy/skipped": 0.0,
        "val/vpred": 0.55,
        "val/error": (2.0**2 + 0.9**2) / 2,
        "val/clipfrac": 0.5,
        "val/mean": 0.0,
        "returns/mean": 2.0,
        "returns/var": 2.0,
    }
    assert {name: found[name].item() for name in expected} == pytest.approx(expected, abs=1e-6)
    assert found["policy/ratio"].tolist() == [[pytest.approx(2.0), pytest.approx(0.5)]]
    assert not any(value.requires_grad for value in found.values())


def test_what_the_mask_hides_has_no_part_in_them():
    policy_loss, value_loss, found = losses(
        logratio=[0.0, 50.0],
        advantages=[1.0, 9.0],
        vpreds=[1.0, 9.0],
        returns=[1.0, 0.0],
        mask=[1, 0],
        values=[1.0, 0.0],
    )
    assert (policy_loss.item(), value_loss.item()) == (-1.0, 0.0)
    assert found["policy/policykl"].item() == 0
    assert found["policy/ratio"].tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize(
    ("skipped", "changes"),
    [
        (0, {"ratio_threshold": 1.0}),  # a mean ratio of 1 does not pass it
        (1, {"ratio_threshold": 0.99}),
        (1, {"logratio": [math.nan, 0.0]}),
        (1, {"returns": [math.inf, 0.0]}),
    ],
)
def test_a_mini_batch_beyond_the_threshold_or_of_no_number_is_skipped_whole(skipped, changes):
    given = {"logratio": 0.0, "advantages": 1.0, "vpreds": 1.0, "returns": 0.0, **changes}
    policy_loss, value_loss, found = losses(**given)
    assert found["policy/skipped"].item() == skipped
    expected = [0.0, 0.0, 0.0] if skipped else [-1.0, 0.05, -0.95]
    # Gone from 0 to 1, where the value loss is the larger of 1² and 0.2²: ½, times 0.1.
    assert [policy_loss.item(), value_loss.item(), found["loss/total"].item()] == pytest.approx(expected)


# ---------------------------------------------------------------------------------------------------------- statistics


def test_the_entropy_of_what_can_come_out():
    logits = torch.log(tensor([[0.5, 0.25, 0.25, 0.0]])) + 2.0
    assert stats.entropy(logits).tolist() == pytest.approx([1.5 * HALF])


def test_losses_that_are_the_same_clipped_or_not_do_not_count_as_clipped():
    same, mask = tensor([[1.0, 2.0]]), tensor([[1, 1]])
    policy_loss, value_loss, fractions = stats.clipped_losses((same, same), (same, same), mask)
    assert (policy_loss.item(), value_loss.item()) == (1.5, 0.75)
    assert [each.item() for each in fractions.values()] == [0.0, 0.0]
    more = same + tensor([[1.0, -1.0]])
    policy_loss, value_loss, fractions = stats.clipped_losses((same, more), (more, same), mask)
    assert (policy_loss.item(), value_loss.item()) == (2.0, 1.0)
    assert [each.item() for each in fractions.values()] == [0.5, 0.5]


def test_mini_batches_are_rows_and_their_arrays_one_row():
    minis = [
        {"loss": tensor(1.0), "policy/ratio": tensor([[1.0, 2.0]])},
        {"loss": tensor(3.0), "policy/ratio": tensor([[4.0]])},
    ]
    found = stats.gathered(minis)
    assert found["loss"].tolist() == [[1.0], [3.0]]
    assert found["policy/ratio"].tolist() == [[1.0, 2.0, 4.0, -1.0]]
    assert stats.gathered(minis[:1])["loss"].tolist() == [[1.0]]


def data(**changes):
    plain = {
        "masks": tensor([[1, 1], [1, 0]]),
        "kls": tensor([[1.0, 2.0], [5.0, 9.0]]),
        "logprobs": tensor([[-1.0, -2.0], [-5.0, -9.0]]),
        "ref_logprobs": torch.zeros(2, 2),
        "non_score_reward": tensor([[1.0, 2.0], [6.0, 9.0]]),
        "scores": tensor([1.0, 3.0]),
        "queries": [(1, 2, 3)],
        "responses": [(1,), (1, 2, 3)],
        "train_stats": {"returns/var": tensor([[4.0], [4.0]]), "val/error": tensor([[1.0], [3.0]])},
    }
    return plain | changes


def test_the_statistics_of_a_step():
    found = stats.step_stats(0.25, data())
    expected = {
        "objective/kl": 4.0,
        "objective/kl_coef": 0.25,
        "objective/entropy": 4.0,
        "ppo/mean_non_score_reward": 3.0,
        "ppo/mean_scores": 2.0,
        "ppo/std_scores": math.sqrt(2),
        "tokens/queries_len_mean": 3.0,
        "tokens/queries_len_std": 0.0,
        "tokens/responses_len_mean": 2.0,
        "tokens/responses_len_std": math.sqrt(2),
        "ppo/val/error": 2.0,
        "ppo/val/var_explained": 0.5,
    }
    assert {name: float(found[name]) for name in expected} == pytest.approx(expected)
    assert found["objective/kl_dist"].tolist() == [3.0, 5.0]
    assert found["tokens/responses_dist"].tolist() == [1.0, 3.0]
    flat = stats.step_stats(0.25, data(train_stats={"returns/var": tensor([[0.0]]), "val/error": tensor([[1.0]])}))
    assert flat["ppo/val/var_explained"].tolist() == [0.0]


def test_arrays_for_trackers():
    given = {
        "one": tensor([2.0], requires_grad=True),
        "none": tensor(3),
        "two": tensor([1.0, 2.0]),
        "n": 4,
        "text": "x",
    }
    found = stats.as_numpy(given, scalars=True)
    assert (found["one"], found["none"], found["n"], found["text"]) == (2.0, 3.0, 4.0, "x")
    assert {type(found[name]) for name in ("one", "none", "n")} == {float}
    assert found["two"].tolist() == [1.0, 2.0]
    arrays = stats.as_numpy(given, scalars=False)
    assert [arrays[name].shape for name in ("one", "none", "two")] == [(1,), (), (2,)]
    grid = stats.as_numpy({"grid": torch.ones(1, 1)}, scalars=True)["grid"]
    assert isinstance(grid, np.ndarray)


def test_the_clock_says_how_long_it_took(monkeypatch):
    times = iter([100.0, 102.5])
    monkeypatch.setattr(stats.time, "time", lambda: next(times))
    timing: dict[str, float] = {}
    with stats.clock(timing, "part"):
        pass
    assert timing == {"time/ppo/part": 2.5}


# ---------------------------------------------------------------------------------- configuration, control, warnings


def test_moments_of_all_scores_so_far():
    """1, 3 and then 8, 9, 9: mean 6, squares 25 + 9 + 4 + 9 + 9 = 56 over 4."""
    running = RunningMoments()
    assert (running.mean, running.std) == (0.0, 1.0)
    running.update(tensor([5.0]))
    assert (running.mean, running.std, running.count) == (5.0, 1.0, 1)
    running = RunningMoments()
    running.update(tensor([1.0, 3.0]))
    assert (running.mean, running.std) == (2.0, pytest.approx(math.sqrt(2)))
    running.update(tensor([8.0, 9.0, 9.0]))
    assert (running.mean, running.std, running.count) == (pytest.approx(6.0), pytest.approx(math.sqrt(14)), 5)


def test_the_controller_is_adaptive_unless_it_is_told_otherwise():
    for adaptive, expected in ((True, 0.5 * (1 + 0.2 * 50 / 1000)), (False, 0.5)):
        control = KLController(0.5, native_config(config(adap_kl_ctrl=adaptive, target=2.0, horizon=1000.4)))
        control.update(9.0, 50)
        assert control.value == pytest.approx(expected)
    native = native_config(config())
    assert (native.temperature, native.value_head_detached, native.micro_batch_size) == (1.0, False, 2)


def test_settings_that_are_filled_in_or_renamed():
    made = PPOConfig(batch_size=8, mini_batch_size=2, gradient_accumulation_steps=2, steps=20)
    assert (made.total_ppo_epochs, made.backward_batch_size, made.optimize_device_cache) == (3, 4, False)
    assert PPOConfig(batch_size=2, mini_batch_size=1, optimize_cuda_cache=True).optimize_device_cache
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert PPOConfig(batch_size=256, gradient_accumulation_steps=2).mini_batch_size == 128
        assert PPOConfig(batch_size=1, mini_batch_size=1).ppo_epochs == 4
    own = PPOConfig(
        batch_size=2,
        mini_batch_size=1,
        project_kwargs={"logging_dir": "mine"},
        accelerator_kwargs={"logging_dir": "logs", "cpu": True},
    )
    assert (own.project_kwargs, own.accelerator_kwargs) == ({"logging_dir": "mine"}, {"cpu": True})
    nested = PPOConfig(batch_size=2, mini_batch_size=1, tracker_kwargs={"a": {"b": 1}}).to_dict()
    assert (nested["tracker_kwargs/a/b"], nested["batch_size"]) == (1, 2)
    assert "tracker_kwargs" not in nested


def warned(call, *given) -> str:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call(*given)
    return " ".join(str(each.message) for each in caught)


@pytest.mark.parametrize(
    ("said", "per_response"),
    [
        ("-0.35 ± 0.10 nats", [-0.25, -0.45]),  # three errors below 0
        ("-0.30 ± 0.00 nats", [-0.3, -0.3]),
        ("-1.50 ± inf nats", [-1.5]),  # beyond 1 nat whatever the error is
        ("-2.00 ± 4.00 nats", [2.0, -6.0]),
        ("", [-1.0]),
        ("", [-0.5]),
        ("", [-0.2, -0.5]),  # −0.35 ± 0.15
        ("", [-0.01, -0.01]),
        ("", [0.2, 0.4]),
    ],
)
def test_a_kl_below_0_by_more_than_chance_is_said(said, per_response):
    found = warned(watch.say_negative_kl, tensor(per_response, dtype=torch.float64))
    assert said in found
    assert bool(said) == bool(found)


def test_skipped_mini_batches_are_said_where_they_are_more_than_half():
    watching = watch.Watch(None, None, None)
    assert warned(watching.skipped, 2, 4, 10.0) == ""
    assert warned(watching.skipped, 3, 4, 10.0).startswith("3 of 4 mini-batches of this step were SKIPPED")
