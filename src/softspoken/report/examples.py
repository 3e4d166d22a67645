"""eval_rows.jsonl → histograms of toxicity and before/after examples, chosen by rule. The file is streamed: two passes, numbers
only in the first, the chosen rows' texts in the second."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softspoken.report.charts import BINS
from softspoken.report.measures import BASE
from softspoken.report.verdict import judged_systems
from softspoken.types import EvalReport

EACH = 3
"""Examples by each rule."""
BLUR_FROM = 0.1
"""Texts the judge finds this toxic are blurred until asked for."""


Numbers = tuple[float, float | None]
"""Toxicity and, where there is a reference, ROUGE-L of one summary."""


@dataclass(frozen=True)
class Text:
    label: str
    text: str
    toxicity: float | None
    rouge: float | None
    blurred: bool


@dataclass(frozen=True)
class Example:
    id: str
    dialogue: Text
    summaries: list[Text]
    """human, base, tuned."""


@dataclass(frozen=True)
class Choice:
    title: str
    examples: list[Example]


@dataclass(frozen=True)
class Rows:
    histograms: dict[tuple[str, str | None], list[int]]
    """(system, decoding) → how many summaries in each hundredth of the toxicity scale."""
    examples: list[Choice]


def read_rows(path: Path, report: EvalReport, seed: int = 0) -> Rows | None:
    """None where the rows are not there. Examples compare greedy summaries of the base and of the first tuned system."""
    if not path.is_file():
        return None
    tuned = next(iter(judged_systems(report)), None)
    histograms: dict[tuple[str, str | None], list[int]] = {}
    numbers: dict[str, dict[int, Numbers]] = {BASE: {}, tuned or BASE: {}}
    for row in _read(path):
        counts = histograms.setdefault((row["system"], row["decoding"]), [0] * BINS)
        counts[min(BINS - 1, int(BINS * row["metrics"]["toxicity"]))] += 1
        if row["decoding"] == "greedy" and row["system"] in numbers:
            # Of several trainings the first: its summary is the one shown.
            numbers[row["system"]].setdefault(row["row"], (row["metrics"]["toxicity"], row["metrics"].get("rougeL")))
    if tuned is None:
        return Rows(histograms, [])
    chosen = choose(numbers[BASE], numbers[tuned], seed)
    examples = _examples(path, {place for places in chosen.values() for place in places}, tuned)
    return Rows(histograms, [Choice(title, [examples[place] for place in places]) for title, places in chosen.items()])


def choose(before: dict[int, Numbers], after: dict[int, Numbers], seed: int) -> dict[str, list[int]]:
    """Rule → the dialogues it picks, by number; a dialogue is shown once, under the first rule that picks it."""
    places = sorted(before.keys() & after.keys())
    drop = {place: before[place][0] - after[place][0] for place in places}
    left = {place: after[place][0] for place in places}
    loss = {place: (before[place][1] or 0.0) - (after[place][1] or 0.0) for place in places}
    shuffled = places.copy()
    random.Random(seed).shuffle(shuffled)
    rules = {
        "Largest drop in toxicity": _largest(drop),
        "Largest toxicity that remains": _largest(left),
        "Largest loss of ROUGE-L": _largest(loss),
        f"Drawn at random (seed {seed})": shuffled,
    }
    chosen: dict[str, list[int]] = {}
    used: set[int] = set()
    for title, ranked in rules.items():
        chosen[title] = [place for place in ranked if place not in used][:EACH]
        used.update(chosen[title])
    return {title: found for title, found in chosen.items() if found}


def _largest(values: dict[int, float]) -> list[int]:
    return sorted((place for place, value in values.items() if value > 0), key=lambda place: -values[place])


def _examples(path: Path, places: set[int], tuned: str) -> dict[int, Example]:
    """The texts of the dialogues numbered `places`, the systems in the order of the file (human first)."""
    found: dict[int, list[dict[str, Any]]] = {place: [] for place in places}
    for row in _read(path):
        wanted = (row["system"] in (BASE, tuned) and row["decoding"] == "greedy") or row["decoding"] is None
        if wanted and row["row"] in places and all(one["system"] != row["system"] for one in found[row["row"]]):
            found[row["row"]].append(row)
    return {place: _example(rows) for place, rows in found.items()}


def _example(rows: list[dict[str, Any]]) -> Example:
    summaries = [
        Text(
            row["system"],
            row["summary"],
            row["metrics"]["toxicity"],
            row["metrics"].get("rougeL"),
            row["metrics"]["toxicity"] >= BLUR_FROM,
        )
        for row in rows
    ]
    abusive = "heated" in rows[0]["slices"] or any(summary.blurred for summary in summaries)
    return Example(rows[0]["id"], Text("dialogue", rows[0]["dialogue"], None, None, abusive), summaries)


def _read(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)
