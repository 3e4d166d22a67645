"""Ctrl-C and SIGTERM: the step in hand is finished or abandoned, and never a traceback.

Of the standard library alone, and little of that: the handlers stand before anything else is imported.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)  # SIGTERM is what clusters send


class Interrupted(KeyboardInterrupt):
    """The first signal: raised where it came or, inside `finishing`, after the step."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"signal {signum}")
        self.signum = signum
        self.go_on = ""
        """The command that goes on from here, where there is something to go on with."""


class Stop:
    asked: int = 0
    """The signal that came, or 0."""


TWICE = 0.5
"""Seconds within which a second signal is the same one to several processes: torchrun sends each of them two."""

_received: int = 0
_since: float = 0.0
_thrown: int = 0
"""The signal that was raised where it came: whatever goes wrong then comes of it."""
_finishing: Stop | None = None


def install() -> None:
    """From here on a signal of `SIGNALS` is an `Interrupted`, and one that nobody catches ends the process in silence.

    One that the parent has us ignore (`nohup`, a shell's `&`) stays ignored.
    """
    for signum in SIGNALS:
        if signal.getsignal(signum) != signal.SIG_IGN:
            signal.signal(signum, _on_signal)
    uncaught, unraisable = sys.excepthook, sys.unraisablehook

    def on_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, Interrupted) or _thrown:
            os._exit(128 + _received)
        uncaught(kind, error, trace)

    def on_unraisable(what: Any) -> None:
        if isinstance(what.exc_value, Interrupted):  # it came in a destructor, say, which lets nothing out
            os._exit(128 + _received)
        unraisable(what)

    sys.excepthook, sys.unraisablehook = on_uncaught, on_unraisable


def thrown() -> int:
    """The exit status where a signal was raised at once (130 or 143, as shells have it), else 0: C code that is interrupted, in
    an import say, may well call it an ImportError."""
    return _thrown and 128 + _thrown


@contextmanager
def finishing() -> Iterator[Stop]:
    """Inside, the first signal sets `asked` alone: the loop looks at it after each step, saves and raises `Interrupted(asked)`.

    Where the loop ends without having looked, that is raised here.
    """
    global _finishing
    _finishing = stop = Stop()
    try:
        yield stop
    finally:
        _finishing = None
    if stop.asked:
        raise Interrupted(stop.asked)


def _on_signal(signum: int, frame: FrameType | None) -> None:
    global _received, _since, _thrown
    if _received and "WORLD_SIZE" in os.environ and time.monotonic() - _since < TWICE:
        return
    if _received:
        os._exit(128 + signum)
    _received, _since = signum, time.monotonic()
    if _finishing is None:
        _thrown = signum
        raise Interrupted(signum)
    _finishing.asked = signum
    _say("softspoken: the step in hand is finished and saved first; a second time ends at once")


def _say(line: str) -> None:
    """Past sys.stderr, which may be in the middle of a line; on a terminal, over the bar, which draws itself again."""
    clear = "\r\x1b[2K" if os.isatty(2) else ""
    with suppress(OSError):
        os.write(2, f"{clear}{line}\n".encode())
