"""Other load on the machine while something is measured, in seconds of its cores."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import psutil

LIMIT = 0.05
"""A sample during which others used more than this share of all cores is dropped."""


@dataclass(frozen=True)
class Spent:
    total: float
    """By all cores together, since the machine started."""
    busy: float
    """Of these, those in which a core worked, for us, for others, or for another machine on the same host (steal)."""
    own: float = 0.0
    """By our own processes, and those of theirs that have ended."""


def spent(processes: list[int]) -> Spent:
    own = sum(sum(psutil.Process(number).cpu_times()[:4]) for number in processes)  # user, system, and children's
    return counted(psutil.cpu_times(), own)


def counted(machine: Any, own: float) -> Spent:
    total = sum(machine[:8])  # guests, which come after, are counted in user and nice already
    return Spent(total, total - machine.idle - machine.iowait, own)


def others_share(before: Spent, after: Spent) -> float:
    """The share of all cores that went to anything but ourselves, in [0, 1]."""
    total, busy, own = after.total - before.total, after.busy - before.busy, after.own - before.own
    return max(0.0, busy - own) / total if total > 0 else 0.0


class Watch:
    """Others' share of the machine since it was made, for the processes that are our own."""

    def __init__(self, processes: list[int]) -> None:
        self.processes, self.before = processes, spent(processes)

    def share(self) -> float:
        return others_share(self.before, spent(self.processes))


def wait_until_quiet(processes: list[int], patience: float, seconds: float = 3.0) -> bool:
    """Look at the machine until others leave it alone for some `seconds`; false after `patience` seconds without that."""
    end = time.monotonic() + patience
    while True:
        watch = Watch(processes)
        time.sleep(seconds)
        if watch.share() <= LIMIT:
            return True
        if time.monotonic() > end:
            return False
