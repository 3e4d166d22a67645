"""Step 2, score, after the reward: terms on one scale, so that weights mean something, and rows that no term has an opinion on
or that are too short to be judged.

GRPO scales the sum of the terms, in which the loudest drowns the rest and different mixtures come to the same advantage; GDPO scales each
term and then sums ("normalize then sum": Liu et al. 2026, "GDPO: Group reward-Decoupled Normalization Policy Optimization for
Multi-reward RL Optimization", arXiv 2601.05242, eq. 4 to 6; its last step, over the batch, is --whiten_advantages).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from softspoken.types import Rollout, Scores

LEAST_SPREAD = 1e-4
"""Added to a standard deviation, as GRPO does it: a term that is all alike comes to 0."""


def scaled(
    scores: Scores, weights: Mapping[str, float], prompt_index: Tensor, scaling: Literal["none", "group", "batch"]
) -> Scores:
    """`total` of terms that each have mean 0 and variance 1 over the samples of a prompt (group) or over all rows (batch).

    `prompt_index` [N] int64; a term's NaNs (no opinion) are left out of its mean and stay out of the row's sum. Terms stay as they are.
    """
    if scaling == "none":
        return scores
    index = prompt_index if scaling == "group" else torch.zeros_like(prompt_index)
    total, opinions = torch.zeros(len(index), dtype=torch.float64), torch.zeros(len(index), dtype=torch.bool)
    for name, weight in weights.items():
        values = scores.terms[name].double()
        has = ~values.isnan()
        total += torch.where(has, weight * _standardized(values, has, index), 0.0)
        opinions |= has & (weight != 0)
    return Scores(torch.where(opinions, total, torch.nan).float(), scores.terms)


def _standardized(values: Tensor, has: Tensor, index: Tensor) -> Tensor:
    """Values [N] minus the mean of those of their group that count, over their standard deviation (of a population)."""
    members = _members(index, values)
    count = (members @ has.to(values.dtype)).clamp(min=1)
    centred = values - (members @ torch.where(has, values, 0.0) / count)[index]
    squares = torch.where(has, centred.square(), 0.0)
    return centred / ((members @ squares / count).sqrt()[index] + LEAST_SPREAD)


def _members(index: Tensor, values: Tensor) -> Tensor:
    """[groups, N] of the kind of `values`: 1 where a row is of a group. A product with it adds in a fixed order, as a GPU's scatter_add
    does not, and the same seed gives the same digits wherever scores lie."""
    groups = torch.arange(int(index.max()) + 1 if len(index) else 0, device=index.device)
    return (index == groups.unsqueeze(1)).to(values.dtype)


def with_opinions(scores: Scores, prompt_index: Tensor) -> Scores:
    """A row that no term has an opinion on is neither better nor worse than its prompt's others: it takes their mean or, where
    none has one, that of all, and 0 where no row has any."""
    total = scores.total
    has = ~total.isnan()
    if has.all():
        return scores
    members, counted = _members(prompt_index, total), torch.where(has, total, 0.0)
    mean = members @ counted / (members @ has.to(total.dtype))
    over_all = counted.sum() / max(1, int(has.sum()))
    return Scores(torch.where(has, total, torch.where(mean.isfinite(), mean, over_all)[prompt_index]), scores.terms)


def too_short(rollout: Rollout, min_chars: int) -> Tensor:
    """[N] bool, on the CPU as scores are: which responses have fewer than `min_chars` characters."""
    return torch.tensor([len(text) < min_chars for text in rollout.responses])


def with_floor(scores: Scores, short: Tensor, rollout: Rollout, margin: float) -> Scores:
    """Scores of the rows that are not `short` [N] bool, of which there must be one → of all N.

    What is too short to be judged scores `margin` less than the least of its prompt's others or, where they are all short, of
    all; its terms are NaN. Left out of the update it would cost nothing, and a policy that cannot please would learn to
    write nothing; judged, it would please: nothing is less toxic than an empty text.
    """
    total = scores.total.new_full(short.shape, float("inf"))
    total[~short] = scores.total
    index = rollout.prompt_index.cpu()
    least = total.new_full((len(rollout.prompts.examples),), float("inf")).scatter_reduce(0, index, total, "amin")
    floor = torch.where(least.isfinite(), least, total.min())[index] - margin
    terms = {}
    for name, term in scores.terms.items():
        terms[name] = term.new_full(short.shape, float("nan"))
        terms[name][~short] = term
    return Scores(torch.where(short, floor, total), terms)
