"""Where the measurement lies and how large it is: the whole thing, or a trial of it in a few minutes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from softspoken.config import TrainConfig
from softspoken.tasks.task import load_task, reward_of

RECIPE = TrainConfig(reward=reward_of(load_task(TrainConfig.task), None))
"""softspoken's defaults, with the reward that they come to. Where TRL is to be alike, it gets them too."""
REWARD_JUDGE, OTHER_JUDGE = "mini", "profanity"
"""What the reward is made of, and one that it never saw."""


@dataclass(frozen=True)
class Settings:
    """Paths are relative to the repository's root, from which everything here is run."""

    work: Path = Path(".work/effect")
    """trainings, evaluations and the made dialogues: not committed"""
    results: Path = Path("benchmarks/effect/results")
    page: Path = Path("docs/results.md")
    data: Path = Path("../shared/data")
    steps: int | None = None
    """of a training; by default the recipe's"""
    limit: int | None = None
    """dialogues of each evaluation; by default as many as it is meant to have"""
    seeds: tuple[int, ...] = (0, 1, 2)
    curve_steps: int = 500
    snapshots: tuple[int, ...] = (10, 20, 30, 40, 50, 70, 100, 150, 200, 250, 300, 350, 400, 450, 500)
    snapshot_every: int = 10


def short(limit: int | None) -> Settings:
    work = Path(".work/effect-short")
    return Settings(
        work=work,
        results=work / "results",
        page=work / "results.md",
        steps=2,
        limit=limit or 24,
        seeds=(0, 1),
        curve_steps=6,
        snapshots=(2, 4, 6),
        snapshot_every=2,
    )
