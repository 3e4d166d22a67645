"""Other load on the machine while something is measured, from Linux's own counters in clock ticks."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

LIMIT = 0.05
"""A sample during which others used more than this share of all cores is dropped."""


@dataclass(frozen=True)
class Ticks:
    total: int
    """Of all cores together, since the machine started."""
    busy: int
    """Of these, those in which a core worked, for us, for others, or for another machine on the same host (steal)."""


def parse_machine(text: str) -> Ticks:
    """The first line of /proc/stat: cpu user nice system idle iowait irq softirq steal guest guest_nice."""
    fields = [int(field) for field in text.splitlines()[0].split()[1:9]]  # guests are counted in user and nice already
    idle, iowait = fields[3:5]
    return Ticks(sum(fields), sum(fields) - idle - iowait)


def parse_process(text: str) -> int:
    """/proc/PID/stat: utime and stime of the process, of all its threads, and of children that have ended."""
    fields = text.rpartition(")")[2].split()  # the name before it may hold blanks
    return sum(int(field) for field in fields[11:15])


def others_share(before: Ticks, after: Ticks, own: int) -> float:
    """The share of all cores that went to anything but our `own` ticks, in [0, 1]."""
    total = after.total - before.total
    return max(0, after.busy - before.busy - own) / total if total > 0 else 0.0


class Watch:
    """Others' share of the machine since it was made, for the processes that are our own."""

    def __init__(self, processes: list[int]) -> None:
        self.processes = processes
        self.before, self.own = _machine(), self._own()

    def share(self) -> float:
        return others_share(self.before, _machine(), self._own() - self.own)

    def _own(self) -> int:
        return sum(parse_process(Path(f"/proc/{number}/stat").read_text()) for number in self.processes)


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


def _machine() -> Ticks:
    return parse_machine(Path("/proc/stat").read_text())
