"""What the pages of docs/ share: Markdown tables, templates that are filled, pictures."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from plotly.graph_objects import Scatter

from benchmarks.provenance import ROOT

Row = Sequence[tuple[str, str]]
"""The title of each column, and what stands under it."""
MISSING = "–"


def table(rows: Sequence[Row], left: int = 1) -> str:
    """In Markdown, its first `left` columns to the left and the others to the right."""
    header = [title for title, _ in rows[0]]
    marks = ["---"] * left + ["---:"] * (len(header) - left)
    return lines([header, marks, *([text for _, text in row] for row in rows)])


def lines(rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def fill(template: Path, **values: Any) -> str:
    """A page of Markdown from its Jinja template; where blocks leave several blank lines, one stays."""
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.globals |= {"plural": plural, "lines": lines, "MISSING": MISSING}
    text = environment.from_string(template.read_text(encoding="utf-8")).render(**values)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def plural(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def draw(figure: Any, picture: Path, work: Path = ROOT / ".work" / "pictures") -> bool:
    """Plotly's figure as `picture`, by headless Chromium; false, and said, where there is none. `work` keeps it as a page."""
    width, height = figure.layout.width + 20, figure.layout.height + 20
    page = work.resolve() / f"{picture.stem}.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    figure.write_html(page, include_plotlyjs=True, config={"staticPlot": True})
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        print(f"no Chromium to draw {picture.name} with; install it and write the page again, or open {page}")
        return False
    command: list[Any] = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--window-size={width},{height}", "--virtual-time-budget=8000"]
    command += [f"--user-data-dir={work.resolve() / 'chromium'}", f"--screenshot={picture.resolve()}", page.as_uri()]
    subprocess.run(command, check=True, capture_output=True)
    return True


def add_line(
    drawing: Any, place: tuple[int, int], x: Sequence[float], y: Sequence[float], name: Any, line: Any, **rest: Any
) -> None:
    """At (row, column); with its points unless `mode` says otherwise."""
    drawing.add_trace(Scatter(x=x, y=y, name=name, line=line, **{"mode": "lines+markers", **rest}), *place)


def lay_out(figure: Any, width: int, height: int, top: int, legend: float, font: int) -> None:
    figure.update_layout(
        template="plotly_white",
        width=width,
        height=height,
        font={"size": font},
        margin={"t": top, "b": 60, "l": 60, "r": 20},
        legend={"orientation": "h", "y": legend},
    )
