"""How a run begins: its folder, its record, how its examples are asked, its optimizer."""

from __future__ import annotations

import importlib.metadata
import logging
import sys
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
import yaml

from softspoken.config import TrainConfig
from softspoken.config.idle import say_what_is_idle
from softspoken.config.presets import followed, recommended
from softspoken.config.rewards import recorded_reward, reward_weights
from softspoken.data.holding_out import hold_out
from softspoken.data.prompts import PromptFormat
from softspoken.data.reading import is_one_set, name_of, only_split, read_examples, record_of
from softspoken.models.adapters import adapter_folder
from softspoken.models.learning_rates import learning_rates
from softspoken.models.pretrained import prompt_format_for
from softspoken.models.room import fitting_of
from softspoken.rewards.terms import default_judge, judge_term
from softspoken.rl.policy import Policy
from softspoken.runtime import processes
from softspoken.storage.run_folder import RunFolder, passing_folder, require_place
from softspoken.tasks.task import Task, asked, told
from softspoken.training.resuming import Changes
from softspoken.types import Example, InputError, counted

log = logging.getLogger(__name__)

CONFIG_FILE = "config.yaml"
ADAPTER, MODEL = "adapter", "model"
"""Where what was trained lies in a run's folder: an adapter, or a whole model."""
PACKAGES = ("softspoken", "torch", "transformers", "peft", "accelerate", "datasets", "tokenizers")


@dataclass(frozen=True)
class Evaluated:
    """What of a dataset the evaluation at the end is on."""

    split: str
    share: float = 0.0
    """The share of the training set that is held out for it; 0 where it has rows of its own, or is to have these."""
    rows: int = 0
    """How many rows that came to."""


def say_how_it_begins(config: TrainConfig, examples: int, at_end: Evaluated) -> None:
    """What was decided for the user, and what makes no difference, once all that can be wrong has been looked at."""
    say_what_is_idle(config)
    if at_end.rows and config.eval_split:
        log.warning(
            "eval_split %s makes no difference: %s is one set of rows", config.eval_split, name_of(config.dataset)
        )
    if taken := followed(config):
        settings = ", ".join(f"{name} {value:g}" for name, value in taken.items())
        preset = recommended(config.trained)
        log.info("%s is not mini: %s of the preset %s (docs/recommended.md)", config.model, settings, preset)
    if at_end.rows:
        kept = counted(at_end.rows, "row is", "rows are")
        trained = counted(examples, "row is", "rows are")
        log.info(
            "%s: %s trained on, and %s held out for the evaluation, in whole groups (--eval_share %g, seed %d)",
            *(name_of(config.dataset), trained, kept, at_end.share, config.seed),
        )


def evaluated(config: TrainConfig) -> Evaluated:
    """Of a hub set it asks the hub, so it is found out once."""
    own = config.eval_split or "test"
    if config.eval_dataset is not None or config.eval_limit == 0:
        return Evaluated(own)
    if is_one_set(config.dataset):
        return Evaluated(own, config.eval_share)
    if config.eval_split or only_split(config.dataset, config.dataset_config) is None:
        return Evaluated(own)
    return Evaluated(config.split, config.eval_share)


def training_examples(config: TrainConfig, task: Task) -> tuple[list[Example], Evaluated]:
    """What is trained on, and what the evaluation at the end is on."""
    at_end = evaluated(config)
    if not at_end.share:
        return read_examples(config, task, config.max_examples), at_end
    rest, held = hold_out(read_examples(config, task, None), at_end.share, config.seed, name_of(config.dataset))
    return rest[: config.max_examples], replace(at_end, rows=len(held))


def folder_of(config: TrainConfig) -> RunFolder:
    if not processes.first():
        return passing_folder()
    if config.resume is not None:
        path = Path(config.resume) / CONFIG_FILE
        if not path.is_file():
            raise InputError(f"resume: no run at {path.parent} (it has no {CONFIG_FILE}); give the folder of a run")
        return RunFolder(path.parent, add=True)
    if config.output is None:
        name = f"{Path(config.model).name}-{datetime.now().strftime('%Y%m%d-%H%M%S')}"
        return RunFolder(Path("runs") / name, numbered=True)
    sets = [name_of(rows) for rows in (config.dataset, config.eval_dataset) if rows is not None]
    rewards = list(reward_weights(config.reward)) if config.reward else []
    require_place(config.output, [config.model, config.adapter, *sets, *rewards, *(config.judge or [])])
    return RunFolder(config.output, replace=config.overwrite, go_on=f"--resume {config.output}")


def result_of(config: TrainConfig) -> str:
    """The folder in the run's that what was trained is written to."""
    return MODEL if config.trains_whole_model else ADAPTER


def record(config: TrainConfig, task: Task, changes: Changes, at: int, before: Path) -> str:
    """What config.yaml holds: the settings as they are now, and what was changed in them after which step."""
    said = {"after_step": at, **{name: [_plain(was), _plain(now)] for name, (was, now) in changes.items()}}
    earlier = yaml.safe_load(before.read_text(encoding="utf-8")) if changes and before.is_file() else {}
    record = {
        "config": asdict(_named(config)),
        "task": told(task),
        "versions": {"python": sys.version.split()[0], **{name: importlib.metadata.version(name) for name in PACKAGES}},
        "threads": torch.get_num_threads(),
        "command": earlier.get("command") or " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        **({"changes": [*earlier.get("changes", []), said]} if changes else {}),
    }
    return yaml.safe_dump(record, sort_keys=False)


def _plain(value: Any) -> Any:
    """A setting as YAML holds it: rows that were given in Python by their name."""
    return value if value is None or isinstance(value, str | int | float | bool | list | dict) else record_of(value)


def _named(config: TrainConfig) -> TrainConfig:
    """With names for rows and functions that were given in Python."""
    others = config.eval_dataset
    return replace(
        config,
        dataset=record_of(config.dataset),
        eval_dataset=None if others is None else record_of(others),
        reward=recorded_reward(config.reward),
    )


def judges_of(config: TrainConfig, task: Task) -> list[str]:
    """Those that were named, else the first among the rewards, else the task's; none where there is none."""
    assert config.reward
    if config.judge:
        return config.judge
    return [default_judge(config.reward)] if judge_term(config.reward) or task.judge else []


def prompt_format_of(config: TrainConfig, task: Task) -> PromptFormat:
    start = adapter_folder(config.adapter) if config.adapter else None
    wanted = prompt_format_for(config.model, start, default=PromptFormat(task.template), **asked(task, config))
    return fitting_of(wanted, config.model)


HIGH = 1e-3
"""A learning rate from which on a model's own weights are usually lost."""


def optimizer_of(policy: Policy, config: TrainConfig) -> tuple[torch.optim.Optimizer, Any]:
    if config.trains_whole_model and config.learning_rate >= HIGH:
        log.warning(
            "learning_rate %g is an adapter's; a model's own weights are usually trained at 1e-6 to 1e-4",
            config.learning_rate,
        )
    groups = [
        {"params": list(policy.adapter_parameters().values()), "lr": config.learning_rate},
        {"params": list(policy.value_head.parameters()), "lr": config.value_learning_rate},
    ]
    # Fused it is one kernel for all of an adapter's many small weights; on a CPU it stays what it was.
    fused = True if policy.device.type == "cuda" else None
    optimizer = torch.optim.AdamW(groups, eps=config.adam_epsilon, weight_decay=config.weight_decay, fused=fused)
    # One step more than there are, so that the last one still trains.
    return optimizer, learning_rates(optimizer, config.schedule, config.warmup_steps, config.steps + 1)
