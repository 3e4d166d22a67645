"""The estimates of some models as a small table of text: what lies there, the passes of a step, and the total, in gigabytes."""

from __future__ import annotations

from collections.abc import Iterable

from softspoken.config.estimating import EstimateConfig
from softspoken.estimating.memory import GIGA, Estimate

NOTES = {
    True: "The passes come one after the other, and a process on a CPU keeps what it has freed: all of them count.",
    False: "The passes come one after the other: the largest counts. A GPU's driver and libraries take half a gigabyte more; where there "
    "is room, graphs of T5's and mT5's passes take about as much as the largest again.",
}


def table(config: EstimateConfig, estimates: list[Estimate]) -> str:
    """One column a model, one line a part."""
    parts = list(dict.fromkeys(name for each in estimates for name in each.held))
    passes = list(dict.fromkeys(name for each in estimates for name in each.passes))
    keeps_freed = estimates[0].keeps_freed
    rows = [
        ["GB", *(each.model for each in estimates)],
        *([name, *(_gigabytes(each.held.get(name)) for each in estimates)] for name in parts),
        *([f"{name} *", *(_gigabytes(each.passes.get(name)) for each in estimates)] for name in passes),
        ["total", *(_gigabytes(each.total) for each in estimates)],
    ]
    if config.memory:
        rows.append(
            [
                f"fits {config.memory:g} GB",
                *("yes" if each.total <= config.memory * GIGA else "no" for each in estimates),
            ]
        )
    rows.append(["weights, millions", *(f"{each.parameters / 1e6:,.0f}" for each in estimates)])
    rows.append(["of them train", *(f"{each.trained / 1e6:,.2f}" for each in estimates)])
    return "\n".join([*_aligned(rows), f"* {NOTES[keeps_freed]}"]) + "\n"


def _gigabytes(size: float | None) -> str:
    return "" if size is None else f"{size / GIGA:.2f}"


def _aligned(rows: list[list[str]]) -> Iterable[str]:
    first, *others = (max(map(len, column)) for column in zip(*rows, strict=True))
    for name, *values in rows:
        cells = [value.rjust(width) for value, width in zip(values, others, strict=True)]
        yield "  ".join([name.ljust(first), *cells]).rstrip()
