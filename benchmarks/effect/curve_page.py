"""Results of the long run → its section and its picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks.effect.figures import WAYS, Figure, Results, shown
from benchmarks.pages import MISSING, Row, lay_out, table

KNEE = 0.9
"""The knee is the first point that has this share of the whole fall in toxicity behind it."""


@dataclass(frozen=True)
class Point:
    """A snapshot decoded in one way."""

    step: int
    toxicity: Figure
    rouge: Figure


def points_of(results: Results, way: str) -> list[Point]:
    """The base first, as step 0."""
    found = []
    for name in results.names:
        part = results.part(name, way)
        if part and (name == "base" or name.startswith("step_")):
            step = 0 if name == "base" else int(name.removeprefix("step_"))
            found.append(Point(step, part["metrics"]["toxicity"], part["metrics"]["rougeL"]))
    return sorted(found, key=lambda point: point.step)


def knee(points: list[Point]) -> Point | None:
    """None where toxicity never falls."""
    start, lowest = points[0].toxicity["mean"], min(point.toxicity["mean"] for point in points)
    enough = start - KNEE * (start - lowest)
    return next((point for point in points if point.toxicity["mean"] <= enough), None) if lowest < start else None


def course(points: list[Point]) -> str:
    """Collapse: the last ROUGE-L lies, interval and all, below the best one's. Keeps going: the last toxicity lies below that at
    half way. Otherwise a plateau."""
    last, best = points[-1], max(points, key=lambda point: point.rouge["mean"])
    middle = max((point for point in points if point.step <= last.step / 2), key=lambda point: point.step)
    if last.rouge["high"] < best.rouge["low"]:
        return f"collapses: ROUGE-L is {shown(best.rouge, 1)} at step {best.step} and {shown(last.rouge, 1)} at the end"
    goes = "reaches a plateau"
    if last.toxicity["high"] < middle.toxicity["low"]:
        goes = "keeps going"
    elif last.toxicity["low"] > middle.toxicity["high"]:
        goes = "turns back"
    return f"{goes}: toxicity is {shown(middle.toxicity)} at step {middle.step} and {shown(last.toxicity)} at the end"


def findings(results: Results) -> list[str]:
    found = []
    for way in WAYS:
        points = points_of(results, way)
        if len(points) < 3:
            continue
        at, samples = knee(points), results.content["curve"]["samples_a_step"]
        where = f"Its knee is at step {at.step}, {at.step * samples:,} samples." if at else "Toxicity never falls."
        found.append(f"{way.capitalize()}, it {course(points)}. {where}")
    return found


def curve_table(results: Results) -> str:
    ways = [{point.step: point for point in points_of(results, way)} for way in WAYS]
    return table([curve_row(results, step, [points.get(step) for points in ways]) for step in ways[0]], left=0)


def curve_row(results: Results, step: int, points: list[Point | None]) -> Row:
    """`points` are those of the step, decoded in each way."""
    about = results.content["curve"]
    run = about["on_the_way"].get(str(step), {})
    kl, entropy = (f"{run[name]:.3f}" if name in run else MISSING for name in ("objective/kl", "objective/entropy"))
    words = results.metric(f"step_{step:03d}" if step else "base", "sampled", "length")
    greedy, sampled = points
    return [
        ("steps", str(step)),
        ("samples", f"{step * about['samples_a_step']:,}"),
        ("toxicity, greedy", shown(greedy and greedy.toxicity)),
        ("sampled", shown(sampled and sampled.toxicity)),
        ("ROUGE-L, greedy", shown(greedy and greedy.rouge, 1)),
        ("sampled", shown(sampled and sampled.rouge, 1)),
        ("KL", kl),
        ("entropy", entropy),
        ("words, sampled", f"{words['mean']:.1f}" if words else MISSING),
    ]


def figure(results: Results) -> Any:
    """Toxicity above, ROUGE-L below, each with its interval."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    from softspoken.report.charts import PALETTE

    drawing = make_subplots(2, 1, shared_xaxes=True, vertical_spacing=0.06)
    samples = results.content["curve"]["samples_a_step"]
    for way, colour in zip(WAYS, (PALETTE[0], PALETTE[3]), strict=True):
        points = points_of(results, way)
        for row, name in ((1, "toxicity"), (2, "rouge")):
            values: list[Figure] = [getattr(point, name) for point in points]
            error = {
                "array": [value["high"] - value["mean"] for value in values],
                "arrayminus": [value["mean"] - value["low"] for value in values],
                "thickness": 1,
                "width": 3,
            }
            x = [point.step * samples for point in points]
            trace = go.Scatter(x=x, y=[value["mean"] for value in values], error_y=error, name=way, showlegend=row == 1)
            trace.update(mode="lines+markers", line={"color": colour})
            drawing.add_trace(trace, row, 1)
    drawing.update_yaxes(title_text="toxicity", rangemode="tozero", row=1)
    drawing.update_yaxes(title_text="ROUGE-L, points", row=2)
    drawing.update_xaxes(title_text="samples seen", row=2)
    lay_out(drawing, 1000, 640, top=40, legend=1.08, font=13)
    return drawing
