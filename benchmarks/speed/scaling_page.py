"""Scaling: records → the section of docs/speed.md and its picture."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

from plotly.subplots import make_subplots

from benchmarks.pages import add_line, fill, lay_out, lines
from benchmarks.records import Record
from benchmarks.speed import sweeps
from benchmarks.speed.cells import SCOPES, Cell, Scope
from benchmarks.speed.figures import Results
from benchmarks.speed.floor import cell_flops
from benchmarks.speed.sweeps import LONG_RUN, SWEEPS, Sweep
from softspoken.report.charts import PALETTE


def growth(first: tuple[float, float], last: tuple[float, float]) -> float:
    """The exponent p of cost ∝ size^p between two points (size, cost): 1 is linear."""
    return math.log(last[1] / first[1]) / math.log(last[0] / first[0])


def scaling_section(records: list[Record]) -> str:
    """For docs/speed.md; empty where nothing was measured."""
    results = Results(records)
    measured = [(sweep, scope, results.measured(sweep.cells(scope))) for sweep in SWEEPS for scope in SCOPES]
    rows = [_sweep_row(results, sweep, scope, cells) for sweep, scope, cells in measured if len(cells) > 1]
    long_run = long_run_rows(records) and long_run_words(long_run_rows(records))
    given = {"machine": results.machine, "rows": lines(rows), "long_run": long_run}
    return fill(Path(__file__).with_name("scaling.md.j2"), **vars(sweeps) | given) if rows and results.machine else ""


def _sweep_row(results: Results, sweep: Sweep, scope: Scope, cells: list[Cell]) -> list[str]:
    places, ends = [sweep.place(cell) for cell in cells], (cells[0], cells[-1])
    costs = [[cost(cell) for cell in cells] for cost in (results.step, cell_flops, results.peak)]
    return [
        *(sweep.label, scope, f"{places[0]:.4g}", f"{places[-1]:.4g}"),
        " → ".join(f"{results.step(cell):.3g}" for cell in ends),
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
    results, last = Results(records), len(SWEEPS) + 1
    drawing = make_subplots(2, last, vertical_spacing=0.08, horizontal_spacing=0.035)
    for column, sweep in enumerate(SWEEPS, start=1):
        for scope, colour in zip(SCOPES, (PALETTE[0], PALETTE[3]), strict=True):
            if not (cells := results.measured(sweep.cells(scope))):
                continue
            x, y = [sweep.place(cell) for cell in cells], [results.step(cell) for cell in cells]
            growing = [cell_flops(cell) / cell_flops(cells[-1]) * y[-1] for cell in cells]
            memory, solid = [results.peak(cell) / 1e9 for cell in cells], {"color": colour, "dash": "solid"}
            first, dotted = {"showlegend": column == 1}, {"color": colour, "dash": "dot"}
            add_line(drawing, (1, column), x, y, f"adapter: {scope}", solid, **first)
            add_line(drawing, (1, column), x, growing, "growing as the operations", dotted, mode="lines", **first)
            add_line(drawing, (2, column), x, memory, scope, solid, showlegend=False)
            drawing.update_xaxes(type="log", tickvals=x, ticktext=[f"{value:.0f}" for value in x], col=column)
        drawing.update_xaxes(title_text=sweep.label, row=2, col=column)
        drawing.update_yaxes(type="log", dtick=1, row=1, col=column)
    steps, long_run = long_run_rows(records), {"mode": "lines", "showlegend": False}
    for row, name, unit in ((1, "seconds", 1.0), (2, "bytes", 1e9)):
        x, y = [one["step"] for one in steps], [one[name] / unit for one in steps]
        add_line(drawing, (row, last), x, y, "long run", {"color": PALETTE[2], "dash": "solid"}, **long_run)
    drawing.update_yaxes(rangemode="tozero", row=1, col=last)
    drawing.update_yaxes(rangemode="tozero", row=2)
    drawing.update_xaxes(title_text="steps done (tiny model)", row=2, col=last)
    drawing.update_yaxes(title_text="seconds a step", row=1, col=1)
    drawing.update_yaxes(title_text="peak memory, GB", row=2, col=1)
    lay_out(drawing, 1600, 620, top=40, legend=1.09, font=12)
    return drawing
