"""eval_rows.jsonl → every example's greedy response before and after with its figures, bounded, for the page's table to search."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from markupsafe import Markup

from softspoken.report.examples import BLUR_FROM, read_lines
from softspoken.report.measures import BASE, REWARD, in_sentence, measure, slice_label, task_of
from softspoken.report.verdict import judged_systems
from softspoken.types import EvalReport

MOST_ROWS = 20_000
MOST_CHARACTERS = 16_000_000
"""Of all texts of the table together: half for what the encoder read, a quarter for the responses before and after each."""


def every_row(path: Path, report: EvalReport) -> dict[str, Any] | None:
    """The table as JSON holds it; None where there are no rows. Of several trainings of a system the first."""
    if not path.is_file():
        return None
    task = task_of(report)
    systems = [BASE, *judged_systems(report)[:1]]
    count = len({row["row"] for row in read_lines(path) if row["decoding"] == "greedy" and row["system"] in systems})
    if not count:
        return None
    kept = min(count, MOST_ROWS)
    longest = MOST_CHARACTERS // (2 * kept), MOST_CHARACTERS // (4 * kept)
    metrics = dict.fromkeys([task.objective.metric, REWARD, *(guard.metric for guard in task.guards)])
    found: dict[int, dict[str, Any]] = {}
    cut = 0
    for row in read_lines(path):
        if row["decoding"] != "greedy" or row["system"] not in systems:
            continue
        if row["row"] not in found and len(found) == kept:
            continue
        one = found.setdefault(row["row"], {})
        if not one:
            text, was_cut = _cut(row[task.words.text], longest[0])
            cut += was_cut
            one |= {"id": str(row["id"]), "parts": row["slices"][1:], "text": text, "responses": {}}
        if row["system"] not in one["responses"]:
            response, was_cut = _cut(row[task.words.response], longest[1])
            cut += was_cut
            values = [_short(row["metrics"].get(metric)) for metric in metrics]
            one["responses"][row["system"]] = [response, row["metrics"].get("toxicity", 0.0) >= BLUR_FROM, values]
    systems = [name for name in systems if any(name in one["responses"] for one in found.values())]
    parts = dict.fromkeys(part for one in found.values() for part in one["parts"])
    return {
        "systems": systems,
        "words": [task.words.text, task.words.texts],
        "metrics": [_column(metric, report) for metric in metrics],
        "parts": {part: slice_label(part, report)[0] for part in parts},
        "rows": [
            [
                one["id"],
                one["parts"],
                one["text"],
                # What is to be made harmless is taken for harmful, as in the examples.
                "heated" in one["parts"] or any(blurred for _, blurred, _ in one["responses"].values()),
                *[one["responses"].get(name) for name in systems],
            ]
            for _, one in sorted(found.items())
        ],
        "of": count,
        "cut": cut,
    }


def as_json(table: dict[str, Any]) -> Markup:
    """For a script element that is data alone: nothing in it can end the element."""
    text = json.dumps(table, ensure_ascii=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))


def _column(metric: str, report: EvalReport) -> dict[str, str]:
    known = measure(metric, report)
    return {"key": metric, "label": in_sentence(known), "form": known.form, "better": known.better}


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def _cut(text: str, longest: int) -> tuple[str, bool]:
    return (text, False) if len(text) <= longest else (text[: longest - 1] + "…", True)
