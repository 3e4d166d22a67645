"""A share of the examples is held out, for an evaluation on what was not trained on; and which texts were, to be known again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from softspoken.types import Example, InputError

TRAINED_ON = "trained_on.txt"
"""In a run's folder: a digest of each text that it was trained on, one a line."""


def hold_out(examples: Sequence[Example], share: float, seed: int, source: str) -> tuple[list[Example], list[Example]]:
    """(to train on, held out): whole groups, and rows of one text together, drawn by the seed until `share` of the rows is reached.

    The same rows for the same examples, share and seed, whatever their order. Raises InputError where all rows are of one group.
    """
    groups: dict[str, list[int]] = {}
    for row, example in enumerate(examples):
        groups.setdefault(example.group or example.text, []).append(row)
    if len(groups) < 2:
        raise InputError(
            f"{source}: all its rows are of one group, so none can be held out; give --eval_dataset, or --eval_share 0 to evaluate on what "
            "is trained on"
        )
    held: set[int] = set()
    drawn = sorted(groups, key=lambda group: hashlib.sha256(f"{seed}\n{group}".encode()).digest())
    for group in drawn[:-1]:  # one is left to train on
        if held and len(held) + len(groups[group]) / 2 > share * len(examples):
            break
        held.update(groups[group])
    return (
        [example for row, example in enumerate(examples) if row not in held],
        [example for row, example in enumerate(examples) if row in held],
    )


def group_names(examples: Sequence[Example]) -> list[str]:
    """What each example's group is called, equal where two are not independent: rows of one text are not, whatever their ids."""
    first: dict[str, str] = {}
    return [example.group or f"id:{first.setdefault(example.text, example.id)}" for example in examples]


def digests(examples: Sequence[Example]) -> list[str]:
    return [hashlib.sha256(example.text.encode()).hexdigest()[:16] for example in examples]


def trained_on(examples: Sequence[Example], run: Path) -> int:
    """How many of them the run in that folder was trained on, as far as it says."""
    path = run / TRAINED_ON
    known = {*path.read_text(encoding="ascii", errors="replace").split()} if path.is_file() else set()
    return sum(digest in known for digest in digests(examples)) if known else 0
