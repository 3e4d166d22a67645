"""Deaths at file operations: from one of them on nothing reaches the disk any more, as if the process were gone."""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from unittest.mock import patch

import pytest

from benchmarks.reliability.operations import watching


class Died(BaseException):
    pass


@contextlib.contextmanager
def die_at(number: int) -> Iterator[Callable[[], bool]]:
    """From the `number`-th operation on, each raises; what is given says whether it came to that."""
    calls = 0

    def before(kind: str) -> None:
        nonlocal calls
        calls += 1
        if calls >= number:
            raise Died

    with watching(before), _freed_by_death():
        yield lambda: calls >= number


@contextlib.contextmanager
def _freed_by_death() -> Iterator[None]:
    """What a process has locked is free when it is gone; here it stays, and so would a descriptor that a library did not come to close."""
    locked: list[int] = []
    lock = fcntl.flock

    def flock(handle: int, kind: int) -> None:
        lock(handle, kind)
        locked.append(handle)

    try:
        with patch.object(fcntl, "flock", flock):
            yield
    finally:
        for handle in locked:
            with contextlib.suppress(OSError):  # it has been closed
                lock(handle, fcntl.LOCK_UN)


def deaths_at_every_operation(
    job: Callable[[int], object],
    again: Callable[[int], object],
    monkeypatch: pytest.MonkeyPatch,
    before: Callable[[int], object] = lambda number: None,
) -> int:
    """After `before(number)`, `job(number)` dies at its `number`-th operation, then `again(number)` runs: for every number there is. Returns how many."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # it counts, but need not take its time
    for number in range(1, 10_000):
        before(number)
        with die_at(number) as died, contextlib.suppress(Died):
            job(number)
        if not died():
            return number - 1
        again(number)
    raise AssertionError("the job does not end")
