"""The progress bar of every command: on a terminal's stderr, and nowhere else."""

from __future__ import annotations

from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from softspoken import processes


def progress_bar(command: str, *columns: ProgressColumn | str, output: TextIO | None = None) -> Progress:
    """`columns` stand between the count and the time that remains. Not shown where `output`, the lines that a command
    writes, goes to a terminal itself."""
    console = Console(stderr=True)
    return Progress(
        SpinnerColumn(),
        TextColumn(f"[bold]{command}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        # Names in them are other people's: a bracket is a bracket, a line break no line.
        *(TextColumn(column, markup=False) if isinstance(column, str) else column for column in columns),
        TimeRemainingColumn(),
        console=console,
        disable=not processes.first() or not console.is_terminal or (output is not None and output.isatty()),
    )


class Speed(ProgressColumn):
    """Over the whole run: what a batch holds is done at one moment, which makes rich's own speed jump."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        return Text(f"{task.completed / task.elapsed:.1f} {self.unit}/s" if task.completed and task.elapsed else "")
