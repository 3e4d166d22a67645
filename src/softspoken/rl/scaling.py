"""Step 2, score, after the reward: terms on one scale, so that weights mean something, and rows that no term has an opinion on.

GRPO scales the sum of the terms, in which the loudest drowns the rest and different mixtures come to the same advantage; GDPO scales each
term and then sums ("normalize then sum": Liu et al. 2026, "GDPO: Group reward-Decoupled Normalization Policy Optimization for
Multi-reward RL Optimization", arXiv 2601.05242, eq. 4 to 6; its last step, over the batch, is --whiten_advantages).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from softspoken.types import Scores

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
    groups = int(index.max()) + 1 if len(index) else 0
    counted, zeros = torch.where(has, values, 0.0), torch.zeros(groups, dtype=values.dtype)
    count = zeros.scatter_add(0, index, has.to(values.dtype)).clamp(min=1)
    centred = values - (zeros.scatter_add(0, index, counted) / count)[index]
    squares = torch.where(has, centred.square(), 0.0)
    return centred / ((zeros.scatter_add(0, index, squares) / count).sqrt()[index] + LEAST_SPREAD)


def with_opinions(scores: Scores, prompt_index: Tensor) -> Scores:
    """A row that no term has an opinion on is neither better nor worse than its prompt's others: it takes their mean or, where
    none has one, that of all, and 0 where no row has any."""
    total = scores.total
    has = ~total.isnan()
    if has.all():
        return scores
    groups = int(prompt_index.max()) + 1
    zeros = torch.zeros(groups, dtype=total.dtype)
    counted = torch.where(has, total, 0.0)
    count = zeros.scatter_add(0, prompt_index, has.to(total.dtype))
    mean = zeros.scatter_add(0, prompt_index, counted) / count
    over_all = counted.sum() / max(1, int(has.sum()))
    return Scores(torch.where(has, total, torch.where(mean.isfinite(), mean, over_all)[prompt_index]), scores.terms)
