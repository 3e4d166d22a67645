"""The bar: where it shows, and the speed it states."""

import io
from types import SimpleNamespace

import pytest

from softspoken.progress import Speed, progress_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stderr", "output", "shown"),
    [
        (Terminal(), None, True),
        (Terminal(), io.StringIO(), True),
        (Terminal(), Terminal(), False),  # the lines are there to be read
        (io.StringIO(), None, False),
    ],
)
def test_it_shows_on_stderrs_terminal_alone(
    stderr: io.StringIO, output: io.StringIO | None, shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("sys.stderr", stderr)
    with progress_bar("score", Speed("lines"), output=output) as bar:
        bar.update(bar.add_task("", total=7), advance=5)
    assert ("5/7" in stderr.getvalue()) == ("score" in stderr.getvalue()) == shown


def test_names_in_it_are_no_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = Terminal()
    monkeypatch.setattr("sys.stderr", stderr)
    with progress_bar("evaluate", "{task.fields[what]}") as bar:
        bar.add_task("", total=7, what="[/bold] of mine")
    assert "[/bold] of mine" in stderr.getvalue()


def test_speed_is_over_the_whole_run() -> None:
    assert Speed("lines").render(SimpleNamespace(completed=30, elapsed=4.0, speed=99.0)).plain == "7.5 lines/s"  # type: ignore[arg-type]
    assert Speed("lines").render(SimpleNamespace(completed=0, elapsed=0.0, speed=None)).plain == ""  # type: ignore[arg-type]
