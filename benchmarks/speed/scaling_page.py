"""Scaling: records → the section of docs/speed.md and its picture."""

from __future__ import annotations

import math
import shutil
import statistics
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.provenance import ROOT
from benchmarks.speed.cells import SCOPES, Cell, Scope
from benchmarks.speed.figures import Record, Results
from benchmarks.speed.floor import cell_flops
from benchmarks.speed.sweeps import LONG_RUN, ROUNDS, START, SWEEPS, Sweep


def growth(first: tuple[float, float], last: tuple[float, float]) -> float:
    """The exponent p of cost ∝ size^p between two points (size, cost): 1 is linear."""
    return math.log(last[1] / first[1]) / math.log(last[0] / first[0])


def scaling_section(records: list[Record]) -> str:
    """For docs/speed.md; empty where nothing was measured."""
    results = Results(records)
    rows = ["| against | adapter | from | to | s a step | peak GB | growth of time | of operations | of memory |"]
    rows.append("|---|---|---:|---:|---:|---:|---:|---:|---:|")
    for sweep in SWEEPS:
        for scope in SCOPES:
            cells = [cell for cell in sweep.cells(scope) if results.of(cell)]
            if len(cells) > 1:
                rows.append(_sweep_row(results, sweep, scope, cells))
    if len(rows) == 2 or results.machine is None:
        return ""
    machine = results.machine
    parts = [
        f"{machine['cpu']}, {machine['cores']} cores, torch {machine['torch']}; at most {ROUNDS} samples each. From flan-t5-small, "
        f"batch {START.batch}, SAMSum's lengths, {START.new_tokens} new tokens, one epoch, one thing is changed at a time. "
        "Growth is the exponent between the last two points, 1 being linear; that of operations is what theory asks for "
        "(`floor.py`; attention is quadratic in the dialogue's length).",
        "![Time and memory of a step](scaling.png)",
        "\n".join(rows),
    ]
    if steps := long_run_rows(records):
        parts.append(
            f"Over {LONG_RUN:,} steps of `softspoken train` on a tiny model its process held {long_run_words(steps)}."
        )
    return "\n\n".join(parts)


def _sweep_row(results: Results, sweep: Sweep, scope: Scope, cells: list[Cell]) -> str:
    def exponent(cost: Callable[[Cell], float]) -> str:
        before, last = ((sweep.place(cell), cost(cell)) for cell in cells[-2:])
        return f"{growth(before, last):.2f}"

    def seconds(cell: Cell) -> float:
        return results.seconds(cell).mean

    ends = cells[0], cells[-1]
    fields = [
        *(sweep.label, scope, *(f"{sweep.place(cell):.4g}" for cell in ends)),
        " → ".join(f"{seconds(cell):.3g}" for cell in ends),
        " → ".join(f"{results.peak(cell) / 1e9:.2f}" for cell in ends),
        *(exponent(cost) for cost in (seconds, cell_flops, results.peak)),
    ]
    return f"| {' | '.join(fields)} |"


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


def draw(records: list[Record], picture: Path) -> None:
    """Time above, memory below; a column for each sweep and one for the long run."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    from softspoken.report.charts import PALETTE

    results, last = Results(records), len(SWEEPS) + 1
    figure = make_subplots(2, last, vertical_spacing=0.08, horizontal_spacing=0.035)

    def line(
        row: int, column: int, x: list[float], y: list[float], name: str, colour: str, dash: str = "solid"
    ) -> None:
        style = {"color": colour, "dash": dash}
        mode = "lines+markers" if dash == "solid" and column < last else "lines"
        trace = go.Scatter(x=x, y=y, name=name, line=style, mode=mode, showlegend=row == column == 1)
        figure.add_trace(trace, row, column)

    for column, sweep in enumerate(SWEEPS, start=1):
        for scope, colour in zip(SCOPES, (PALETTE[0], PALETTE[3]), strict=True):
            cells = [cell for cell in sweep.cells(scope) if results.of(cell)]
            if not cells:
                continue
            x = [sweep.place(cell) for cell in cells]
            seconds = [results.seconds(cell).mean for cell in cells]
            operations = [cell_flops(cell) / cell_flops(cells[-1]) * seconds[-1] for cell in cells]
            line(1, column, x, seconds, f"adapter: {scope}", colour)
            line(1, column, x, operations, "growing as the operations", colour, dash="dot")
            line(2, column, x, [results.peak(cell) / 1e9 for cell in cells], scope, colour)
            figure.update_xaxes(type="log", tickvals=x, ticktext=[f"{value:.0f}" for value in x], col=column)
        figure.update_xaxes(title_text=sweep.label, row=2, col=column)
        figure.update_yaxes(type="log", dtick=1, row=1, col=column)
    steps = long_run_rows(records)
    for row, name, unit in ((1, "seconds", 1.0), (2, "bytes", 1e9)):
        line(row, last, [one["step"] for one in steps], [one[name] / unit for one in steps], "long run", PALETTE[2])
    figure.update_yaxes(rangemode="tozero", row=1, col=last)
    figure.update_yaxes(rangemode="tozero", row=2)
    figure.update_xaxes(title_text="steps done (tiny model)", row=2, col=last)
    figure.update_yaxes(title_text="seconds a step", row=1, col=1)
    figure.update_yaxes(title_text="peak memory, GB", row=2, col=1)
    figure.update_layout(template="plotly_white", width=1600, height=620, margin={"t": 40, "b": 60, "l": 60, "r": 20})
    figure.update_layout(legend={"orientation": "h", "y": 1.09}, font={"size": 12})
    page = ROOT / ".work" / "speed" / "scaling.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    figure.write_html(page, include_plotlyjs=True, config={"staticPlot": True})
    screenshot(page, picture)


def screenshot(page: Path, picture: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit(f"no Chromium to draw {picture.name} with; install it and draw again, or open {page}")
    command: list[Any] = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += ["--window-size=1620,640", "--virtual-time-budget=8000", f"--user-data-dir={page.parent / 'chromium'}"]
    subprocess.run([*command, f"--screenshot={picture}", page.as_uri()], check=True, capture_output=True)
