"""Numbers → Plotly figures as plain data: the page draws them; colours of text and grid come from its style sheet."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import Any

from softspoken.report.measures import (
    BASE,
    HUMAN,
    TOXICITY,
    TUNED,
    in_sentence,
    measure,
    scale_of,
    slice_label,
    task_of,
    written,
)
from softspoken.report.placing import place_labels
from softspoken.report.tables import Entry, part_of
from softspoken.tasks.task import Measure
from softspoken.types import EvalReport, Interval

PALETTE = ["#2f7fd6", "#8e5bd0", "#2a9d8f", "#c2456b", "#8a8f1f", "#5f6bc7", "#b0653a", "#3f9a4d"]
"""Of systems and runs, in turn; legible on white and on near-black."""
SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "star", "hexagon", "triangle-down"]
FIXED = {HUMAN: "#7d8b99", BASE: "#dd7a1f", TUNED: PALETTE[0]}
Styles = dict[str, tuple[str, str]]
"""System → its colour and its symbol."""
WORDS = "%{customdata}<extra></extra>"
"""A point says its own words, to the pointer and to the keyboard alike."""
BINS = 100
"""Of the counts of the objective, over its scale."""


@dataclass(frozen=True)
class Chart:
    title: str
    note: str
    """What the axis means, in a line."""
    summary: str
    """The chart in words, for who cannot see it."""
    traces: list[dict[str, Any]]
    layout: dict[str, Any]


# ------------------------------------------------------------------------------------------------- distributions


def distributions(
    counts: dict[tuple[str, str | None], list[int]], report: EvalReport, styles: Styles, shown: list[str]
) -> list[Chart]:
    """How many responses have how much of the objective, one chart for each way of decoding; `counts`: (system, decoding) →
    responses in each bin. Systems other than those `shown` wait in the legend to be clicked."""
    titles = {"greedy": "Decoded greedily", "sampled": "Sampled at temperature 1"}
    return [
        _distribution(
            {name: row for (name, how), row in counts.items() if how in (decoding, None)}, title, report, styles, shown
        )
        for decoding, title in titles.items()
        if any(how == decoding for _, how in counts)
    ]


def _distribution(
    counts: dict[str, list[int]], title: str, report: EvalReport, styles: Styles, shown: list[str]
) -> Chart:
    """The share of responses at or above each value. Where lower is better, on a logarithmic axis: ten times fewer is one line of
    the grid lower."""
    task = task_of(report)
    known, words, rare = measure(task.objective.metric, report), task.words, task.objective.better == "lower"
    top = scale_of(known) or 1.0
    traces, least = [], 1.0
    for name, row in counts.items():
        shares = [sum(row[place:]) / max(1, sum(row)) for place in range(BINS)]
        least = min([least, *filter(None, shares)])
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": [top * place / BINS for place in range(BINS)],
                "y": [short(share) if share or not rare else None for share in shares],  # a logarithm has no 0
                "name": escape(name),
                "visible": True if name in shown else "legendonly",
                "line": {
                    "color": styles[name][0],
                    "width": 1.8 if name == HUMAN else 2.6,
                    "shape": "hv",
                    "dash": "dot" if name == HUMAN else "solid",
                },
                "hovertemplate": f"%{{y:.2%}}<extra>{escape(name)}</extra>",
            }
        )
    said = "; ".join(
        f"{name}: {sum(row[BINS // 10 :]) / max(1, sum(row)):.1%} at {0.1 * top:g} or above, "
        f"{sum(row[BINS // 2 :]) / max(1, sum(row)):.1%} at {0.5 * top:g} or above"
        for name, row in counts.items()
    )
    ticks = [1, 0.1, 0.01, 0.001, 0.0001]
    y_axis: dict[str, Any] = {"range": [0, 1.03], "tickformat": ".0%"}
    if rare:
        y_axis = {
            "type": "log",
            "range": [math.log10(least) - 0.15, 0.08],
            "tickvals": ticks,
            "ticktext": [f"{100 * tick:g} %" for tick in ticks],
        }
    layout = {
        "xaxis": {
            "title": {"text": f"{in_sentence(known)} of a {words.response}"},
            "range": [0, round(top)],
            "tickformat": ".1f" if top == 1 else ".0f",
        },
        "yaxis": y_axis,
        "showlegend": True,
        "hovermode": "x unified",
    }
    much = "are so toxic" if known.group == TOXICITY else f"have so much {in_sentence(known)}"
    return Chart(title, f"share of the {words.responses} that {much} or more", f"{said}.", traces, layout)


# -------------------------------------------------------------------------------------------- systems on a plane


def plane(found: list[Entry], title: str, styles: Styles) -> list[Chart]:
    """The objective against the first guard, every system with its intervals; the human references, which have no guard that is
    measured against them, as a line. None for a task without a guard."""
    task = task_of(found[0].report)
    if not task.guards:
        return []
    guard, objective = task.guards[0].metric, task.objective.metric
    across, up = (next(iter(_known(metric, found)), None) for metric in (guard, objective))
    points = {
        entry.label: (entry.system.metrics[guard], entry.system.metrics[objective])
        for entry in found
        if entry.system.name != HUMAN and {guard, objective} <= entry.system.metrics.keys()
    }
    if not points or not across or not up:
        return []
    axes = across, up
    humans = [entry.system.metrics for entry in found if entry.system.name == HUMAN]
    references = [metrics[objective] for metrics in humans if objective in metrics][:1]
    x_range = _spread([end for x, _ in points.values() for end in (x.low, x.high)])
    top = max([y.high for _, y in points.values()] + [one.mean for one in references])
    y_range = [-0.05 * top, 1.12 * top] if top else [-0.05, 1.0]
    means = {name: (x.mean, y.mean) for name, (x, y) in points.items()}
    sides = place_labels(means, x_range, y_range)
    traces = [_point(name, x, y, axes, *styles[name], sides[name]) for name, (x, y) in points.items()]
    if references:
        traces.insert(0, _reference_line(references[0], up, x_range))
    words = "; ".join(
        f"{name}: {in_sentence(across)} {written(across, x)}, {in_sentence(up)} {_three(up, y)}"
        for name, (x, y) in means.items()
    )
    if references:
        words += f"; human references: {in_sentence(up)} {_three(up, references[0].mean)}"
    layout = {
        "xaxis": {"title": {"text": axis_title(across)}, "range": x_range, "showgrid": True},
        "yaxis": {"title": {"text": axis_title(up)}, "range": y_range},
        "showlegend": False,
        "hovermode": "closest",
    }
    lower = task.objective.better == "lower"
    better = ("lower is calmer" if objective == "toxicity" else "lower is better") if lower else "higher is better"
    note = f"{better}, further right keeps more; bars are 95 % intervals"
    return [Chart(title, note, f"{words}.", traces, layout)]


def _known(metric: str, found: list[Entry]) -> list[Measure]:
    return [measure(metric, entry.report) for entry in found if metric in entry.system.metrics]


def _three(known: Measure, value: float) -> str:
    return f"{value:.3f}" if known.form == "probability" else written(known, value)


def axis_title(known: Measure) -> str:
    return f"{known.label}, points" if known.form == "points" else in_sentence(known)


def _point(
    name: str, x: Interval, y: Interval, axes: tuple[Measure, Measure], colour: str, symbol: str, side: str
) -> dict[str, Any]:
    name = escape(name)
    across, up = axes
    return {
        "type": "scatter",
        "mode": "markers+text",
        "x": [short(x.mean)],
        "y": [short(y.mean)],
        "error_x": _whiskers([x], colour),
        "error_y": _whiskers([y], colour),
        "marker": {"color": colour, "size": 13, "symbol": symbol},
        "text": [name],
        "textposition": side,
        "textfont": {"size": 12},
        "cliponaxis": False,
        "name": name,
        "customdata": [f"{name}<br>{_in_words(up, y)}<br>{_in_words(across, x)}"],
        "hovertemplate": WORDS,
    }


def _in_words(known: Measure, interval: Interval) -> str:
    low, high = written(known, interval.low), written(known, interval.high)
    return f"{in_sentence(known)} {written(known, interval.mean)} ({low} to {high})"


def _reference_line(interval: Interval, known: Measure, x_range: list[float]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines+text",
        "x": x_range,
        "y": [short(interval.mean)] * 2,
        "text": [f"{HUMAN} references", ""],
        "textposition": "top right",
        "textfont": {"size": 11},
        "line": {"color": FIXED[HUMAN], "width": 1.5, "dash": "dot"},
        "name": HUMAN,
        "customdata": [f"human references<br>{in_sentence(known)} {written(known, interval.mean)}"] * 2,
        "hovertemplate": WORDS,
    }


def _whiskers(intervals: list[Interval], colour: str) -> dict[str, Any]:
    return {
        "type": "data",
        "symmetric": False,
        "array": [short(max(0.0, one.high - one.mean)) for one in intervals],
        "arrayminus": [short(max(0.0, one.mean - one.low)) for one in intervals],
        "color": colour,
        "thickness": 1.5,
        "width": 3,
    }


def _spread(values: list[float]) -> list[float]:
    low, high = min(values), max(values)
    room = 0.12 * (high - low) or 1.0
    return [low - room, high + room]


# ------------------------------------------------------------------------------------------------------- slices


def slice_chart(report: EvalReport, found: list[Entry], slices: list[str], title: str, styles: Styles) -> list[Chart]:
    """The objective in each part of the examples: a dot and its interval for each of a few systems."""
    task = task_of(report)
    metric, responses = task.objective.metric, task.words.responses
    known = measure(metric, report)
    traces, words = [], []
    for place, entry in enumerate(found):
        parts = [(row, name, part_of(entry.system, name)) for row, name in enumerate(slices)]
        dots = [(row, name, part.metrics[metric]) for row, name, part in parts if part and metric in part.metrics]
        if not dots:
            continue
        shift = 0.22 * (place - (len(found) - 1) / 2)  # beside each other, not over each other
        colour, symbol = styles[entry.label]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": [short(interval.mean) for _, _, interval in dots],
                "y": [row + shift for row, _, _ in dots],
                "error_x": _whiskers([interval for _, _, interval in dots], colour),
                "marker": {"color": colour, "size": 9, "symbol": symbol},
                "name": escape(entry.label),
                "customdata": [
                    f"{escape(entry.label)}<br>{slice_label(name, report)[0]}: {written(known, one.mean)} ({written(known, one.low)} to {written(known, one.high)})"
                    for _, name, one in dots
                ],
                "hovertemplate": WORDS,
            }
        )
        words.append(
            f"{entry.label}: "
            + ", ".join(f"{slice_label(name, report)[0]} {written(known, one.mean)}" for _, name, one in dots)
        )
    layout = {
        "xaxis": {"title": {"text": in_sentence(known)}, "rangemode": "tozero", "showgrid": True},
        "yaxis": {
            "tickvals": list(range(len(slices))),
            "ticktext": [slice_label(name, report)[0] for name in slices],
            "range": [len(slices) - 0.5, -0.5],
            "showgrid": False,
            "nticks": len(slices) + 1,
        },
        "showlegend": True,
        "hovermode": "closest",
    }
    note = f"mean {in_sentence(known)} of the {responses}; bars are 95 % intervals"
    return [Chart(title, note, f"{'; '.join(words)}.", traces, layout)] if traces else []


def system_styles(names: list[str]) -> Styles:
    """A colour and a symbol for each, the same in every chart of a page."""
    others = [name for name in dict.fromkeys(names) if name not in FIXED]
    free = PALETTE[1:] if TUNED in names else PALETTE
    colours = FIXED | {name: free[place % len(free)] for place, name in enumerate(others)}
    return {name: (colour, SYMBOLS[place % len(SYMBOLS)]) for place, (name, colour) in enumerate(colours.items())}


def short(value: float | None) -> float | None:
    """Five digits: a long run's curves are a page of digits otherwise."""
    return None if value is None else float(f"{value:.5g}")
