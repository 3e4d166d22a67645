"""Records → docs/time-to-effect.md, as time-to-effect.md.j2 has it, and its picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from plotly.subplots import make_subplots

from benchmarks.pages import MISSING, add_line, draw, fill, lay_out
from benchmarks.provenance import ROOT
from benchmarks.records import Record, read_json
from benchmarks.speed.load import LIMIT
from benchmarks.time_to_effect import arrival
from benchmarks.time_to_effect.arrival import FIFTH, Point, Ratio, remaining_toxicity
from benchmarks.time_to_effect.runs import point_of, points_of, time_to_effect
from softspoken.report.charts import PALETTE

RESULTS = Path(__file__).parent / "results"
PAGE = ROOT / "docs" / "time-to-effect.md"
PICTURE = ROOT / "docs" / "time-to-effect.png"
RATES = {1.41e-5: "its defaults", 1e-3: "best learning rate of the grid"}
"""TRL's, measured with every seed. Of 1.41e-5, 1e-4, 1e-3 and 4e-3 with seed 0, none arrived and 1e-3 came furthest."""
GOAL = 10.0
"""Times sooner, of issue 3."""


def read_records(results: Path) -> tuple[Record, list[Record]]:
    """The base's record, and those of the runs: softspoken first, then TRL by learning rate, each by seed."""
    base = read_json(results / "base.json")
    if base is None:
        raise SystemExit(f"nothing was measured yet: {results} has no base.json; run this without `page`")
    found = (read_json(path) for path in results.glob("*-seed*.json"))
    runs = [record for record in found if record and record["dialogues"] == base["dialogues"]]
    return base, sorted(runs, key=lambda one: (_rate(one) or 0.0, one["run"]["seed"]))


def page(base_record: Record, runs: list[Record]) -> str:
    base = point_of(base_record["point"])
    times = {rate: [time_to_effect(one, base) for one in runs if _rate(one) == rate] for rate in (None, *RATES)}
    return fill(
        Path(__file__).with_name("time-to-effect.md.j2"),
        **vars(arrival) | globals() | base_record,
        runs=runs,
        defaults=runs[0]["defaults"] if runs else {},
        times={rate: found for rate, found in times.items() if found},
        rows=[_row(record, base) for record in runs],
        most_load=max((record["others"] for record in runs), default=0.0),
    )


def verdict(sooner: Ratio | None) -> str:
    if sooner is None:
        return "missed"
    return "reached" if sooner.value >= GOAL else "not shown" if sooner.at_least else "missed"


def _row(record: Record, base: Point) -> list[str]:
    points, time = points_of(record), time_to_effect(record, base)
    step = next((str(point.step) for point in points if not time.censored and point.seconds == time.seconds), MISSING)
    left = remaining_toxicity(points, base)
    return [
        _side(record) + (" \\*" if record["others"] > LIMIT else ""),
        f"{_rate(record) or record['defaults']['learning_rate']:g}",
        str(record["run"]["seed"]),
        str(time),
        step,
        f"{record['seconds'] / record['steps']:.1f}" if record["steps"] else MISSING,
        f"{record['seconds']:.0f} s" + (", diverged" if record["diverged"] else ""),
        f"{left:.2f}" if left < float("inf") else MISSING,
    ]


def _side(record: Record) -> str:
    return "softspoken" if record["run"]["side"] == "softspoken" else "TRL 0.11.4"


def _rate(record: Record) -> float | None:
    return record["run"]["learning_rate"]


# -------------------------------------------------------------------------------------------------------- picture


def figure(base_record: Record, runs: list[Record]) -> Any:
    """Toxicity against seconds of training, greedy and sampled; a line for each run, a star where it has arrived."""
    base = point_of(base_record["point"])
    colours = dict(zip(dict.fromkeys(map(_rate, runs)), PALETTE, strict=False))
    drawing = make_subplots(
        1, 2, subplot_titles=["decoded greedily", "sampled at temperature 1"], horizontal_spacing=0.05
    )
    named = set()
    for record in runs:
        rate, points, time = _rate(record), points_of(record), time_to_effect(record, base)
        label = _side(record) + (f", learning rate {rate:g}" if rate else "")
        x, line = [point.seconds for point in points], {"color": colours[rate], "width": 2}
        for column, decoding in enumerate(("greedy", "sampled"), start=1):
            y = [getattr(point, decoding).toxicity for point in points]
            legend = {"legendgroup": label, "showlegend": column == 1 and rate not in named}
            add_line(drawing, (1, column), x, y, label, line, marker={"size": 4}, **legend)
            if not time.censored:
                star, at = {"symbol": "star", "size": 15, "color": colours[rate]}, y[x.index(time.seconds)]
                add_line(
                    drawing,
                    (1, column),
                    [time.seconds],
                    [at],
                    None,
                    None,
                    mode="markers",
                    marker=star,
                    showlegend=False,
                )
        named.add(rate)
    for column, figures in enumerate((base.greedy, base.sampled), start=1):
        drawing.add_hline(figures.toxicity, line={"color": "#dd7a1f", "dash": "dot"}, row=1, col=column)
        drawing.add_hline(FIFTH * figures.toxicity, line={"color": "#444", "dash": "dash"}, row=1, col=column)
    ticks = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000]
    drawing.update_xaxes(type="log", tickvals=ticks, ticktext=list(map(str, ticks)), title_text="seconds of training")
    drawing.update_yaxes(rangemode="tozero")
    drawing.update_yaxes(title_text="mean toxicity (dotted: base; dashed: a fifth)", row=1, col=1)
    lay_out(drawing, 1600, 620, top=80, legend=1.15, font=12)
    return drawing


def write_page(results: Path) -> None:
    """And to the terminal; results that lie elsewhere than the project's own go there alone."""
    base, runs = read_records(results)
    text, own = page(base, runs), results.resolve() == RESULTS.resolve()
    print(text)
    if own:
        PAGE.write_text(text, encoding="utf-8")
    draw(figure(base, runs), PICTURE if own else results / PICTURE.name)
