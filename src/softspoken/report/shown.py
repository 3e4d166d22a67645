"""Evaluations and runs as Python objects: printed as their tables, shown as HTML in a notebook, as data frames and as charts."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from softspoken.report.charts import Chart, distributions, system_styles
from softspoken.report.curves import curves
from softspoken.report.examples import read_lines, read_rows
from softspoken.report.measures import BASE, HUMAN
from softspoken.report.page import template
from softspoken.report.report import Run, overviews, planes, print_table, read_report, slice_charts
from softspoken.report.report import read_run as read_folder
from softspoken.report.running import running_curves
from softspoken.report.tables import find_change
from softspoken.report.verdict import judged_systems, remarks, verdicts
from softspoken.types import EvalReport, InputError

if TYPE_CHECKING:
    from pandas import DataFrame
    from plotly.graph_objects import Figure

WIDTH = 120
"""Characters of the printed table, where it is not to a terminal."""


class Charts(list["Figure"]):
    """Plotly figures, in the report's order; a notebook shows them below one another, and some of them as well."""

    def __getitem__(self, place: Any) -> Any:
        found = super().__getitem__(place)
        return Charts(found) if isinstance(place, slice) else found

    def __repr__(self) -> str:
        return f"{len(self)} chart{'s' * (len(self) != 1)}: {', '.join(figure.layout.title.text for figure in self)}"

    def _repr_html_(self) -> str:
        return "".join(figure.to_html(full_html=False, include_plotlyjs=not place) for place, figure in enumerate(self))


@dataclasses.dataclass(frozen=True, repr=False)
class Evaluation(EvalReport):
    """The figures of an evaluation, and how they are shown: `print` gives the tables, a notebook the tables and the verdict.

    >>> report = softspoken.evaluate(texts=["Ann: Tea?"], systems={"base": ["Tea."], "mine": ["Ann wants tea."]})
    >>> sorted(report.to_frame("rows")["system"])
    ['base', 'mine']
    """

    folder: Path = dataclasses.field(default=Path(), compare=False)
    """Where eval.json, the rows and report.html lie."""
    _kept: Any = dataclasses.field(default=None, compare=False)
    """A temporary folder goes when this object does."""

    @classmethod
    def of(cls, report: EvalReport, folder: Path, kept: Any = None) -> Evaluation:
        values = {field.name: getattr(report, field.name) for field in dataclasses.fields(EvalReport)}
        return cls(**values, folder=folder, _kept=kept)

    def __repr__(self) -> str:
        # In a notebook rich would show it there and then, leaving nothing to return, and Jupyter asks for colours.
        console = Console(file=io.StringIO(), width=WIDTH, force_jupyter=False, color_system=None)
        print_table(self, console)
        return console.file.getvalue().rstrip()  # type: ignore[attr-defined]

    def _repr_html_(self) -> str:
        return template("shown.html.j2").render(
            verdicts=verdicts(self), remarks=remarks(self), alarms=self.alarms, tables=overviews(self)
        )

    def to_frame(self, what: str = "figures") -> DataFrame:
        """`figures`: a row for each system, decoding, slice and metric, with its interval and its change from base; `rows`: a row for each
        response, with every metric."""
        from pandas import DataFrame

        if what not in ("figures", "rows"):
            raise InputError(f"to_frame {what!r} cannot be had: give figures or rows")
        return DataFrame(list(_figures(self)) if what == "figures" else list(_rows(self.folder / self.rows)))

    def plot(self) -> Charts:
        """The report's charts: systems on a plane, distributions, and slices."""
        styles = system_styles([one.name for one in self.systems])
        rows = read_rows(self.folder / self.rows, self)
        shown = [HUMAN, BASE, *judged_systems(self)[:3]]
        drawn = planes(self, styles)
        drawn += distributions(rows.histograms, self, styles, shown) if rows else []
        return _charts(drawn + slice_charts(self, styles))


@dataclasses.dataclass(frozen=True, repr=False)
class ShownRun:
    """What a run's or an evaluation's folder holds; made by `read_run`."""

    folder: Path
    config: dict[str, Any]
    """The settings that made it."""
    metrics: DataFrame
    """A row a step; empty where nothing was trained."""
    end: dict[str, Any] | None
    """After which step the training ended, why, and which weights were kept; None where it has not come to its end."""
    evaluation: Evaluation | None
    _run: Run

    def plot(self) -> Charts:
        """The evaluations on the way, the training's curves and then, where there is one, the evaluation's charts."""
        run = self._run
        drawn = running_curves(run.metrics, run.task, run.end) + curves(run.metrics, run.task.words)
        return Charts([*_charts(drawn), *(self.evaluation.plot() if self.evaluation else [])])

    def __repr__(self) -> str:
        steps = f"{self.folder}: {len(self.metrics)} steps"
        return f"{steps}\n{self.evaluation!r}" if self.evaluation else f"{steps}, not evaluated"

    def _repr_html_(self) -> str:
        below = self.evaluation._repr_html_() if self.evaluation else "<p>Not evaluated.</p>"
        return f"<p><b>{escape(str(self.folder))}</b>: {len(self.metrics)} steps</p>{below}"


def read_run(folder: str | Path) -> ShownRun:
    """A run or an evaluation from its folder: `.metrics` and `.config`, `.evaluation`, `.plot()`. Raises InputError where it is neither.

    >>> run = softspoken.read_run(run_folder)
    >>> run.metrics[["step", "objective/score"]].shape
    (2, 2)
    >>> run.config["steps"]
    2
    """
    from pandas import DataFrame

    path = Path(folder)
    run = read_folder(path)
    config = run.record.get("config") or (run.report.config if run.report else {})
    evaluation = Evaluation.of(read_report(path), path) if run.report else None
    return ShownRun(path, config, DataFrame(run.metrics), run.end, evaluation, run)


def _charts(charts: list[Chart]) -> Charts:
    from plotly.graph_objects import Figure

    return Charts(Figure(chart.traces, {**chart.layout, "title": {"text": escape(chart.title)}}) for chart in charts)


def _figures(report: EvalReport) -> Iterator[dict[str, Any]]:
    for system in report.systems:
        parts = {"all": (system.n, system.metrics)} | {
            name: (one.n, one.metrics) for name, one in system.slices.items()
        }
        for part, (n, metrics) in parts.items():
            for metric, value in metrics.items():
                change = find_change(report, system.name, system.decoding or "", part, metric)
                yield {
                    "system": system.name,
                    "decoding": system.decoding,
                    "slice": part,
                    "metric": metric,
                    "n": n,
                    **dataclasses.asdict(value),
                    "change": change.difference.mean if change else None,
                    "change_low": change.difference.low if change else None,
                    "change_high": change.difference.high if change else None,
                    "p_value": change.p_value if change else None,
                }


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """A response each, its metrics as columns."""
    if not path.is_file():
        raise InputError(f"the rows of the evaluation are not at {path}; evaluate again")
    for row in read_lines(path):
        plain = {name: value for name, value in row.items() if name not in ("metrics", "scores", "slices")}
        yield {**plain, "slices": row["slices"], "scores": json.dumps(row["scores"]), **row["metrics"]}
