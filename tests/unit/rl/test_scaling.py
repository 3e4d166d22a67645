"""Terms on one scale before they are summed (GDPO), by hand."""

from dataclasses import replace

import pytest
import torch

from made_rollout import made_rollout
from softspoken.rl.scaling import scaled, too_short, with_floor, with_opinions
from softspoken.types import Scores

NAN = float("nan")
INDEX = torch.tensor([0, 0, 1, 1])


def scores(**terms: list[float]) -> Scores:
    tensors = {name: torch.tensor(values) for name, values in terms.items()}
    return Scores(sum(tensors.values(), torch.zeros(4)), tensors)


def test_a_loud_term_does_not_drown_a_quiet_one_within_its_group() -> None:
    """Loud 0, 100 and quiet 0.1, 0: each comes to ∓1 and ±1 of its own group, whatever its size; alike comes to 0."""
    both = scores(loud=[0.0, 100.0, 5.0, 5.0], quiet=[0.1, 0.0, 0.0, 0.3])
    total = scaled(both, {"loud": 1.0, "quiet": 0.5}, INDEX, "group").total
    # −1 + 0.5, 1 − 0.5, 0 − 0.5, 0 + 0.5; the 1e-4 in the denominator takes 0.2 % of the quiet one's 0.05
    assert total.tolist() == pytest.approx([-0.5, 0.5, -0.5, 0.5], abs=2e-3)


def test_over_the_batch_a_group_that_is_better_as_a_whole_stays_so() -> None:
    """0, 2, 4, 6: mean 3, variance (9 + 1 + 1 + 9)/4 = 5."""
    total = scaled(scores(a=[0.0, 2.0, 4.0, 6.0]), {"a": 2.0}, INDEX, "batch").total
    assert total.tolist() == pytest.approx([2 * d / 5**0.5 for d in (-3, -1, 1, 3)], abs=1e-3)


def test_none_is_what_it_was_and_terms_stay_as_they_are() -> None:
    given = scores(a=[0.0, 2.0, 4.0, 6.0])
    assert scaled(given, {"a": 1.0}, INDEX, "none") is given
    assert scaled(given, {"a": 1.0}, INDEX, "group").terms["a"].tolist() == [0.0, 2.0, 4.0, 6.0]


def test_no_opinion_is_left_out_of_mean_and_sum() -> None:
    given = scores(a=[0.0, 2.0, NAN, NAN], b=[NAN, 1.0, 3.0, NAN])
    total = scaled(given, {"a": 1.0, "b": 1.0}, INDEX, "group").total
    assert total[:3].tolist() == pytest.approx([-1.0, 1.0, 0.0], abs=1e-3)  # b is alone in each group: 0
    assert total[3].isnan()


def test_a_row_without_any_opinion_is_like_its_others() -> None:
    index = torch.tensor([0, 0, 0, 1, 2])
    given = Scores(torch.tensor([1.0, 3.0, NAN, NAN, 8.0]), {})
    assert with_opinions(given, index).total.tolist() == [1.0, 3.0, 2.0, 4.0, 8.0]  # (1 + 3)/2; (1 + 3 + 8)/3
    assert with_opinions(Scores(torch.tensor([NAN, NAN]), {}), index[:2]).total.tolist() == [0.0, 0.0]
    whole = Scores(torch.tensor([1.0, 2.0]), {})
    assert with_opinions(whole, index[:2]) is whole


def test_too_short_is_below_the_least_number_of_characters() -> None:
    rollout = replace(made_rollout([1] * 4), responses=["", "abc", "abcd", "long enough"])
    assert too_short(rollout, 4).tolist() == [True, True, False, False]
    assert not too_short(rollout, 0).any()


def test_the_floor_is_a_margin_below_the_least_of_the_siblings_and_each_keeps_its_own_score() -> None:
    """Prompts of three, two and two; of the last all are short: it goes by the least of all, 0.1."""
    rollout = made_rollout([1] * 7, index=[0, 0, 0, 1, 1, 2, 2])
    short = torch.tensor([False, True, False, False, True, True, True])
    judged = torch.tensor([0.6, 0.4, 0.1])
    found = with_floor(Scores(judged, {"mini": judged / 2}), short, rollout, margin=0.5)
    assert found.total.tolist() == pytest.approx([0.6, -0.1, 0.4, 0.1, -0.4, -0.4, -0.4])
    terms = found.terms["mini"]
    assert terms[~short].tolist() == pytest.approx([0.3, 0.2, 0.05])
    assert terms[short].isnan().all()
