"""Uncertainty of means over dialogues: percentile bootstrap and permutation test that resample groups, not rows.

Where the groups are so few that all resamples can be counted, all are; what is drawn at random else is not drawn where
drawing is what an interval would show (`over_seeds`).

A table of values is [n, M] float64: one row a dialogue, one column a quantity (a metric of a system, say), NaN where a dialogue
has no such value. `groups` is [n] int64, 0 … G−1. All columns share each resample, so their differences and ratios are paired.

scipy.stats.bootstrap and permutation_test give the same numbers one statistic at a time (the tests compare them); with 10,000
groups and a hundred columns that takes minutes, and a matrix product seconds.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc, t

from softspoken.types import Interval

Array = NDArray[np.float64]
Groups = NDArray[np.int64]

RESAMPLES = 2_000
PERMUTATIONS = 9_999
COUNTED = 50_000
"""Up to so many resamples of G groups, G to the power of G, are counted one and all: six groups."""
POINTS = 2**15
"""Of the lattice that spreads what another set of trainings would differ by evenly over its distribution."""
CHUNK = 2_000_000
"""Numbers held at once while resampling."""


def group_numbers(names: list[str]) -> Groups:
    """Equal names, equal number: 0 … G−1."""
    return np.unique(np.array(names, dtype=object), return_inverse=True)[1].astype(np.int64)


def bootstrap_means(values: Array, groups: Groups, *, seed: int, resamples: int = RESAMPLES) -> Array:
    """Column means of R draws of G groups with replacement: [R, M]; NaN where a draw has no value.

    R is `resamples`, or the number of all draws that there are (G to the power of G), where those are few.
    The mean is a ratio of sums (all values of the drawn groups over their number), so large groups weigh more, as they do
    in the plain mean.
    """
    sums, counts = _group_sums(values, groups)
    means = [(weights @ sums, weights @ counts) for weights in _draws(len(sums), seed, resamples)]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.concatenate([total / number for total, number in means])


def mean_interval(values: Array, draws: Array) -> Interval:
    """One column of the table and of its bootstrap means → its mean and 95 % interval."""
    return _interval(float(np.nanmean(values)), draws)


def difference_interval(a: Array, b: Array, draws_a: Array, draws_b: Array) -> Interval:
    """b − a."""
    return _interval(float(np.nanmean(b) - np.nanmean(a)), draws_b - draws_a)


def ratio_interval(a: Array, b: Array, draws_a: Array, draws_b: Array) -> Interval | None:
    """b / a; None where a's mean is 0, or so many draws of it are that the interval has no upper end."""
    base = float(np.nanmean(a))
    if base == 0:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        draws = draws_b / draws_a
    interval = _interval(float(np.nanmean(b)) / base, draws)
    return interval if np.isfinite(interval.high) else None


def quantile_interval(
    values: Array, groups: Groups, quantile: float, *, seed: int, resamples: int = RESAMPLES
) -> Interval:
    """The `quantile` of all values of [n, K] together (the smallest value with that share at or below it)."""
    present = ~np.isnan(values)
    flat, owner = values[present], np.broadcast_to(groups[:, None], values.shape)[present]
    order = np.argsort(flat)
    flat, owner = flat[order], owner[order]
    draws = []
    for weights in _draws(int(groups.max()) + 1, seed, resamples, width=len(flat)):
        below = np.cumsum(weights[:, owner], axis=1)
        # A hair less than the share, or rounding would step over a value that reaches it exactly.
        draws.append(flat[np.argmax(below >= quantile * below[:, -1:] * (1 - 1e-12), axis=1)])
    return _interval(float(np.quantile(flat, quantile, method="inverted_cdf")), np.concatenate(draws))


def over_seeds(draws: Array, *, seed: int, system: int) -> Array:
    """Bootstrap means of S trainings of a system [S, R] → of their mean, with what another S trainings would differ by: [POINTS].

    To the resampled mean comes s/√S · t, where s is the trainings' standard deviation and t has Student's distribution with
    S − 1 degrees of freedom; resampling two or three trainings could reach no further than they do. `system` is a number of
    its own for each system, so that no two are taken to have had the same luck; the resample is the same for all of them,
    those with one training too. What is never negative stays so.

    Of two trainings, t's ends lie at 12.7, and 2,000 random draws of it end anywhere from 9 to 16: so resample and luck
    are the points of a Sobol lattice, which has as many of them in each part of the distribution as belong there.
    """
    trainings, resamples = draws.shape
    drawn = draws[:, (_points(seed, 0) * resamples).astype(np.int64)]
    if trainings == 1:
        return drawn[0]
    spread = np.nanmean(draws, axis=1).std(ddof=1) / np.sqrt(trainings)
    found = drawn.mean(axis=0) + spread * _luck(seed, system, trainings - 1)
    return np.maximum(found, 0.0) if np.nanmin(draws) >= 0 else found


@functools.lru_cache(maxsize=64)
def _luck(seed: int, system: int, freedom: int) -> Array:
    return t.ppf(_points(seed, system + 1), freedom)


