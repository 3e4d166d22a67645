"""The bar: where it shows, and the speed it states."""

import io
import sys
import threading
from types import SimpleNamespace

import pytest

from softspoken.runtime import progress
from softspoken.runtime.progress import Speed, progress_bar


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


def test_to_be_asked_for_colours_is_not_to_be_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in CI and in a kernel, where a bar would be thousands of lines of control characters."""
    monkeypatch.delenv("TTY_COMPATIBLE", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr("sys.stderr", io.StringIO())
    assert progress_bar("train").disable
    monkeypatch.setattr("sys.stderr", Terminal())
    assert not progress_bar("train").disable


def test_names_in_it_are_no_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = Terminal()
    monkeypatch.setattr("sys.stderr", stderr)
    with progress_bar("evaluate", "{task.fields[what]}") as bar:
        bar.add_task("", total=7, what="[/bold] of mine")
    assert "[/bold] of mine" in stderr.getvalue()


def test_speed_is_over_the_whole_run() -> None:
    assert Speed("lines").render(SimpleNamespace(completed=30, elapsed=4.0, speed=99.0)).plain == "7.5 lines/s"  # type: ignore[arg-type]
    assert Speed("lines").render(SimpleNamespace(completed=0, elapsed=0.0, speed=None)).plain == ""  # type: ignore[arg-type]


def test_off_a_terminal_it_says_a_line_now_and_then_moved_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = io.StringIO()
    monkeypatch.setattr("sys.stderr", stderr)
    monkeypatch.setattr(progress, "FIRST", 0.01)
    monkeypatch.setattr(progress, "LONGEST", 0.01)
    with progress_bar("train", "{task.fields[figures]}") as bar:
        task = bar.add_task("", total=50, figures="")
        bar.update(task, completed=12, figures="reward 0.710")
        while stderr.getvalue().count("\n") < 3:
            pass
    said = stderr.getvalue().splitlines()
    assert said[-1].startswith("softspoken: train: 12 of 50, reward 0.710")
    before = stderr.getvalue()
    threading.Event().wait(0.05)
    assert stderr.getvalue() == before  # nothing after its end


def test_where_the_lines_themselves_are_read_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", io.StringIO())
    assert not progress_bar("score", output=Terminal())._lines
    assert progress_bar("score", output=io.StringIO())._lines


def test_in_a_notebook_it_is_tqdms_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    shell = type("ZMQInteractiveShell", (), {})()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell, version_info=(8, 0)))
    with progress_bar("train", "{task.fields[figures]}") as bar:
        assert not bar.disable
        task = bar.add_task("", total=4, completed=1, figures="")
        bar.update(task, completed=4, figures="reward 0.710")
    out = capsys.readouterr().out
    assert "train: 100%" in out
    assert "4/4" in out
    assert "reward 0.710" in out


def test_in_a_notebook_what_has_nothing_to_do_has_no_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An evaluation reads what it can before it knows its total, and often that is nothing."""
    shell = type("ZMQInteractiveShell", (), {})()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell, version_info=(8, 0)))
    with progress_bar("evaluate", "{task.fields[what]}") as bar:
        task = bar.add_task("", what="slices")
        bar.update(task, what="loading")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("total", [None, 0])
def test_in_a_notebook_the_total_may_be_unknown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], total: int | None
) -> None:
    """A bar of tqdm's is false where its total is 0, and neither true nor false where it has none."""
    shell = type("ZMQInteractiveShell", (), {})()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell, version_info=(8, 0)))
    with progress_bar("evaluate") as bar:
        bar.update(bar.add_task("", total=total), completed=3)
    assert "evaluate: 3" in capsys.readouterr().out
