"""Deaths at file operations: from one of them on nothing reaches the disk any more, as if the process were gone."""

import contextlib
import os
from collections.abc import Callable

import pytest

OPERATIONS = ("replace", "rename", "unlink", "mkdir", "rmdir", "fsync")


class Died(BaseException):
    pass


def die_at(number: int, patch: pytest.MonkeyPatch) -> Callable[[], bool]:
    """From the `number`-th operation on, each raises; what is returned says whether it came to that."""
    calls = 0

    def dying(real):
        def call(*arguments, **options):
            nonlocal calls
            calls += 1
            if calls >= number:
                raise Died
            return real(*arguments, **options)

        return call

    for name in OPERATIONS:
        patch.setattr(os, name, dying(getattr(os, name)))
    return lambda: calls >= number


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
        with monkeypatch.context() as patch:
            died = die_at(number, patch)
            with contextlib.suppress(Died):
                job(number)
            if not died():
                return number - 1
        again(number)
    raise AssertionError("the job does not end")
