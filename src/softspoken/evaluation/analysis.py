"""eval_rows.jsonl → the figures of eval.json: each system's means with their intervals, and the differences between systems.

A dialogue's value is the mean over its samples: they are no more independent than rows of a group. Nothing but the rows goes
into it, so an evaluation that was stopped and gone on with ends in the same figures.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import combinations, groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softspoken.data.words import words
from softspoken.evaluation import resampling
from softspoken.evaluation.metrics import Slices, ngrams
from softspoken.evaluation.resampling import Array, Groups
from softspoken.types import Comparison, Decoding, SliceResult, SystemResult

BASE = "base"
P99_FROM = 1_000
"""Summaries from which a 99th percentile means something."""
WORST = {"expected_max_toxicity": "toxicity", "toxicity_probability": "toxic_rate"}
"""Of several samples, the largest (RealToxicityPrompts' metrics, Gehman et al. 2020)."""
DISTINCT = {"distinct_1": 1, "distinct_2": 2}


@dataclass(frozen=True)
class Measured:
    """What is kept of one training of a system and one way of decoding: numbers only."""

    system: str
    decoding: Decoding | None
    values: dict[str, Array]
    """metric → [dialogues, samples]; NaN where there is no such value (the dialogue has no reference, say)."""
    pieces: dict[str, tuple[NDArray[np.int64], Groups]] = field(default_factory=dict)
    """distinct_N → hash and group of each N-gram that was written."""


@dataclass(frozen=True)
class _Entry:
    """The trainings of a system decoded in one way."""

    system: str
    decoding: Decoding | None
    trainings: list[Measured]

    @property
    def samples(self) -> int:
        return next(iter(self.trainings[0].values.values())).shape[1]


@dataclass(frozen=True)
class _Column:
    """One metric of one entry in a slice."""

    place: int
    """The entry's number."""
    table: Array
    """[dialogues, trainings], each the mean over samples; NaN where there is none."""
    draws: Array
    """[resamples], bootstrap means; the same resamples in every column of a slice, which pairs them."""

    @property
    def values(self) -> Array:
        """[dialogues], the mean over samples and trainings."""
        return _over_samples(self.table)


def collect(
    rows: Iterable[dict[str, Any]],
    groups: Groups,
    samples: dict[tuple[str, Decoding | None], int],
    response: str = "summary",
) -> list[Measured]:
    """The numbers in the rows; `samples`: how many responses to an example each system and way of decoding has; `response`:
    what the task calls one."""
    found = []
    for (system, decoding, _), own in groupby(rows, key=lambda row: (row["system"], row["decoding"], row["seed"])):
        shape = (len(groups), samples[system, decoding])
        values: dict[str, Array] = {}
        hashes = {name: (array("q"), array("q")) for name in DISTINCT}
        for row in own:
            for metric, value in row["metrics"].items():
                values.setdefault(metric, np.full(shape, np.nan))[row["row"], row["sample"] or 0] = value
            said = words(row[response])
            for name, size in DISTINCT.items():
                pieces = [hash(piece) for piece in ngrams(said, size)]
                hashes[name][0].extend(pieces)
                hashes[name][1].extend([groups[row["row"]]] * len(pieces))
        whole = {name: (np.array(h, dtype=np.int64), np.array(g, dtype=np.int64)) for name, (h, g) in hashes.items()}
        found.append(Measured(system, decoding, values, whole))
    return found


def analyse(
    measured: list[Measured], groups: Groups, slices: Slices, seed: int
) -> tuple[list[SystemResult], list[Comparison]]:
    """Intervals of every system in every slice; comparisons of the base with every other system in each slice, and of every
    other two on all dialogues."""
    keyed: dict[tuple[str, Decoding | None], list[Measured]] = {}
    for one in measured:
        keyed.setdefault((one.system, one.decoding), []).append(one)
    entries = [_Entry(system, decoding, trainings) for (system, decoding), trainings in keyed.items()]
    parts: list[dict[str, SliceResult]] = [{} for _ in entries]
    comparisons = []
    for name, members in slices.items():
        numbers = np.unique(groups[members], return_inverse=True)[1]
        columns = _columns(entries, members, numbers, seed)
        for entry, own, part in zip(entries, columns, parts, strict=True):
            part[name] = _result(entry, own, members, numbers, seed)
        comparisons += _compare(entries, columns, numbers, seed, name)
    return [_system(entry, part, groups) for entry, part in zip(entries, parts, strict=True)], comparisons


def _columns(entries: list[_Entry], members: NDArray[np.bool_], groups: Groups, seed: int) -> list[dict[str, _Column]]:
    """For each entry, metric → its values and its bootstrap means. All share each resample, which pairs them."""
    compared = next((one.samples for one in entries if (one.system, one.decoding) == (BASE, "sampled")), None)
    tables = []
    for entry in entries:
        metrics = list(dict.fromkeys(metric for one in entry.trainings for metric in one.values))
        values = {
            metric: [_over_samples(one.values[metric][members]) for one in entry.trainings if metric in one.values]
            for metric in metrics
        }
        if entry.decoding == "sampled" and entry.samples > 1 and entry.samples == (compared or entry.samples):
            for name, metric in WORST.items():
                if metric in values:
                    values[name] = [one.values[metric][members].max(axis=1) for one in entry.trainings]
        tables.append({metric: np.column_stack(rows) for metric, rows in values.items() if not np.isnan(rows).all()})
    named = [(place, metric, table) for place, own in enumerate(tables) for metric, table in own.items()]
    columns: list[dict[str, _Column]] = [{} for _ in entries]
    for (place, metric, _), column in zip(
        named, _drawn([(place, table) for place, _, table in named], entries, groups, seed), strict=True
    ):
        columns[place][metric] = column
    return columns


def _drawn(tables: list[tuple[int, Array]], entries: list[_Entry], groups: Groups, seed: int) -> list[_Column]:
    """Entries' numbers and tables [dialogues, trainings] → the same with their bootstrap means."""
    if not tables:
        return []
    every = resampling.bootstrap_means(np.column_stack([table for _, table in tables]), groups, seed=seed)
    several = any(len(entry.trainings) > 1 for entry in entries)
    columns, first = [], 0
    for place, table in tables:
        own = every[:, first : first + table.shape[1]].T
        first += table.shape[1]
        draws = resampling.over_seeds(own, seed=seed, system=place) if several else own[0]
        columns.append(_Column(place, table, draws))
    return columns


def _over_samples(values: Array) -> Array:
    """[n, K] → [n]: the mean of what there is."""
    there = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(there, values, 0.0).sum(axis=1) / there.sum(axis=1)


def _result(
    entry: _Entry, columns: dict[str, _Column], members: NDArray[np.bool_], groups: Groups, seed: int
) -> SliceResult:
    metrics = {metric: resampling.mean_interval(one.values, one.draws) for metric, one in columns.items()}
    judged = [one.values["toxicity"][members] for one in entry.trainings if "toxicity" in one.values]
    if judged and (~np.isnan(toxicity := np.column_stack(judged))).sum() >= P99_FROM:
        metrics["toxicity_p99"] = resampling.quantile_interval(toxicity, groups, 0.99, seed=seed)
    return SliceResult(int((~np.isnan(columns["length"].values)).sum()) if "length" in columns else 0, metrics)


def _system(entry: _Entry, parts: dict[str, SliceResult], groups: Groups) -> SystemResult:
    whole = parts["all"]
    for name in DISTINCT:
        pieces = [one.pieces[name] for one in entry.trainings if name in one.pieces]
        if pieces and (interval := resampling.distinct_interval(pieces, int(groups.max()) + 1)):
            whole.metrics[name] = interval
    slices = {name: part for name, part in parts.items() if name != "all" and part.n}
    return SystemResult(entry.system, entry.decoding, whole.n, whole.metrics, slices, len(entry.trainings))


def _compare(
    entries: list[_Entry], columns: list[dict[str, _Column]], groups: Groups, seed: int, slice_name: str
) -> list[Comparison]:
    generated = [place for place, entry in enumerate(entries) if entry.decoding]
    places = sorted(generated, key=lambda place: entries[place].system != BASE)
    pairs = [
        (metric, columns[a][metric], columns[b][metric])
        for a, b in combinations(places, 2)
        if entries[a].decoding == entries[b].decoding and (entries[a].system == BASE or slice_name == "all")
        for metric in columns[b]
        if metric in columns[a] and (_there(columns[a][metric]) & _there(columns[b][metric])).any()
    ]
    if not pairs:
        return []
    paired = _paired([(a, b) for _, a, b in pairs], entries, groups, seed)
    p_values = resampling.permutation_p_values(
        np.column_stack([b.values - a.values for a, b in paired]), groups, seed=seed
    )
    comparisons = []
    for (metric, *_), (a, b), p_value in zip(pairs, paired, p_values, strict=True):
        first, second = entries[a.place], entries[b.place]
        assert second.decoding
        both = a.values, b.values, a.draws, b.draws
        comparisons.append(
            Comparison(
                a=first.system,
                b=second.system,
                decoding=second.decoding,
                slice=slice_name,
                metric=metric,
                difference=resampling.difference_interval(*both),
                ratio=resampling.ratio_interval(*both),
                p_value=float(p_value),
                n=int(_there(a).sum()),
            )
        )
    return comparisons


def _paired(
    pairs: list[tuple[_Column, _Column]], entries: list[_Entry], groups: Groups, seed: int
) -> list[tuple[_Column, _Column]]:
    """Both columns of each pair with the dialogues alone for which all trainings of both have a value.

    A metric may be missing for some (a summary of three words has no 4-gram to copy): each system's own mean would then be
    over other dialogues than the other's, and their difference one between dialogues.
    """
    wanted = []
    for a, b in pairs:
        common = (_there(a) & _there(b))[:, None]
        wanted += [(one.place, np.where(common, one.table, np.nan)) for one in (a, b)]
    given = [one for pair in pairs for one in pair]
    fewer = [
        place for place, (one, (_, table)) in enumerate(zip(given, wanted, strict=True)) if _lacks(one.table, table)
    ]
    anew = dict(zip(fewer, _drawn([wanted[place] for place in fewer], entries, groups, seed), strict=True))
    found = [anew.get(place, one) for place, one in enumerate(given)]
    return list(zip(found[::2], found[1::2], strict=True))


def _there(column: _Column) -> NDArray[np.bool_]:
    """[dialogues]: for which every training has a value."""
    return np.asarray(~np.isnan(column.table).any(axis=1))


def _lacks(table: Array, part: Array) -> bool:
    return bool((np.isnan(part) & ~np.isnan(table)).any())
