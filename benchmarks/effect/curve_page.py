"""Results of the long run → its section and its picture."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.effect.figures import WAYS, Figure, Results, shown
from benchmarks.effect.settings import Settings

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
    if last.toxicity["high"] < middle.toxicity["low"]:
        return f"keeps going: toxicity is {shown(middle.toxicity)} at step {middle.step} and {shown(last.toxicity)} at the end"
    if last.toxicity["low"] > middle.toxicity["high"]:
        return f"turns back: toxicity is {shown(middle.toxicity)} at step {middle.step} and {shown(last.toxicity)} at the end"
    return f"reaches a plateau: toxicity is {shown(middle.toxicity)} at step {middle.step} and {shown(last.toxicity)} at the end"


def curve_section(settings: Settings, missing: Callable[[str, str], str], picture: str | None) -> str:
    results = Results.read(settings.results, "curve")
    if results is None:
        return missing("curve", "Ten times the budget: ")
    about = results.content["curve"]
    n, samples = results.content["dataset"]["n"], about["samples_a_step"]
    parts = [
        f"One run of {about['steps']} steps of {samples} samples, seed 0, the learning rate's schedule {about['schedule']} over all of them (so "
        f"its first steps are at a higher rate than a short run's last ones); its adapter as it was on the way, on {n} dialogues of the "
        f"validation split.\n\n    {about['command']}\n    {results.content['command']}",
        "\n".join(f"- {sentence}" for sentence in findings(results, samples)),
    ]
    if picture:
        parts.append(f"![Toxicity and ROUGE-L against samples seen]({picture})")
    return "\n\n".join([*parts, curve_table(results, about)])


def findings(results: Results, samples: int) -> list[str]:
    found = []
    for way in WAYS:
        points = points_of(results, way)
        if len(points) < 3:
            continue
        at = knee(points)
        where = f"Its knee is at step {at.step}, {at.step * samples:,} samples." if at else "Toxicity never falls."
        found.append(f"{way.capitalize()}, it {course(points)}. {where}")
    return [
        *found,
        f"The knee is the first snapshot with {100 * KNEE:.0f} % of the whole fall in toxicity behind it; the rest is by intervals "
        "that do not touch.",
    ]


def curve_table(results: Results, about: dict[str, Any]) -> str:
    header = [
        "steps",
        "samples",
        "toxicity, greedy",
        "sampled",
        "ROUGE-L, greedy",
        "sampled",
        "KL",
        "entropy",
        "words, sampled",
    ]
    rows = [header, ["---:"] * len(header)]
    ways = [{point.step: point for point in points_of(results, way)} for way in WAYS]
    for step in ways[0]:
        run = about["on_the_way"].get(str(step), {})
        words = results.metric("base" if step == 0 else f"step_{step:03d}", "sampled", "length")
        rows.append(
            [
                *(str(step), f"{step * about['samples_a_step']:,}"),
                *(shown(way[step].toxicity) if step in way else "–" for way in ways),
                *(shown(way[step].rouge, 1) if step in way else "–" for way in ways),
                *(f"{run[name]:.3f}" if name in run else "–" for name in ("objective/kl", "objective/entropy")),
                f"{words['mean']:.1f}" if words else "–",
            ]
        )
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"{table}\n\nKL (nats a token, to the base) and entropy are the run's own, means over the steps since the snapshot before."


# --------------------------------------------------------------------------------------------------------- picture


def draw(results: Results, picture: Path, work: Path) -> bool:
    """Toxicity above, ROUGE-L below, each with its interval; by headless Chromium. False, said aloud, where there is none and no
    picture of before either."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        print(f"no Chromium to draw {picture.name} with; install it and write the page again")
        return picture.is_file()
    page = work / "curve.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    figure(results).write_html(page, include_plotlyjs=True, config={"staticPlot": True})
    command: list[Any] = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [
        "--window-size=1020,660",
        "--virtual-time-budget=8000",
        f"--user-data-dir={(work / 'chromium').resolve()}",
    ]
    subprocess.run(
        [*command, f"--screenshot={picture.resolve()}", page.resolve().as_uri()], check=True, capture_output=True
    )
    return True


def figure(results: Results) -> Any:
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
    drawing.update_layout(template="plotly_white", width=1000, height=640, margin={"t": 40, "b": 60, "l": 60, "r": 20})
    drawing.update_layout(legend={"orientation": "h", "y": 1.08}, font={"size": 13})
    return drawing
