"""How far a command is: a bar on a terminal's stderr or in a notebook, and elsewhere a line now and then, for a log that says nothing looks
dead."""

from __future__ import annotations

import os
import sys
import threading
import warnings
from types import TracebackType
from typing import Any, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from softspoken.runtime import processes
from softspoken.types import duration

FIRST, LONGEST = 20.0, 60.0
"""Seconds until the first line of a log, and at most between two."""


def progress_bar(command: str, *columns: ProgressColumn | str, output: TextIO | None = None) -> Bar:
    """`columns` stand between the count and the time that remains. Not shown where `output`, the lines that a command
    writes, goes to a terminal itself."""
    # FORCE_COLOR, which CI services and kernels of Jupyter's set, asks for colours; rich takes it for a terminal.
    console = Console(stderr=True, force_terminal=None if "TTY_COMPATIBLE" in os.environ else sys.stderr.isatty())
    read_anyway = (output is not None and output.isatty()) or not processes.first()
    bar = Progress(
        SpinnerColumn(),
        TextColumn(f"[bold]{command}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        # Names in them are other people's: a bracket is a bracket, a line break no line.
        *(TextColumn(column, markup=False) if isinstance(column, str) else column for column in columns),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal or read_anyway,
    )
    notebook = in_notebook()
    return Bar(bar, command, columns, notebook=notebook, lines=bar.disable and not read_anyway and not notebook)


def in_notebook() -> bool:
    """Whether this is a kernel of Jupyter's."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


def quiet_tqdm() -> None:
    """Import it without its advice to install ipywidgets, once and for all: without them it is a bar of characters, which is no news."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tqdm.auto  # noqa: F401


class Bar:
    """One command's progress, however it is shown; rich keeps the count."""

    def __init__(
        self, bar: Progress, command: str, columns: tuple[ProgressColumn | str, ...], *, notebook: bool, lines: bool
    ) -> None:
        self._bar, self._command, self._columns = bar, command, columns
        self._notebook, self._lines, self._stopped = notebook, lines, threading.Event()
        self._widgets: dict[TaskID, Any] = {}

    @property
    def disable(self) -> bool:
        """Whether there is no bar."""
        return self._bar.disable and not self._notebook

    def start(self) -> None:
        if not self._notebook:
            self._bar.start()
        if self._lines:
            threading.Thread(target=self._say, name="progress", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()
        if not self._bar.disable:  # rich before 14 ends one that it does not show with an empty line
            self._bar.stop()
        for widget in self._widgets.values():
            widget.close()

    def __enter__(self) -> Bar:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def add_task(self, description: str, *, total: float | None = None, completed: int = 0, **fields: Any) -> TaskID:
        task = self._bar.add_task(description, total=total, completed=completed, **fields)
        if self._notebook and total:
            self._show(task)
        return task

    def _show(self, task: TaskID) -> None:
        """A notebook's bar: from the start where it is known how much there is to do, else once something is done."""
        quiet_tqdm()
        from tqdm.auto import tqdm

        own = self._own(task)
        self._widgets[task] = tqdm(total=own.total, initial=own.completed, desc=self._command, file=sys.stdout)

    def _own(self, task: TaskID) -> Task:
        return self._bar.tasks[self._bar.task_ids.index(task)]

    def advance(self, task: TaskID, advance: float = 1) -> None:
        self.update(task, advance=advance)

    def update(self, task: TaskID, **change: Any) -> None:
        self._bar.update(task, **change)
        if self._notebook and task not in self._widgets and self._own(task).completed:
            self._show(task)
        if (widget := self._widgets.get(task)) is not None:  # a bar without a total has no truth
            own = self._own(task)
            widget.set_postfix_str(self._figures(own), refresh=False)
            widget.update(own.completed - widget.n)

    def _figures(self, task: Task) -> str:
        shown = [
            column.format(task=task) if isinstance(column, str) else str(column.render(task))
            for column in self._columns
        ]
        return " · ".join(filter(None, shown))

    def _say(self) -> None:
        """A line, and then ever more seldom, while the command runs; also where nothing has moved since the last."""
        pause = FIRST
        while not self._stopped.wait(pause):
            pause = min(2 * pause, LONGEST)
            for task in self._bar.tasks:
                if not task.finished:
                    print(f"softspoken: {self._line(task)}", file=sys.stderr, flush=True)

    def _line(self, task: Task) -> str:
        of = f" of {task.total:,.0f}" if task.total else ""
        left = f"about {duration(task.time_remaining)} left" if task.time_remaining else ""
        parts = [f"{self._command}: {task.completed:,.0f}{of}", self._figures(task), left]
        return ", ".join(filter(None, parts))


class Speed(ProgressColumn):
    """Over the whole run: what a batch holds is done at one moment, which makes rich's own speed jump."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        return Text(f"{task.completed / task.elapsed:.1f} {self.unit}/s" if task.completed and task.elapsed else "")
