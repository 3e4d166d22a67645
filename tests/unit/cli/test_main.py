"""From what went wrong to exit statuses; no command runs here."""

import os
import platform
import signal
import subprocess
import sys
import threading
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import softspoken
from softspoken.cli import main as cli
from softspoken.types import InputError, RunError


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    said = capsys.readouterr().out
    assert said.startswith(
        f"softspoken {softspoken.__version__} (Python {platform.python_version()}, torch {version('torch')}, "
    )
    assert f"transformers {version('transformers')}" in said
    assert said.count("\n") == 1


def test_help_and_usage_errors_load_nothing_heavy() -> None:
    code = """
import sys, time, softspoken
from softspoken.cli.main import main
for argv in (["--help"], ["train", "--help"], ["train", "--stepz", "1"], ["train", "--preset", "x"]):
    try:
        main(argv)
    except SystemExit:
        pass
heavy = {"torch", "transformers", "datasets", "numpy", "peft"} & {*sys.modules}
assert not heavy, heavy
assert time.process_time() < 2, time.process_time()  # of the processor, for all four; one takes 0.4 s on an idle machine
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


# -------------------------------------------------------------------------------------------------------- exit statuses


def outcome(monkeypatch: pytest.MonkeyPatch, error: BaseException | None) -> int:
    def run(command: str, config: Any) -> None:
        if error:
            raise error

    monkeypatch.setattr(cli, "_run", run)
    monkeypatch.setattr(cli, "_quiet", lambda debug: None)
    return cli.main(["train"])


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (None, 0, ""),
        (InputError("no file at x; give one"), 2, "softspoken: error: no file at x; give one\n"),
        (RunError("step 3: loss is not finite"), 1, "softspoken: error: step 3: loss is not finite\n"),
        (KeyboardInterrupt(), 130, ""),
        (KeyError("x\ny"), 1, r"softspoken: error: KeyError: 'x\ny' (set SOFTSPOKEN_DEBUG=1 for the traceback)" + "\n"),
        (OSError("disk\nfull"), 1, "softspoken: error: OSError: disk (set SOFTSPOKEN_DEBUG=1 for the traceback)\n"),
    ],
)
def test_statuses(
    error: BaseException | None,
    status: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("SOFTSPOKEN_DEBUG", raising=False)
    assert outcome(monkeypatch, error) == status
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", said)


def test_debug_shows_the_traceback_of_a_bug_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOFTSPOKEN_DEBUG", "1")
    with pytest.raises(KeyError):
        outcome(monkeypatch, KeyError("x"))
    assert outcome(monkeypatch, InputError("x")) == 2


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_ctrl_c_is_quiet() -> None:
    """A command that waits for input, interrupted."""
    # A shell starts what it runs in the background with SIGINT ignored, and children inherit that.
    command = [sys.executable, "-c", "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); from softspoken.cli import main as cli; cli._run = lambda *_: (print('on', flush=True), sys.stdin.read()); sys.exit(cli.main(['score']))"]  # fmt: skip
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline() == "on\n"
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == ""
        assert process.wait(timeout=120) == 130


def test_results_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli._show_result(tmp_path)  # a run without an evaluation
    assert capsys.readouterr().out == f"report: {tmp_path}/report.html\n"


def test_a_thread_that_ends_is_a_line_and_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise FileNotFoundError("no\nplace")

    before = threading.excepthook
    try:
        cli._quiet(debug=False)
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
    finally:
        threading.excepthook = before
    assert capsys.readouterr().err == "softspoken: warning: a thread ended (FileNotFoundError: no)\n"
