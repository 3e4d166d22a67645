"""How the cost of a step grows: one thing is varied at a time, from one common point."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from benchmarks.speed.cells import SCOPES, Cell, Group, Scope
from benchmarks.speed.floor import SHAPES, parameters

START = Cell("softspoken", epochs=1)
"""Where all sweeps meet: flan-t5-small, batch 16, SAMSum's lengths, 48 new tokens, one epoch."""
ROUNDS = 2
LONG_RUN = 1000
"""Steps of the long run: whether memory grows with the steps done. Answered: its rows stay in the results."""


@dataclass(frozen=True)
class Sweep:
    field: str
    label: str
    values: list[Any]

    def cells(self, scope: Scope) -> list[Cell]:
        changes: list[dict[str, Any]] = [{self.field: value, "scope": scope} for value in self.values]
        return [replace(START, **change) for change in changes]

    def place(self, cell: Cell) -> float:
        """On the axis: models lie at their millions of parameters."""
        return parameters(SHAPES[cell.model]) / 1e6 if self.field == "model" else float(getattr(cell, self.field))


SWEEPS = [
    Sweep("batch", "dialogues in a batch", [4, 8, 16, 32, 64, 128, 256]),
    Sweep("prompt_tokens", "tokens of a dialogue", [32, 64, 128, 256, 512, 1024]),
    Sweep("new_tokens", "tokens of a summary", [8, 16, 32, 64, 128]),
    Sweep("epochs", "PPO epochs", [1, 2, 4, 8]),
    Sweep("model", "million parameters", ["flan-t5-small", "flan-t5-base", "flan-t5-large"]),
]


def groups() -> list[Group]:
    """All sweeps' cells, those of a large batch last: they take longest."""
    found = [
        Group([all_, decoder], ROUNDS, rated=False)
        for sweep in SWEEPS
        for all_, decoder in zip(*(sweep.cells(scope) for scope in SCOPES), strict=True)
    ]
    once = {group.cells[0]: group for group in found}  # the sweeps' common point
    return sorted(once.values(), key=lambda group: group.cells[0].batch)
