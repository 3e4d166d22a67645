"""The command line: parse and call."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from softspoken.cli.commands import CompareConfig, CompletionConfig, DoctorConfig, ReportConfig
from softspoken.cli.doctor import Finding
from softspoken.cli.faults import told
from softspoken.cli.flags import completion, parse
from softspoken.config import (
    DemoConfig,
    DpoConfig,
    EstimateConfig,
    EvaluateConfig,
    ExportConfig,
    GenerateConfig,
    ScoreConfig,
    ServeConfig,
    SftConfig,
    SweepConfig,
    TrainConfig,
)
from softspoken.runtime import interrupt, processes
from softspoken.runtime.loading import importing
from softspoken.types import InputError, RunError, first_line, one_line

SHARED_OUT = ("train", "dpo", "evaluate", "generate", "summarize", "score")
ALONE = {
    "sft": "transformers' Trainer would make other batches of the same texts for several, and so another model: start it without torchrun"
}
"""Why a command is one process's, where one would expect another."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 done, 1 the run failed, 2 bad usage or bad input, 130 or 143
    stopped by a signal."""
    debug = os.environ.get("SOFTSPOKEN_DEBUG", "") not in ("", "0")
    config: Any = None
    if not processes.first():  # what it would print, the first does
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    try:
        command, config = parse(sys.argv[1:] if argv is None else argv)
        if processes.size() > 1 and command not in SHARED_OUT:
            remedy = ALONE.get(command, f"{', '.join(SHARED_OUT)} can be shared out among several")
            raise InputError(f"{command} is one process's; {remedy}")
        _quiet(debug)
        _run(command, config)
        sys.stdout.flush()
    except InputError as error:
        return _failed(str(error), 2)
    except processes.OtherProcessGone as error:
        return _failed(
            str(error), 1, after=4
        )  # a launcher ends this one as well, once the other has said what was wrong
    except RunError as error:
        return _failed(str(error), 1)
    except interrupt.Interrupted as stopped:
        if stopped.go_on and processes.first():
            print(f"softspoken: stopped; {stopped.go_on} goes on from here", file=sys.stderr)
        return 128 + stopped.signum
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader, such as `head`, has had enough
        # What is still buffered has to go somewhere, or Python complains at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        if debug:
            raise
        if fault := told(error, config):
            return _failed(*fault)
        reason = (str(error).strip().splitlines() or [""])[0]
        return _failed(f"{type(error).__name__}: {reason} (set SOFTSPOKEN_DEBUG=1 for the traceback)", 1)
    return 0


def _failed(reason: str, status: int, *, after: float = 0) -> int:
    """Of several processes that have the same to say, the first says it, and a launcher ends the others in the meantime."""
    if stopped := interrupt.thrown():  # which is what went wrong
        return stopped
    time.sleep(after or 0.0 if processes.first() else after or 1.0)
    who = "" if processes.first() else f"process {processes.rank()}: "
    print(f"softspoken: error: {one_line(who + reason)}", file=sys.stderr)
    return status


def _run(command: str, config: Any) -> None:
    """Only here are torch and transformers loaded, by the one module that is needed, and after what is given was looked at."""
    _COMMANDS[command](config)


def _train(config: TrainConfig) -> None:
    if config.resume is None:
        _look_at(config)
    with importing():
        from softspoken.train import train

    _show_result(train(config))


def _sft(config: SftConfig) -> None:
    _look_at(config)
    with importing():
        from softspoken.sft import sft

    print(f"model: {sft(config)}")


def _dpo(config: DpoConfig) -> None:
    _look_at(config)
    with importing():
        from softspoken.dpo import dpo

    print(f"{'model' if config.trains_whole_model else 'adapter'}: {dpo(config)}")


def _evaluate(config: EvaluateConfig) -> None:
    _look_at(config)
    with importing():
        from softspoken.evaluation.evaluate import evaluate

    evaluate(config)
    _show_result(Path(config.output))


def _generate(config: GenerateConfig) -> None:
    from softspoken.inference.answer import generate

    generate(config, *_utf8_streams(config.file))


def _score(config: ScoreConfig) -> None:
    if config.serve is not None:
        if processes.size() > 1:
            raise InputError("score --serve is one process's: start one for each port")
        with importing():
            from softspoken.rewards.server import serve

        serve(config)
        return
    from softspoken.rewards.score import score

    score(config, *_utf8_streams(config.file))


def _report(config: ReportConfig) -> None:
    from softspoken.report.report import write_report

    print(f"report: {write_report(Path(config.dir))}")


def _compare(config: CompareConfig) -> None:
    from softspoken.report.compare import compare

    print(f"comparison: {compare([Path(run) for run in config.runs], Path(config.output))}")


def _doctor(config: DoctorConfig) -> None:
    from softspoken.cli.doctor import look

    failed = [finding for finding in _shown(look(config.self_test)) if finding.fails]
    if failed:
        raise RunError(f"{failed[0].what} failed: {failed[0].found}")


def _shown(findings: Iterable[Finding]) -> Iterator[Finding]:
    for finding in findings:
        print(f"{'✗' if finding.fails else '✓'} {finding.what:<10} {finding.found}", flush=True)
        yield finding


def _estimate(config: EstimateConfig) -> None:
    with importing():
        from softspoken.estimating.memory import estimate
        from softspoken.estimating.table import table

    print(table(config, [estimate(config, model) for model in config.model]), end="")


def _completion(config: CompletionConfig) -> None:
    print(completion(config.shell))


def _export(config: ExportConfig) -> None:
    with importing():
        from softspoken.inference.export import export

    print(f"model: {export(config)}")


def _sweep(config: SweepConfig) -> None:
    from softspoken.sweep import PAGE, sweep

    print(f"sweep: {sweep(config) / PAGE}")


def _serve(config: ServeConfig) -> None:
    from softspoken.serving.serve import serve

    serve(config)


def _demo(config: DemoConfig) -> None:
    with importing():
        from softspoken.serving.demo import demo

    demo(config)


_COMMANDS: dict[str, Callable[[Any], None]] = {
    "train": _train,
    "sft": _sft,
    "dpo": _dpo,
    "evaluate": _evaluate,
    "generate": _generate,
    "summarize": _generate,
    "score": _score,
    "report": _report,
    "compare": _compare,
    "doctor": _doctor,
    "estimate": _estimate,
    "completion": _completion,
    "export": _export,
    "sweep": _sweep,
    "serve": _serve,
    "demo": _demo,
}


def _look_at(config: TrainConfig | SftConfig | DpoConfig | EvaluateConfig) -> None:
    from softspoken.data.reading import require_columns
    from softspoken.tasks.task import load_task

    require_columns(config, load_task(config.task))


def _show_result(folder: Path) -> None:
    from rich.console import Console

    from softspoken.report.report import print_table, read_report

    if (folder / "eval.json").is_file():
        print_table(read_report(folder), Console())
    print(f"report: {folder / 'report.html'}")


def _utf8_streams(file: str) -> tuple[TextIO, TextIO]:
    """Standard input and output in UTF-8 whatever the locale; what is not UTF-8 is an error, not a guess."""
    for stream in (sys.stdin, sys.stdout):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="strict")
    if file == "-" and sys.stdin.isatty():
        print("reading standard input; end with Ctrl-D", file=sys.stderr)
    return sys.stdin, sys.stdout


# ------------------------------------------------------------------------------------------------------- noise


class _ToStderr(logging.Handler):
    """Looks sys.stderr up each time, so that a line lands above a progress bar, not in it."""

    def emit(self, record: logging.LogRecord) -> None:
        if not processes.first():
            return
        mark = "warning: " if record.levelno >= logging.WARNING else ""
        print(f"softspoken: {mark}{one_line(record.getMessage())}", file=sys.stderr)


def _thread_ended(ended: threading.ExceptHookArgs) -> None:
    """A line in place of a traceback: TensorBoard's writer has a thread, and the disk it writes to may be full."""
    reason = f"{ended.exc_type.__name__}: {first_line(ended.exc_value)}" if ended.exc_value else ended.exc_type.__name__
    logging.getLogger("softspoken").warning("a thread ended (%s)", reason)


def _quiet(debug: bool) -> None:
    """Our own log lines on stderr, and none of the libraries' advice; before they are imported, which is when they look."""
    logger = logging.getLogger("softspoken")
    if not any(isinstance(handler, _ToStderr) for handler in logger.handlers):
        logger.addHandler(_ToStderr())
    logger.setLevel(logging.DEBUG if debug else logging.INFO)
    if debug:
        return
    threading.excepthook = _thread_ended
    for name in ("TRANSFORMERS_VERBOSITY", "DATASETS_VERBOSITY", "HF_HUB_VERBOSITY"):
        os.environ.setdefault(name, "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    logging.getLogger("bitsandbytes").setLevel(
        logging.ERROR
    )  # PEFT imports it wherever it is; on a CPU it says what it misses
    if not sys.warnoptions:
        warnings.simplefilter("ignore")


if __name__ == "__main__":
    sys.exit(main())
