"""What is to be done, one after the other: what is done already is left out, and the time that is left is said."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Job:
    name: str
    seconds: float
    """An estimate, for two idle cores."""
    done: Callable[[], bool]
    run: Callable[[], None]


def run_all(jobs: list[Job], say: Callable[[str], None] = print) -> None:
    """Whether a job is done is asked when its turn comes, since what came before it may have changed that."""
    expected = taken = 0.0
    for number, job in enumerate(jobs, start=1):
        if job.done():
            say(f"[{number}/{len(jobs)}] {job.name}: done before")
            continue
        pace = taken / expected if expected else 1.0
        left = pace * sum(other.seconds for other in jobs[number - 1 :] if not other.done())
        say(f"[{number}/{len(jobs)}] {job.name}: about {minutes(pace * job.seconds)} of {minutes(left)} left")
        start = time.perf_counter()
        job.run()
        taken, expected = taken + time.perf_counter() - start, expected + job.seconds


def minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
