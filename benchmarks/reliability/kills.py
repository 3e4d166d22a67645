"""SIGKILLs at random moments and at every file operation; what goes on from there must end in the same bytes."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.records import Record
from benchmarks.reliability import children
from benchmarks.reliability.jobs import JOBS, OUT, damaged, digest, fresh, place_sentinel
from benchmarks.reliability.operations import watching

CHAIN = 5
"""Kills in a row before a run is let come to its end."""
Trial = tuple[str, int]


def trials(each: int) -> list[Trial]:
    """The commands in turn, so that a part of them is a part of each."""
    return [(command, number) for number in range(each) for command in JOBS]


class Whole:
    """What a run that nobody kills takes and writes."""

    def __init__(self, command: str, folder: Path) -> None:
        note = folder.with_name(f"{folder.name}.operations")
        before, after = counting(note)
        children.import_what_it_imports(fresh(folder), JOBS[command].begin)
        ended = children.run(fresh(folder), JOBS[command].begin, before=before, after=after)
        assert ended.status == 0, ended.stderr
        self.seconds, self.operations, self.digest = ended.seconds, int(note.read_text()), digest(folder)


def trial(command: str, number: int, whole: Whole, folder: Path, chain: int = CHAIN) -> Record:
    """A run is killed `chain` times: first at an operation that no other trial takes before all have been, then at a random one or a
    random moment of what goes on. Then it is let come to its end."""
    rng = random.Random(f"{command} {number}")
    fresh(folder)
    first = 1 + number * _stride(whole.operations) % whole.operations
    died = went_on = 0
    wrong: list[str] = []
    for turn in range(chain):
        go_on = turn > 0 and can_go_on(command, folder)
        argv = JOBS[command].go_on if go_on else JOBS[command].begin
        if turn % 2:
            ended = children.run(
                folder, argv, before=still_clock, kill_after=rng.uniform(0, whole.seconds / (1 + go_on))
            )
        else:
            at = rng.randint(1, whole.operations // 2) if turn else first
            ended = children.run(folder, argv, before=partial(dying, at))
        died += ended.status == -signal.SIGKILL
        went_on += go_on
        wrong += _wrong(ended) if ended.status != -signal.SIGKILL or ended.hung else []
        place_sentinel(folder)
    go_on = can_go_on(command, folder)
    ended = children.run(folder, JOBS[command].go_on if go_on else JOBS[command].begin, before=still_clock)
    wrong += _wrong(ended)
    now = digest(folder)
    other = sorted(name for name in {**now, **whole.digest} if now.get(name) != whole.digest.get(name))
    return {
        "command": command,
        "number": number,
        "operation": first,
        "operations": whole.operations,
        "kills": died,
        "went_on": went_on + go_on,
        "other_bytes": other,
        "touched": damaged(folder),
        "wrong": wrong,
    }


def can_go_on(command: str, folder: Path) -> bool:
    """`train --resume` wants a run that has begun; the others begin one where there is none."""
    return command != "train" or (folder / OUT / "config.yaml").is_file()


def _stride(operations: int) -> int:
    """Prime to their number, so that each has its turn; about a golden section, so that few are spread over all."""
    from math import gcd

    return next(one for one in range(int(operations * 0.618), 2 * operations + 2) if gcd(one, operations) == 1)


def _wrong(ended: children.Ended) -> list[str]:
    if ended.hung:
        return ["hung"]
    return [] if ended.status == 0 else [f"exit {ended.status}: {(ended.stderr.strip().splitlines() or [''])[-1]}"]


# ------------------------------------------------------------------------------------------- in the process of a run

_kept: list[Any] = []
"""What is entered and never left."""


def still_clock() -> None:
    """What a step takes is 0 s, so that what says it is the same bytes; Python's seed of hashes is the parent's."""
    from softspoken.training import measuring

    measuring.time = SimpleNamespace(perf_counter=lambda: 0.0)  # type: ignore[assignment]


def dying(number: int) -> None:
    """At the `number`-th operation the process is gone, as by a power cut without one."""
    calls = 0

    def before(kind: str) -> None:
        nonlocal calls
        calls += 1
        if calls == number:
            sys.stderr.flush()
            os.kill(os.getpid(), signal.SIGKILL)

    still_clock()
    enter(watching(before))


def enter(context: AbstractContextManager[Any]) -> None:
    """For the rest of the process's time."""
    _kept.append(context)
    context.__enter__()


def counting(note: Path) -> tuple[Callable[[], None], Callable[[], None]]:
    kinds: list[str] = []

    def before() -> None:
        still_clock()
        enter(watching(kinds.append))

    def after() -> None:
        _kept.pop().__exit__(None, None, None)
        note.write_text(str(len(kinds)))

    return before, after
