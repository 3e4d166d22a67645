"""Samples → figures with their intervals: pure arithmetic on the records of a results file."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, replace
from typing import Any

from scipy.stats import sem
from scipy.stats import t as student

from benchmarks.records import Record
from benchmarks.speed.cells import Cell, Scope, kept
from benchmarks.speed.floor import cell_flops


@dataclass(frozen=True)
class Figure:
    """A mean with its 95 % interval (Student's t); for fewer than three samples the interval is their range."""

    mean: float
    low: float
    high: float
    n: int


def mean(values: list[float]) -> Figure:
    centre = statistics.fmean(values)
    if len(values) < 3:
        return Figure(centre, min(values), max(values), len(values))
    low, high = student.interval(0.95, len(values) - 1, centre, sem(values))
    return Figure(centre, float(low), float(high), len(values))


def geometric_mean(values: list[float]) -> Figure:
    """For ratios: the interval is symmetric in the logarithm."""
    found = mean([math.log(value) for value in values])
    return Figure(math.exp(found.mean), math.exp(found.low), math.exp(found.high), found.n)


class Results:
    """One results file: which cells it has, and what they come to."""

    def __init__(self, records: list[Record]) -> None:
        self.samples = kept(records)
        self.dropped = sum(record["kind"] == "sample" and not record["kept"] for record in records)
        self.machine: dict[str, Any] | None = next((r["machine"] for r in records if r["kind"] == "machine"), None)

    def measured(self, cells: list[Cell]) -> list[Cell]:
        return [cell for cell in cells if self.of(cell)]

    def cells(self) -> list[Cell]:
        return list(dict.fromkeys(Cell(**record["cell"]) for record in self.samples.values()))

    def of(self, cell: Cell) -> dict[int, Record]:
        """Round → sample."""
        return {number: record for (key, number), record in self.samples.items() if key == cell.key}

    def versions(self) -> dict[str, dict[str, str]]:
        """Side → the versions it ran with."""
        return {record["cell"]["side"]: record["versions"] for record in self.samples.values()}

    def commits(self, cells: list[Cell]) -> list[str]:
        """Of this repository, at which these cells were measured."""
        return sorted({record["commit"] for cell in cells for record in self.of(cell).values()})

    def rates(self) -> dict[tuple[str, str], list[float]]:
        """(model, dtype) → the rates of matrix products that were seen, in operations a second."""
        found: dict[tuple[str, str], list[float]] = {}
        for record in self.samples.values():
            if "flops" in record:
                found.setdefault((record["cell"]["model"], record["cell"]["dtype"]), []).append(record["flops"])
        return found

    def seconds(self, cell: Cell) -> Figure:
        return mean([record["seconds"] for record in self.of(cell).values()])

    def step(self, cell: Cell) -> float:
        return self.seconds(cell).mean

    def phase(self, cell: Cell, name: str) -> float | None:
        """Mean seconds of a phase; `other` is what the named ones leave."""
        records = list(self.of(cell).values())
        if name == "other":
            return statistics.fmean(record["seconds"] - math.fsum(record["phases"].values()) for record in records)
        found = [record["phases"][name] for record in records if name in record["phases"]]
        return statistics.fmean(found) if found else None

    def peak(self, cell: Cell) -> float:
        """Bytes, of the process or of the GPU's memory: the most of all samples."""
        name = "peak_gpu_bytes" if cell.device == "cuda" else "peak_bytes"
        return max(float(record[name]) for record in self.of(cell).values())

    def padding_share(self, cell: Cell) -> float:
        """Of all positions the encoder computed in a step, in every pass."""
        record = next(iter(self.of(cell).values()))
        return 1 - record["encoder_tokens"] / record["encoder_positions"]

    def times_faster(self, cell: Cell, other: Cell, phase: str | None = None) -> Figure | None:
        """The other's seconds over ours, round by round; None without a round that has both."""
        ours, theirs = self.of(cell), self.of(other)

        def time(record: Record) -> float:
            return record["seconds"] if phase is None else record["phases"][phase]

        ratios = [time(theirs[number]) / time(ours[number]) for number in ours if number in theirs]
        return geometric_mean(ratios) if ratios else None

    def times_floor(self, cell: Cell) -> Figure | None:
        """Each sample's seconds over those that its operations take at the rate seen before ours of that round and scope."""
        ours = self.of(replace(cell, side="softspoken", generation="batched"))
        ratios = [
            record["seconds"] * ours[number]["flops"] / cell_flops(cell)
            for number, record in self.of(cell).items()
            if "flops" in ours.get(number, {})
        ]
        return geometric_mean(ratios) if ratios else None


def legacy_of(cell: Cell, scope: Scope) -> Cell:
    """TRL on the same work, with its adapter where `scope` says."""
    return replace(cell, side="legacy", scope=scope, generation="batched")
