"""One process that has imported everything, and a fork of it for each command: seconds less than a start of Python and torch."""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

BOUND = 120.0
"""Seconds of CPU for a command on these models; one that takes more, or WAIT times as long by the clock, hangs."""
WAIT = 10


@dataclass(frozen=True)
class Ended:
    status: int
    """Of the exit; of a signal its number, negative."""
    seconds: float
    peak: int
    """Bytes of memory."""
    stdout: str
    stderr: str
    hung: bool = False


def import_everything() -> None:
    """What the commands import late is imported with them by `import_what_it_imports`."""
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    from softspoken.cli import main as cli

    cli._quiet(debug=False)  # as cli.main does it, before anything is imported
    for module in (
        "torch",
        "softspoken.train",
        "softspoken.sft",
        "softspoken.dpo",
        "softspoken.inference.export",
        "softspoken.rewards.terms",
        "softspoken.report.compare",
    ):
        importlib.import_module(module)
    import torch

    torch.set_num_threads(1)  # threads do not outlive a fork


def import_what_it_imports(folder: Path, argv: list[str]) -> Ended:
    """Run a command once, and import here what it came to import."""
    note = folder / ".modules"

    def after() -> None:
        note.write_text(json.dumps(sorted(sys.modules)), encoding="utf-8")

    ended = run(folder, argv, after=after)
    for name in json.loads(note.read_text(encoding="utf-8")):
        if name not in sys.modules:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
    note.unlink()
    gc.collect()
    gc.freeze()  # or each child's own collection would copy all of it
    return ended


def run(
    folder: Path,
    argv: list[str],
    *,
    before: Callable[[], object] = lambda: None,
    after: Callable[[], object] = lambda: None,
    kill_after: float | None = None,
    bound: float = BOUND,
    watch: Callable[[int, float], object] = lambda pid, seconds: None,
) -> Ended:
    """A command in the folder, to its end or to a SIGKILL; `before` and `after` run in its process, `watch` beside it."""
    words = [folder.with_name(f"{folder.name}.{name}") for name in ("stdout", "stderr")]
    begun = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _child(folder, argv, words, before, after)
    hung = killed = False
    while True:
        ended, status, usage = os.wait4(pid, os.WNOHANG)
        if ended:
            break
        seconds = time.monotonic() - begun
        hung = seconds > WAIT * bound or cpu_seconds(pid) > bound
        if not killed and (hung or (kill_after is not None and seconds >= kill_after)):
            os.kill(pid, signal.SIGKILL)
            killed = True
        watch(pid, seconds)
        time.sleep(0.005)
    said = [path.read_text(encoding="utf-8", errors="replace") for path in words]
    seconds = time.monotonic() - begun
    return Ended(os.waitstatus_to_exitcode(status), seconds, usage.ru_maxrss * 1024, said[0], said[1], hung)


def cpu_seconds(pid: int) -> float:
    """What a process that runs, or has ended and not been waited for, has taken."""
    ticks = map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13])
    return sum(ticks) / os.sysconf("SC_CLK_TCK")


def _child(
    folder: Path, argv: list[str], words: list[Path], before: Callable[[], object], after: Callable[[], object]
) -> None:
    status = 70
    try:
        os.chdir(folder)
        for descriptor, path in enumerate([Path(os.devnull), *words]):
            os.dup2(os.open(path, os.O_RDWR | (os.O_CREAT | os.O_TRUNC if descriptor else 0), 0o600), descriptor)
        sys.stdin, sys.stdout, sys.stderr = (open(number, "rw"[number > 0], encoding="utf-8") for number in range(3))  # noqa: SIM115, PTH123
        before()
        from softspoken.__main__ import main

        status = main(argv)
        after()
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)
