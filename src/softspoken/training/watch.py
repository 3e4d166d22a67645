"""What decides, while a run trains, whether it goes on and which checkpoint is kept: the best one, patience, collapse.

Plain functions from what is known to what is known; it is saved with each checkpoint, so that a run that is gone on with decides the
same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from softspoken.config import TrainConfig
from softspoken.tasks.task import Guard, Task
from softspoken.types import InputError

COLLAPSED = 2
"""Steps in a row beyond a bound that end a run: a single one may be chance."""


@dataclass(frozen=True)
class Watched:
    start: dict[str, float] = field(default_factory=dict)
    """Figures of the evaluation of what training started from; empty where nothing is evaluated while it trains."""
    best_step: int = 0
    """0 while no evaluation was better than the start with the guards held."""
    best: float = 0.0
    """The objective there."""
    waited: int = 0
    """Evaluations since the best one."""
    crossed: int = 0
    """Steps in a row beyond a bound, so far."""
    ended: str = ""
    """Why training ended before its last step."""
    collapsed: bool = False
    """Whether it ended for its bounds: then the last checkpoint is from before they were crossed."""
    ended_step: int = 0


def watched_of(saved: Any, where: Path) -> Watched:
    """From a checkpoint. Raises InputError for what no run can have written there."""
    fresh = Watched()
    known = isinstance(saved, dict) and saved.keys() <= vars(fresh).keys()
    kinds = {name: (int, float) if isinstance(value, float) else type(value) for name, value in vars(fresh).items()}
    if not known or not all(isinstance(value, kinds[name]) for name, value in saved.items()):
        raise InputError(
            f"resume: progress.json of the last checkpoint in {where} is damaged (watched); delete that checkpoint, and the run goes on "
            "from the one before it"
        )
    return Watched(**saved)


def after_step(watched: Watched, step: int, metrics: Mapping[str, float], config: TrainConfig) -> Watched:
    """Whether the samples of this step are within the bounds that were set, and whether that is the end."""
    beyond = _beyond(metrics, config)
    if not beyond:
        return replace(watched, crossed=0)
    watched = replace(watched, crossed=watched.crossed + 1)
    if watched.crossed < COLLAPSED:
        return watched
    reason = f"collapse: {beyond} in {COLLAPSED} steps in a row"
    return replace(watched, ended=reason, collapsed=True, ended_step=step)


def after_evaluation(
    watched: Watched, step: int, figures: Mapping[str, float], task: Task, config: TrainConfig
) -> Watched:
    """Whether this evaluation is the best so far, and whether patience is at its end."""
    name, sign = task.objective.metric, 1 if task.objective.better == "higher" else -1
    least = watched.best if watched.best_step else watched.start.get(name)
    better = name in figures and least is not None and sign * figures[name] > sign * least
    if better and not lost_guards(figures, watched.start, task):
        return replace(watched, best_step=step, best=figures[name], waited=0)
    watched = replace(watched, waited=watched.waited + 1)
    if watched.ended or config.patience is None or watched.waited < config.patience:
        return watched
    since = f"the one at step {watched.best_step}" if watched.best_step else "the start"
    reason = f"patience: none of {watched.waited} evaluations in a row was better than {since} with the guards held"
    return replace(watched, ended=reason, ended_step=step)


def is_good(watched: Watched, forced: object) -> bool:
    """Whether a checkpoint may be written: none beyond the bounds, but for a run that has to stop there (`forced`)."""
    return not watched.collapsed and (not watched.crossed or bool(forced))


def lost_guards(figures: Mapping[str, float], start: Mapping[str, float], task: Task) -> list[str]:
    """The guards that moved by more than their margin; what is not measured guards nothing."""
    return [guard.metric for guard in task.guards if guard.metric in figures and _lost(guard, figures, start)]


def _lost(guard: Guard, figures: Mapping[str, float], start: Mapping[str, float]) -> bool:
    if guard.metric not in start:
        return False
    moved = figures[guard.metric] - start[guard.metric]
    if guard.better == "higher":
        return moved < -guard.margin
    return moved > guard.margin if guard.better == "lower" else abs(moved) > guard.margin


def _beyond(metrics: Mapping[str, float], config: TrainConfig) -> str:
    """The first bound that a step's samples lie beyond, in words."""
    highest = {"max_kl": ("objective/kl", "KL"), "max_response_tokens": ("tokens/response_mean", "tokens a response")}
    lowest = {
        "min_entropy": ("objective/entropy", "entropy"),
        "min_response_tokens": ("tokens/response_mean", "tokens a response"),
        "min_distinct": ("tokens/distinct_2", "distinct pairs of words"),
    }
    for setting, (metric, words) in (highest | lowest).items():
        bound, value = getattr(config, setting), metrics.get(metric)
        if bound is None or value is None:
            continue
        if value > bound if setting in highest else value < bound:
            return f"{words} {value:.3g} is {'above' if setting in highest else 'below'} {setting} {bound:g}"
    return ""
