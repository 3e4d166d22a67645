"""What becomes of a rollout's rows and their scores, each told from all others."""

from dataclasses import replace

import pytest
import torch

from made_rollout import made_rollout
from softspoken.rl.rollout import sibling_mean, too_short, with_floor
from softspoken.types import Scores


def test_too_short_is_below_the_least_number_of_characters():
    rollout = replace(made_rollout([1] * 4), responses=["", "abc", "abcd", "long enough"])
    assert too_short(rollout, 4).tolist() == [True, True, False, False]
    assert not too_short(rollout, 0).any()


def test_the_floor_is_a_margin_below_the_least_of_the_siblings_and_each_keeps_its_own_score():
    """Prompts of three, two and two; of the last all are short: it goes by the least of all, 0.1."""
    rollout = made_rollout([1] * 7, index=[0, 0, 0, 1, 1, 2, 2])
    short = torch.tensor([False, True, False, False, True, True, True])
    judged = torch.tensor([0.6, 0.4, 0.1])
    found = with_floor(Scores(judged, {"mini": judged / 2}), short, rollout, margin=0.5)
    assert found.total.tolist() == pytest.approx([0.6, -0.1, 0.4, 0.1, -0.4, -0.4, -0.4])
    terms = found.terms["mini"]
    assert terms[~short].tolist() == pytest.approx([0.3, 0.2, 0.05])
    assert terms[short].isnan().all()


def test_the_mean_of_the_siblings_by_hand():
    rollout = made_rollout([1] * 6, index=[0, 1, 1, 2, 2, 2])
    means, siblings = sibling_mean(torch.tensor([9.0, 1.0, 3.0, 1.0, 2.0, 6.0]), rollout)
    assert means.tolist() == [0.0, 3.0, 1.0, 4.0, 3.5, 1.5]
    assert siblings.tolist() == [0, 1, 1, 2, 2, 2]