@functools.lru_cache(maxsize=64)
def _points(seed: int, column: int) -> Array:
    """A column of a Sobol lattice in (0, 1), moved along by a random number of its own: the first says which resample, each
    other one a system's luck."""
    points = qmc.Sobol(column + 1, scramble=False).random(POINTS)[:, column]
    return ((points + np.random.default_rng([seed, column]).random()) % 1).clip(1e-9, 1 - 1e-9)


def distinct_interval(pieces: list[tuple[NDArray[np.int64], Groups]], n_groups: int) -> Interval | None:
    """Distinct n-grams by all n-grams of a set of texts (Li et al. 2016), and its 95 % interval; None without any n-gram.

    `pieces` has for each training the hash of every n-gram and the group its text is in; the value is the mean over trainings.
    A bootstrap would count each text that it draws twice as repetition; this is the jackknife (Efron & Tibshirani 1993, 11),
    which leaves out a group at a time, with the normal distribution's 1.96.
    """
    if not all(len(hashes) for hashes, _ in pieces):
        return None
    values, without = zip(*(_distinct(hashes, groups, n_groups) for hashes, groups in pieces), strict=True)
    value, left = float(np.mean(values)), np.mean(without, axis=0)
    error = np.sqrt((n_groups - 1) / n_groups * np.square(left - left.mean()).sum())
    return Interval(value, max(0.0, float(value - 1.96 * error)), min(1.0, float(value + 1.96 * error)))


def _distinct(hashes: NDArray[np.int64], groups: Groups, n_groups: int) -> tuple[float, Array]:
    """Distinct by all, and the same without each group in turn: [G]."""
    kinds = np.unique(hashes, return_inverse=True)[1]
    pairs = np.unique(kinds * np.int64(n_groups) + groups)  # which kind is in which group
    only_there = np.bincount(pairs // n_groups)[pairs // n_groups] == 1
    lost = np.bincount(pairs[only_there] % n_groups, minlength=n_groups)
    distinct, size = int(kinds.max()) + 1, np.bincount(groups, minlength=n_groups)
    value = distinct / len(hashes)
    with np.errstate(invalid="ignore"):
        return value, np.where(size < len(hashes), (distinct - lost) / (len(hashes) - size), value)


def permutation_p_values(differences: Array, groups: Groups, *, seed: int, permutations: int = PERMUTATIONS) -> Array:
    """Two-sided p-value [M] of each column's paired differences: how often swapping a and b, group by group, does as much.

    Of up to 13 groups every swap is counted. Of more, `permutations` random ones, with the observed labelling as one of them
    (Smyth & Phipson 2010), so p is never 0.
    """
    sums, _ = _group_sums(differences, groups)
    observed = np.abs(sums.sum(axis=0)) * (1 - 1e-12)
    if 2 ** len(sums) <= permutations + 1:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=len(sums))))
        return (np.abs(signs @ sums) >= observed).mean(axis=0)
    rng = np.random.default_rng(seed)
    as_much, rows = np.zeros(sums.shape[1]), max(1, CHUNK // len(sums))
    for first in range(0, permutations, rows):
        signs = rng.integers(0, 2, size=(min(rows, permutations - first), len(sums))) * 2.0 - 1.0
        as_much += (np.abs(signs @ sums) >= observed).sum(axis=0)
    return (as_much + 1) / (permutations + 1)


def _interval(mean: float, draws: Array) -> Interval:
    draws = draws[~np.isnan(draws)]
    # Neighbouring draws, not a blend of them: a ratio's draws may be infinite.
    low = np.quantile(draws, 0.025, method="inverted_cdf")
    high = np.quantile(draws, 0.975, method="inverted_cdf")
    return Interval(mean, float(low), float(high))


def _group_sums(values: Array, groups: Groups) -> tuple[Array, Array]:
    """Sum and number of the values of each group: [G, M] both."""
    size = (int(groups.max()) + 1, values.shape[1])
    sums, counts = np.zeros(size), np.zeros(size)
    np.add.at(sums, groups, np.nan_to_num(values))
    np.add.at(counts, groups, ~np.isnan(values))
    return sums, counts


def _draws(groups: int, seed: int, resamples: int, width: int = 0) -> Iterator[Array]:
    """How often each group is in each resample: chunks of [rows, G] float64, R rows in all (see bootstrap_means)."""
    rows = max(1, CHUNK // max(groups, width))
    all_there_are = groups**groups <= COUNTED
    rng, every = np.random.default_rng(seed), itertools.product(range(groups), repeat=groups)
    number = groups**groups if all_there_are else resamples
    for first in range(0, number, rows):
        size = min(rows, number - first)
        if all_there_are:
            drawn = np.array(list(itertools.islice(every, size)))
        else:
            drawn = rng.integers(0, groups, size=(size, groups))
        drawn = drawn + np.arange(size)[:, None] * groups
        yield np.bincount(drawn.ravel(), minlength=size * groups).reshape(size, groups).astype(np.float64)
