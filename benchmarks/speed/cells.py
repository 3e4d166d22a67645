"""What is measured: the cells, and the groups of them that take turns. Standard library only: every worker imports it."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

Scope = Literal["all", "decoder"]
SCOPES: tuple[Scope, ...] = ("all", "decoder")
LORA_RANK = 16
LEARNING_RATE = 1.41e-5
"""TRL's default. Small, so that no side ends an update early or skips a mini-batch."""
MICRO_BATCH_TOKENS = 1024
"""Ours on a CPU, adapter everywhere: prompts of similar length together, as many as have no more tokens than these."""
MICRO_BATCH = 4
"""Adapter in the decoder, whose update does not compute the prompts again: so many rows, however long."""
SAMSUM_LENGTHS = [38, 52, 64, 75, 87, 98, 110, 121, 134, 147, 162, 182, 209, 243, 312, 382]
"""Prompt tokens of sixteen dialogues distributed as SAMSum's are: mean 151, longest 382."""
WORDS = 32_100
"""Tokens in T5's vocabulary; its models have 28 logits more."""
FIRST_WORD = 3
"""Before it lie padding, end of sequence and unknown."""


@dataclass(frozen=True)
class Cell:
    """One way to do one training step."""

    side: Literal["softspoken", "legacy", "transformers"]
    """legacy: TRL 0.11.4's PPOTrainer; transformers: its generate alone, on softspoken's model."""
    model: str = "flan-t5-small"
    scope: Scope = "all"
    """where the adapter lies"""
    batch: int = 16
    mini_batch: int = 8
    epochs: int = 4
    new_tokens: int = 48
    prompt_tokens: int | None = None
    """the same for every dialogue; by default lengths like SAMSum's"""
    generation: Literal["batched", "one_at_a_time"] = "batched"
    """legacy alone: `generate` on the whole batch, or the loop over single dialogues that the notebooks have"""
    device: Literal["cpu", "cuda"] = "cpu"
    dtype: Literal["float32", "bfloat16"] = "float32"

    @property
    def key(self) -> str:
        return "-".join(str(value) for value in asdict(self).values() if value is not None)

    @property
    def micro_batch(self) -> int:
        return MICRO_BATCH if self.device == "cpu" and self.scope == "decoder" else self.mini_batch


@dataclass(frozen=True)
class Group:
    """Cells that take turns, step by step, so that each round compares them under the same conditions."""

    cells: list[Cell]
    rounds: int
    stay: bool = True
    """Workers live through all rounds and warm up first; false: each step in a process of its own, for large models."""
    rated: bool = True
    """The rate of matrix products is measured before each step of ours, for its floor."""


def prompt_lengths(cell: Cell) -> list[int]:
    """Tokens of each prompt of a batch, in an order that knows nothing of length."""
    if cell.prompt_tokens is not None:
        return [cell.prompt_tokens] * cell.batch
    count = len(SAMSUM_LENGTHS)
    # Every part of the distribution also in a batch of fewer than sixteen.
    lengths = [SAMSUM_LENGTHS[(place * count // min(count, cell.batch)) % count] for place in range(cell.batch)]
    if cell.batch < count:
        lengths[-1] = SAMSUM_LENGTHS[-1]
    random.Random(0).shuffle(lengths)
    return lengths


def prompt_ids(cell: Cell) -> list[list[int]]:
    """The same token ids for every side."""
    draw = random.Random(1)
    return [[draw.randrange(FIRST_WORD, WORDS) for _ in range(length - 1)] + [1] for length in prompt_lengths(cell)]


# ------------------------------------------------------------------------------------------------------ what is run


def full() -> list[Group]:
    """Both models, 1 and 4 epochs, a batch of 64 for one step. Small ones first; base takes most of the time."""
    groups = []
    for model, rounds in (("flan-t5-small", 5), ("flan-t5-base", 2)):
        stay = model == "flan-t5-small"
        for epochs in (4, 1):
            cells = four_sides(Cell("softspoken", model=model, epochs=epochs))
            cells.append(Cell("legacy", model=model, epochs=epochs, generation="one_at_a_time"))
            # What the goals are held against is measured twice as often: on a shared machine a step's time varies by a fifth.
            groups.append(Group(cells, 2 * rounds if epochs == 4 else rounds, stay))
        groups.append(Group(four_sides(Cell("softspoken", model=model, batch=64)), rounds=1, stay=False))
    return sorted(groups, key=lambda group: group.cells[0].batch)


def short() -> list[Group]:
    """The main comparison, in less than ten minutes on two cores."""
    return [
        Group([cell for cell in four_sides(Cell("softspoken", epochs=epochs)) if not _legacy_decoder(cell)], rounds)
        for epochs, rounds in ((4, 3), (1, 2))
    ]


def cuda() -> list[Group]:
    """The base model at a GPU's batch, in both precisions, and transformers' own generate beside our sampling."""
    groups = []
    for dtype in ("bfloat16", "float32"):
        cell = Cell("softspoken", model="flan-t5-base", batch=64, mini_batch=16, new_tokens=60, device="cuda")
        cell = replace(cell, dtype=dtype)
        groups.append(Group([*four_sides(cell), replace(cell, side="transformers")], rounds=3))
    return groups


def four_sides(cell: Cell) -> list[Cell]:
    """The same work by softspoken and by TRL, with the adapter everywhere and in the decoder only."""
    return [replace(cell, side=side, scope=scope) for side in ("softspoken", "legacy") for scope in SCOPES]


def _legacy_decoder(cell: Cell) -> bool:
    return cell.side == "legacy" and cell.scope == "decoder"


# --------------------------------------------------------------------------------------------------------- results


def kept(records: list[dict[str, Any]]) -> dict[tuple[str, int], dict[str, Any]]:
    """(key of the cell, round) → the sample that counts; those taken under other load are left out."""
    return {(Cell(**r["cell"]).key, r["round"]): r for r in records if r["kind"] == "sample" and r["kept"]}


def missing(group: Group, records: list[dict[str, Any]]) -> list[tuple[int, Cell]]:
    """What is still to be measured, round by round; every other round backwards, so that a drift favours no side."""
    done = kept(records)
    return [
        (number, cell)
        for number in range(group.rounds)
        for cell in (group.cells if number % 2 == 0 else group.cells[::-1])
        if (cell.key, number) not in done
    ]
