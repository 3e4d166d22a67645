"""The settings of sweep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from softspoken.config.help import explained
from softspoken.config.ranges import check_settings


@explained("""
    >>> softspoken.SweepConfig(file={"search": {"learning_rate": [1e-3, 4e-3]}, "seeds": [0, 1]}).trials
    20
""")
@dataclass(frozen=True)
class SweepConfig:
    """Train with many settings and seeds, and put what came of them on one page."""

    file: str | dict[str, Any]
    """YAML file, or in Python the mapping that it would hold: train (settings that all runs share), search (setting: [values] or {low, high, log}), seeds (a list)"""
    output: str = "sweep"
    """folder of the runs, the study and the page; a sweep that was stopped there goes on"""
    trials: int = 20
    """how many combinations are tried, each with every seed (with sampler grid, at most all of them)"""
    sampler: Literal["tpe", "random", "grid"] = "tpe"
    """how they are chosen: by what was learned from those before (tpe), at random, or all of them (grid)"""
    prune: bool = True
    """end a trial early whose evaluations on the way (eval_every) are worse than the median of the trials before"""

    def __post_init__(self) -> None:
        check_settings(self)
