"""Records → docs/time-to-effect.md, as time-to-effect.md.j2 has it, and its picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.pages import MISSING, draw, fill, lay_out, lines
from benchmarks.provenance import ROOT
from benchmarks.records import Record, read_json
from benchmarks.speed.load import LIMIT
from benchmarks.time_to_effect.arrival import FIFTH, Point, Ratio, Time, median, ratio, remaining_toxicity
from benchmarks.time_to_effect.runs import WORK, point_of, points_of, time_to_effect

RESULTS = Path(__file__).parent / "results"
PAGE = ROOT / "docs" / "time-to-effect.md"
PICTURE = ROOT / "docs" / "time-to-effect.png"
TRL_DEFAULT = 1.41e-5
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


def best_rate(searched: list[Record], base: Point) -> float:
    """Of runs with one seed: the learning rate that arrived first or, where none did, that came furthest."""

    def rank(record: Record) -> tuple[float, ...]:
        time = time_to_effect(record, base)
        return (time.censored, remaining_toxicity(points_of(record), base) if time.censored else time.seconds)

    rate: float = min(searched, key=rank)["run"]["learning_rate"]
    return rate


@dataclass(frozen=True)
class Against:
    """The medians over seeds of TRL with one learning rate, against ours."""

    words: str
    rate: float
    median: Time
    seeds: int
    ratio: Ratio | None


def page(base_record: Record, runs: list[Record]) -> str:
    base = point_of(base_record["point"])
    ours = _times(runs, base, None)
    return fill(
        Path(__file__).with_name("time-to-effect.md.j2"),
        FIFTH=FIFTH,
        GOAL=GOAL,
        LIMIT=LIMIT,
        lines=lines,
        verdict=verdict,
        base=base_record,
        machine=base_record["machine"],
        runs=runs,
        defaults=runs[0]["defaults"] if runs else {},
        ours=median(ours) if ours else None,
        seeds=len(ours),
        against=against(runs, base, median(ours)) if ours else [],
        rows=[_row(record, base) for record in runs],
        most_load=max((record["others"] for record in runs), default=0.0),
    )


def against(runs: list[Record], base: Point, ours: Time) -> list[Against]:
    """TRL with its default and with its best learning rate, as far as they were measured."""
    searched = [record for record in runs if record["run"]["side"] == "legacy" and record["run"]["seed"] == 0]
    rates = {TRL_DEFAULT: "its defaults"}
    if searched:
        rates.setdefault(best_rate(searched, base), "best learning rate of the grid")
    found = {rate: _times(runs, base, rate) for rate in rates}
    return [
        Against(rates[rate], rate, median(times), len(times), ratio(ours, median(times)))
        for rate, times in found.items()
        if times
    ]


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
    rate: float | None = record["run"]["learning_rate"]
    return rate


def _times(runs: list[Record], base: Point, rate: float | None) -> list[Time]:
    return [time_to_effect(record, base) for record in runs if _rate(record) == rate]


# -------------------------------------------------------------------------------------------------------- picture


def figure(base_record: Record, runs: list[Record]) -> Any:
    """Toxicity against seconds of training, greedy and sampled; a line for each run, a star where it has arrived."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    from softspoken.report.charts import PALETTE

    base = point_of(base_record["point"])
    colours = dict(zip(dict.fromkeys(map(_rate, runs)), PALETTE, strict=False))
    drawing = make_subplots(
        1, 2, subplot_titles=["decoded greedily", "sampled at temperature 1"], horizontal_spacing=0.05
    )
    named = set()
    for record in runs:
        rate, points, time = _rate(record), points_of(record), time_to_effect(record, base)
        label = _side(record) + (f", learning rate {rate:g}" if rate else "")
        x = [point.seconds for point in points]
        for column, decoding in enumerate(("greedy", "sampled"), start=1):
            y = [getattr(point, decoding).toxicity for point in points]
            line = go.Scatter(x=x, y=y, name=label, legendgroup=label, showlegend=column == 1 and rate not in named)
            line.update(mode="lines+markers", marker={"size": 4}, line={"color": colours[rate], "width": 2})
            drawing.add_trace(line, 1, column)
            if not time.censored:
                star = go.Scatter(x=[time.seconds], y=[y[x.index(time.seconds)]], mode="markers", showlegend=False)
                star.update(marker={"symbol": "star", "size": 15, "color": colours[rate]})
                drawing.add_trace(star, 1, column)
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
    draw(figure(base, runs), PICTURE if own else results / PICTURE.name, WORK)
