"""A sweep's page: its trials in a table, the best first, and as lines through their settings (parallel coordinates)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from softspoken.report.page import template
from softspoken.tasks.task import Task
from softspoken.types import Interval


@dataclass(frozen=True)
class Row:
    number: int
    settings: dict[str, Any]
    value: Interval | None
    """The objective, pooled over the seeds; None for a trial that did not come to its end."""
    lost: list[str]
    """Guards that a seed's run lost."""
    state: str
    links: list[str]
    """Each seed's report."""


def sweep_page(rows: list[Row], task: Task, study: Any) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row.settings))
    return template("sweep.html.j2").render(rows=rows, names=names, task=task, chart=_lines(rows, names, study, task))


def _lines(rows: list[Row], names: list[str], study: Any, task: Task) -> Markup:
    if sum(row.value is not None for row in rows) < 2:
        return Markup("")
    from optuna.visualization import plot_parallel_coordinate

    figure = plot_parallel_coordinate(study, params=names, target_name=task.objective.metric)
    return Markup(figure.to_html(full_html=False, include_plotlyjs=True))
