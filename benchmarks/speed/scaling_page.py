"""Scaling: records → the section of docs/speed.md and its picture."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

from benchmarks.pages import fill, lay_out, lines
from benchmarks.records import Record
from benchmarks.speed.cells import SCOPES, Cell, Scope
from benchmarks.speed.figures import Results
from benchmarks.speed.floor import cell_flops
from benchmarks.speed.sweeps import LONG_RUN, ROUNDS, START, SWEEPS, Sweep


def growth(first: tuple[float, float], last: tuple[float, float]) -> float:
    """The exponent p of cost ∝ size^p between two points (size, cost): 1 is linear."""
    return math.log(last[1] / first[1]) / math.log(last[0] / first[0])


def scaling_section(records: list[Record]) -> str:
    """For docs/speed.md; empty where nothing was measured."""
    results = Results(records)
    measured = [(sweep, scope, results.measured(sweep.cells(scope))) for sweep in SWEEPS for scope in SCOPES]
    rows = [_sweep_row(results, sweep, scope, cells) for sweep, scope, cells in measured if len(cells) > 1]
    if not rows or results.machine is None:
        return ""
    return fill(
        Path(__file__).with_name("scaling.md.j2"),
        machine=results.machine,
        rounds=ROUNDS,
        start=START,
        steps=LONG_RUN,
        rows=lines(rows),
        long_run=long_run_rows(records) and long_run_words(long_run_rows(records)),
    )


def _sweep_row(results: Results, sweep: Sweep, scope: Scope, cells: list[Cell]) -> list[str]:
    def seconds(cell: Cell) -> float:
        return results.seconds(cell).mean

    places, ends = [sweep.place(cell) for cell in cells], (cells[0], cells[-1])
    costs = [[cost(cell) for cell in cells] for cost in (seconds, cell_flops, results.peak)]
    return [
        *(sweep.label, scope, f"{places[0]:.4g}", f"{places[-1]:.4g}"),
        " → ".join(f"{seconds(cell):.3g}" for cell in ends),
        " → ".join(f"{results.peak(cell) / 1e9:.2f}" for cell in ends),
        *(f"{growth(*list(zip(places, each, strict=True))[-2:]):.2f}" for each in costs),
    ]


def long_run_rows(records: list[Record]) -> list[dict[str, float]]:
    """step, bytes, seconds, every so many steps of the long run."""
    return next((record["rows"] for record in records if record["kind"] == "long_run"), [])


def long_run_words(rows: list[dict[str, float]]) -> str:
    """Mean memory over the second tenth of the run (everything has been touched by then) against its last tenth."""
    early, late = (
        statistics.fmean(row["bytes"] for row in rows if low * LONG_RUN < row["step"] <= high * LONG_RUN)
        for low, high in ((0.1, 0.2), (0.9, 1.0))
    )
    return (
        f"{early / 1e6:.0f} MB in steps {LONG_RUN // 10}–{LONG_RUN // 5} and {late / 1e6:.0f} MB in the last "
        f"{LONG_RUN // 10} ({late / early - 1:+.1%})"
    )


def figure(records: list[Record]) -> Any:
    """Time above, memory below; a column for each sweep and one for the long run."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    from softspoken.report.charts import PALETTE

    results, last = Results(records), len(SWEEPS) + 1
    drawing = make_subplots(2, last, vertical_spacing=0.08, horizontal_spacing=0.035)

    def line(
        place: tuple[int, int], x: list[float], y: list[float], name: str, colour: str, dash: str = "solid"
    ) -> None:
        mode = "lines+markers" if dash == "solid" and place[1] < last else "lines"
        trace = go.Scatter(x=x, y=y, name=name, mode=mode, showlegend=place == (1, 1))
        trace.update(line={"color": colour, "dash": dash})
        drawing.add_trace(trace, *place)

    for column, sweep in enumerate(SWEEPS, start=1):
        for scope, colour in zip(SCOPES, (PALETTE[0], PALETTE[3]), strict=True):
            if not (cells := results.measured(sweep.cells(scope))):
                continue
            x = [sweep.place(cell) for cell in cells]
            seconds = [results.seconds(cell).mean for cell in cells]
            operations = [cell_flops(cell) / cell_flops(cells[-1]) * seconds[-1] for cell in cells]
            line((1, column), x, seconds, f"adapter: {scope}", colour)
            line((1, column), x, operations, "growing as the operations", colour, dash="dot")
            line((2, column), x, [results.peak(cell) / 1e9 for cell in cells], scope, colour)
            drawing.update_xaxes(type="log", tickvals=x, ticktext=[f"{value:.0f}" for value in x], col=column)
        drawing.update_xaxes(title_text=sweep.label, row=2, col=column)
        drawing.update_yaxes(type="log", dtick=1, row=1, col=column)
    steps = long_run_rows(records)
    for row, name, unit in ((1, "seconds", 1.0), (2, "bytes", 1e9)):
        line((row, last), [one["step"] for one in steps], [one[name] / unit for one in steps], "long run", PALETTE[2])
    drawing.update_yaxes(rangemode="tozero", row=1, col=last)
    drawing.update_yaxes(rangemode="tozero", row=2)
    drawing.update_xaxes(title_text="steps done (tiny model)", row=2, col=last)
    drawing.update_yaxes(title_text="seconds a step", row=1, col=1)
    drawing.update_yaxes(title_text="peak memory, GB", row=2, col=1)
    lay_out(drawing, 1600, 620, top=40, legend=1.09, font=12)
    return drawing
