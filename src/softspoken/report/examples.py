"""eval_rows.jsonl → histograms of the objective and before/after examples, chosen by rule. The file is streamed: two passes, numbers
only in the first, the chosen rows' texts in the second."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softspoken.report.charts import BINS
from softspoken.report.measures import BASE, in_sentence, measure, scale_of, task_of, written
from softspoken.report.verdict import judged_systems
from softspoken.types import EvalReport

EACH = 3
"""Examples by each rule."""
BLUR_FROM = 0.1
"""Texts the judge finds this toxic are blurred until asked for."""

Numbers = tuple[float, float | None]
"""The objective and, where it was measured, the first guard of one response."""


@dataclass(frozen=True)
class Text:
    label: str
    text: str
    figures: list[str]
    """The objective and the first guard, as they are written."""
    blurred: bool


@dataclass(frozen=True)
class Example:
    id: str
    text: Text
    responses: list[Text]
    """human, base, tuned."""


@dataclass(frozen=True)
class Choice:
    title: str
    examples: list[Example]


@dataclass(frozen=True)
class Rows:
    histograms: dict[tuple[str, str | None], list[int]]
    """(system, decoding) → how many responses in each hundredth of the objective's scale; empty where it has none."""
    examples: list[Choice]


def read_rows(path: Path, report: EvalReport, seed: int = 0) -> Rows | None:
    """None where the rows are not there. Examples compare greedy responses of the base and of the first tuned system."""
    if not path.is_file():
        return None
    task = task_of(report)
    objective, guard = task.objective, next(iter(task.guards), None)
    top = scale_of(measure(objective.metric, report))
    tuned = next(iter(judged_systems(report)), None)
    histograms: dict[tuple[str, str | None], list[int]] = {}
    numbers: dict[str, dict[int, Numbers]] = {BASE: {}, tuned or BASE: {}}
    for row in read_lines(path):
        value = row["metrics"].get(objective.metric)
        if value is None:  # it takes a reference, and there is none
            continue
        if top:
            counts = histograms.setdefault((row["system"], row["decoding"]), [0] * BINS)
            counts[min(BINS - 1, int(BINS * value / top))] += 1
        if row["decoding"] == "greedy" and row["system"] in numbers:
            # Of several trainings the first: its response is the one shown.
            kept = row["metrics"].get(guard.metric) if guard else None
            numbers[row["system"]].setdefault(row["row"], (value, kept))
    if tuned is None:
        return Rows(histograms, [])
    chosen = choose(numbers[BASE], numbers[tuned], report, seed)
    examples = _examples(path, {place for places in chosen.values() for place in places}, tuned, report)
    return Rows(histograms, [Choice(title, [examples[place] for place in places]) for title, places in chosen.items()])


def choose(
    before: dict[int, Numbers], after: dict[int, Numbers], report: EvalReport, seed: int
) -> dict[str, list[int]]:
    """Rule → the examples it picks, by number; an example is shown once, under the first rule that picks it."""
    task = task_of(report)
    lower, guard = task.objective.better == "lower", next(iter(task.guards), None)
    name = in_sentence(measure(task.objective.metric, report))
    places = sorted(before.keys() & after.keys())
    rise = {place: after[place][0] - before[place][0] for place in places}
    fall = {place: -change for place, change in rise.items()}
    shuffled = places.copy()
    random.Random(seed).shuffle(shuffled)
    if lower:
        left = {place: after[place][0] for place in places}
        rules = {f"Largest drop in {name}": _largest(fall), f"Largest {name} that remains": _largest(left)}
    else:
        rules = {f"Largest rise in {name}": _largest(rise), f"Largest loss of {name}": _largest(fall)}
    if guard and guard.better:
        sign = 1 if guard.better == "higher" else -1
        loss = {place: sign * ((before[place][1] or 0.0) - (after[place][1] or 0.0)) for place in places}
        rules[f"Largest loss of {in_sentence(measure(guard.metric, report))}"] = _largest(loss)
    rules[f"Drawn at random (seed {seed})"] = shuffled
    chosen: dict[str, list[int]] = {}
    used: set[int] = set()
    for title, ranked in rules.items():
        chosen[title] = [place for place in ranked if place not in used][:EACH]
        used.update(chosen[title])
    return {title: found for title, found in chosen.items() if found}


def _largest(values: dict[int, float]) -> list[int]:
    return sorted((place for place, value in values.items() if value > 0), key=lambda place: -values[place])


def _examples(path: Path, places: set[int], tuned: str, report: EvalReport) -> dict[int, Example]:
    """The texts of the examples numbered `places`, the systems in the order of the file (human first)."""
    found: dict[int, list[dict[str, Any]]] = {place: [] for place in places}
    for row in read_lines(path):
        wanted = (row["system"] in (BASE, tuned) and row["decoding"] == "greedy") or row["decoding"] is None
        # Of several trainings the first one's; of several references each.
        shown = any(one["system"] == row["system"] and row["decoding"] for one in found.get(row["row"], []))
        if wanted and row["row"] in places and not shown:
            found[row["row"]].append(row)
    return {place: _example(rows, report) for place, rows in found.items()}


def _example(rows: list[dict[str, Any]], report: EvalReport) -> Example:
    task = task_of(report)
    shown = [task.objective.metric, *(guard.metric for guard in task.guards[:1])]
    responses = [
        Text(
            row["system"],
            row[task.words.response],
            [_figure(metric, row["metrics"][metric], report) for metric in shown if metric in row["metrics"]],
            row["metrics"].get("toxicity", 0.0) >= BLUR_FROM,
        )
        for row in rows
    ]
    # What is to be made harmless is taken for harmful; elsewhere a text is as harmless as what was made of it.
    abusive = "heated" in rows[0]["slices"] or any(one.blurred for one in responses)
    return Example(rows[0]["id"], Text(task.words.text, rows[0][task.words.text], [], abusive), responses)


def _figure(metric: str, value: float, report: EvalReport) -> str:
    known = measure(metric, report)
    return f"{in_sentence(known)} {written(known, value)}"


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)
