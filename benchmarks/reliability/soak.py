"""A long training and a long generation: does the last hour take the memory and the time of the first?"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from statistics import mean

from scipy.stats import linregress, t

from benchmarks.records import Record
from benchmarks.reliability import children
from benchmarks.reliability.jobs import OUT, TINY, TRAIN, fresh, write_rows

BLOCKS = 20
"""Whose means the lines are drawn through, for neighbouring samples are not independent."""
WARM = 0.1
"""Of the work, left out at the beginning: caches fill."""
EVERY = 0.5
"""Seconds between samples."""
WORK = {"train": "steps", "generate": "texts"}
Point = tuple[int, float, float]
"""How much was done, the process's seconds of CPU, its MiB of memory."""


def soak(command: str, size: int, folder: Path) -> Record:
    """In CPU seconds, for what else the machine does is no matter of ours."""
    fresh(folder)
    if command == "train":
        argv = f"train {TINY} --dataset ../inputs/rows.jsonl {TRAIN} --steps {size} --save_every {max(1, size // 4)} --eval_limit 0 --output {OUT}"
        lines = folder / OUT / "metrics.jsonl"
    else:
        write_rows(folder.parent / "inputs/many.jsonl", size)
        argv = f"generate ../inputs/many.jsonl {TINY} --max_new_tokens 3 --batch_size 32 --output {OUT}"
        lines = folder / f".{OUT}.unfinished/lines.jsonl"
    points: list[Point] = []
    bound = children.BOUND + 5.0 * size
    ended = children.run(folder, argv.split(), bound=bound, watch=partial(_sample, points, _Lines(lines)))
    wrong = [] if ended.status == 0 else [f"exit {ended.status}: {ended.stderr[-300:]}"]
    kept = points[:: max(1, len(points) // 400)]
    return {"command": command, "size": size, "seconds": round(ended.seconds, 1), "points": kept, "wrong": wrong}


class _Lines:
    """How many a growing file has, by what was added to it."""

    def __init__(self, path: Path) -> None:
        self.path, self.place, self.count = path, 0, 0

    def __call__(self) -> int:
        if self.path.is_file():
            with self.path.open("rb") as file:
                file.seek(self.place)
                new = file.read()
            self.place, self.count = self.place + len(new), self.count + new.count(b"\n")
        return self.count


def _sample(points: list[Point], lines: _Lines, pid: int, seconds: float) -> None:
    if seconds < EVERY * (len(points) + 1):
        return
    process = Path(f"/proc/{pid}")
    memory = int((process / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    if memory:  # it has not just ended
        points.append((lines(), children.cpu_seconds(pid), round(memory, 2)))


def figures(record: Record) -> dict[str, tuple[float, float]]:
    """What memory (MiB) and speed (share of its mean) gain over the whole of it, each with half the width of its 95 % interval."""
    points: list[Point] = [tuple(one) for one in record["points"] if one[0] >= WARM * record["size"]]
    size = len(points) // BLOCKS
    blocks = [points[first : first + size + 1] for first in range(0, size * BLOCKS, size)] if size else []
    places = [mean(one[0] for one in block) for block in blocks]
    memory = [mean(one[2] for one in block) for block in blocks]
    seconds = [(block[-1][1] - block[0][1]) / max(1, block[-1][0] - block[0][0]) for block in blocks]
    found = {}
    for name, values, unit in (("memory", memory, 1.0), ("seconds", seconds, mean(seconds))):
        line = linregress(places, values)
        width = t.ppf(0.975, len(blocks) - 2) * line.stderr
        found[name] = (line.slope * record["size"] / unit, width * record["size"] / unit)
    return {**found, "level": (mean(memory), 0.0), "each": (mean(seconds), 0.0)}
