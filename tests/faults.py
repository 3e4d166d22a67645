"""Deaths at file operations: from one of them on nothing reaches the disk any more, as if the process were gone."""

import contextlib
import os
from collections.abc import Callable, Iterator

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

    with watching(before):
        yield lambda: calls >= number


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
