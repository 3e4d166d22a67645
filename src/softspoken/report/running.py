"""The evaluations of a run on its way (eval_every) → a chart for each of their figures, with what was kept and what must not be lost."""

from __future__ import annotations

from html import escape
from typing import Any

from softspoken.report.charts import FIXED, PALETTE, Chart, short
from softspoken.report.curves import Metrics, in_words, over_steps
from softspoken.report.measures import HUMAN, REWARD, in_sentence, measure_of
from softspoken.tasks.task import Guard, Measure, Task

PREFIX = "eval/"


def running_curves(metrics: Metrics, task: Task, end: dict[str, Any] | None) -> list[Chart]:
    """The objective first, then the guards, the reward and the rest. Before a run's end it is not known what it kept, nor what it
    started from."""
    start = (end or {}).get("start", {})
    rows = [{"step": 0, **{f"{PREFIX}{name}": figure for name, figure in start.items()}}, *metrics]
    found = {name.removeprefix(PREFIX) for row in metrics for name in row if name.startswith(PREFIX)}
    first = [task.objective.metric, *(guard.metric for guard in task.guards), REWARD]
    names = [*(name for name in dict.fromkeys(first) if name in found), *sorted(found - {*first})]
    return [_curve(rows, name, task, end) for name in names]


def _curve(rows: Metrics, name: str, task: Task, end: dict[str, Any] | None) -> Chart:
    key, known = f"{PREFIX}{name}", measure_of(name, task)
    seen = {row["step"]: row[key] for row in rows if key in row}
    guard = next((guard for guard in task.guards if guard.metric == name), None)
    traces = [_line(known.label, seen, PALETTE[0])]
    if end and end["kept"] in seen and end["kept"]:
        traces.append(_mark("kept", end["kept"], seen[end["kept"]]))
    if guard and 0 in seen:
        traces += [_limit("margin", value, [0, max(seen)]) for value in _limits(guard, seen[0])]
    note = f"{known.explanation or in_sentence(known)}{_which_way(known, guard)}"
    return Chart(known.label, note, in_words(rows, key, known.label), traces, over_steps(len(traces) > 1))


def _which_way(known: Measure, guard: Guard | None) -> str:
    if guard:
        return f"; must not be lost by more than {guard.margin:g}"
    return f"; {known.better} is better" if known.better else ""


def _limits(guard: Guard, start: float) -> list[float]:
    """Beyond which a guard counts as lost."""
    down, up = start - guard.margin, start + guard.margin
    return {"higher": [down], "lower": [up], "": [down, up]}[guard.better]


def _line(label: str, seen: dict[float, float], colour: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": [*seen],
        "y": [short(value) for value in seen.values()],
        "name": escape(label),
        "line": {"color": colour, "width": 2},
        "hovertemplate": f"%{{y:.4g}}<extra>{escape(label)}</extra>",
    }


def _mark(name: str, step: int, value: float) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [step],
        "y": [short(value)],
        "name": name,
        "marker": {"color": PALETTE[3], "size": 13, "symbol": "star"},
        "hovertemplate": f"these weights are {name}<extra></extra>",
    }


def _limit(name: str, value: float, steps: list[float]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": steps,
        "y": [short(value)] * 2,
        "name": name,
        "line": {"color": FIXED[HUMAN], "width": 1.5, "dash": "dot"},
        "hovertemplate": f"%{{y:.4g}}<extra>{name}</extra>",
    }
