"""Results of the long run → its section and its picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from plotly.subplots import make_subplots

from benchmarks.effect.figures import WAYS, Figure, Results, shown
from benchmarks.pages import add_line, lay_out
from softspoken.report.charts import PALETTE

KNEE = 0.9
"""The knee is the first point that has this share of the whole fall in toxicity behind it."""


@dataclass(frozen=True)
class Point:
    """A snapshot decoded in one way."""

    step: int
    toxicity: Figure
    rouge: Figure
    words: float = 0.0
    """Of a summary, on average."""


def points_of(results: Results, way: str) -> list[Point]:
    """The base first, as step 0."""
    found = []
    for name in results.names:
        part = results.part(name, way)
        if part and (name == "base" or name.startswith("step_")):
            step, metrics = 0 if name == "base" else int(name.removeprefix("step_")), part["metrics"]
            found.append(Point(step, metrics["toxicity"], metrics["rougeL"], metrics["length"]["mean"]))
    return sorted(found, key=lambda point: point.step)


def curve_points(results: Results) -> list[tuple[Point, ...]]:
    """Each snapshot decoded in each way."""
    return list(zip(*(points_of(results, way) for way in WAYS), strict=True))


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
        at, samples = knee(points), results.content["curve"]["samples_a_step"]
        where = f"Its knee is at step {at.step}, {at.step * samples:,} samples." if at else "Toxicity never falls."
        found.append(f"{way.capitalize()}, it {course(points)}. {where}")
    return found


def figure(results: Results) -> Any:
    """Toxicity above, ROUGE-L below, each with its interval."""
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
            x, y = [point.step * samples for point in points], [value["mean"] for value in values]
            add_line(drawing, (row, 1), x, y, way, {"color": colour}, error_y=error, showlegend=row == 1)
    drawing.update_yaxes(title_text="toxicity", rangemode="tozero", row=1)
    drawing.update_yaxes(title_text="ROUGE-L, points", row=2)
    drawing.update_xaxes(title_text="samples seen", row=2)
    lay_out(drawing, 1000, 640, top=40, legend=1.08, font=13)
    return drawing
