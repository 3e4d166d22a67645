"""Which texts a run trains on: the hottest, with some of the rest among them.

A chat in which nobody is abusive teaches a summarizer nothing of abuse: its samples score alike, or differ by what is not meant. The
ranking is made once, before the first step, and kept in the run's folder, so that a run that goes on trains on the same.
"""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import torch

from softspoken.config import TrainConfig
from softspoken.models.pretrained import resolve_device
from softspoken.rewards.judges import Judge
from softspoken.rewards.terms import load_judge
from softspoken.runtime import processes
from softspoken.runtime.progress import progress_bar
from softspoken.tasks.summarization import worst_lines
from softspoken.tasks.task import Task
from softspoken.training.start import judges_of
from softspoken.types import Example, InputError

log = logging.getLogger(__name__)

FOCUS_FILE = "focus.json"
WINDOW = 64
"""Texts whose lines are judged at once."""


def sizes(count: int, config: TrainConfig) -> tuple[int, int]:
    """Of `count` texts, how many are trained on for their heat, and how many of the rest."""
    hot = min(count, max(1, round(config.focus_share * count)))
    rest = round(hot * config.focus_rest / (1 - config.focus_rest))
    return hot, min(rest, count - hot)


def focus_on(config: TrainConfig, task: Task, examples: list[Example], run: Path) -> tuple[list[Example], str | None]:
    """The examples to train on, in their order, and what the run is to keep of the choice; without focus all of them, and nothing.

    Raises InputError where there is no judge, or where the run that goes on was begun with other texts.
    """
    if config.focus == "none":
        return examples, None
    saved = run / FOCUS_FILE
    goes_on = processes.from_first(saved.is_file() and not config.overwrite)
    choice = _saved(saved, examples) if goes_on else _ranked(config, task, examples)
    return [examples[row] for row in choice["rows"]], json.dumps(choice) + "\n"


def _ranked(config: TrainConfig, task: Task, examples: list[Example]) -> dict[str, Any]:
    judges = judges_of(config, task)
    if not judges:
        raise InputError("focus 'heat' cannot be used: there is no judge of toxicity; name one with --judge")
    device = str(resolve_device(config.device))
    heat = heat_of(examples, load_judge(judges[0], device=device, detoxify_sha256=config.detoxify_sha256))
    rows = chosen_rows(heat, config)
    hot, rest = sizes(len(examples), config)
    least = sorted(heat, reverse=True)[hot - 1]
    log.info(
        "focus: %d of %d texts, whose worst line %s finds toxic by %.3f or more, and %d of the others",
        hot,
        len(examples),
        judges[0],
        least,
        rest,
    )
    return {
        "judge": judges[0],
        "texts": _digest(examples),
        "hot": hot,
        "rest": rest,
        "least_heat": round(least, 6),
        "rows": rows,
        "heat": [round(one, 4) for one in heat],
    }


def heat_of(examples: list[Example], judge: Judge) -> list[float]:
    """The toxicity of each text's worst line."""
    found: list[float] = []
    with progress_bar("focus") as bar:
        ranking = bar.add_task("focus", total=len(examples))
        for first in range(0, len(examples), WINDOW):
            some = examples[first : first + WINDOW]
            found += worst_lines(some, lambda lines: judge(lines)[judge.labels[0]])
            bar.advance(ranking, len(some))
    return found


def chosen_rows(heat: list[float], config: TrainConfig) -> list[int]:
    """The hottest, and of the others as many as are wanted, drawn by the seed; of those that are as hot the first."""
    hot, rest = sizes(len(heat), config)
    order = sorted(range(len(heat)), key=lambda row: -heat[row])
    others = order[hot:]
    drawn = torch.randperm(len(others), generator=torch.Generator().manual_seed(config.seed)).tolist()[:rest]
    return sorted([*order[:hot], *(others[place] for place in drawn)])


def _saved(path: Path, examples: list[Example]) -> dict[str, Any]:
    try:
        text = processes.from_first(path.read_text(encoding="utf-8") if processes.first() else "")
        choice = dict(json.loads(text))
        rows, texts = [examples[row] for row in choice["rows"]], choice["texts"]
    except (OSError, ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
        raise InputError(
            f"resume: {path} cannot be read ({error}); restore it, or start again with --overwrite true"
        ) from error
    if texts != _digest(examples) or not rows:
        raise InputError(f"resume: the texts are not those that {path} ranks; restore them")
    return choice


def _digest(examples: list[Example]) -> str:
    return hashlib.sha256(json.dumps([example.text for example in examples]).encode()).hexdigest()
