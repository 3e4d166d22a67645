"""One training of a system: by softspoken, by its supervised warm start, or by TRL. Done once, and again only if its settings
are other ones."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

import torch
import yaml

from benchmarks.effect import legacy_train
from benchmarks.effect.settings import RECIPE
from benchmarks.provenance import commit
from benchmarks.records import read_json, read_lines, write_json
from softspoken.config import SftConfig, TrainConfig
from softspoken.sft import sft
from softspoken.train import train as run

DONE_FILE = "done.json"
LEGACY = "benchmarks.effect.legacy_train"
Ended = tuple[float, int | None]
"""Seconds of the steps alone, and the steps after which it diverged, which TRL's may."""
STEP_SECONDS = {"ppo": 2.4, "sft": 0.7, "trl": 6.0}
"""Guesses, for the time that is left."""
OF_THE_FOLDER = ("output", "overwrite", "resume")
CALM_SFT = {"lora": True, "batch_size": 16, "learning_rate": 2e-3}
"""The same adapter as the recipe's, its dialogues once, with their calm references."""


@dataclass(frozen=True)
class Training:
    system: str
    seed: int
    folder: Path
    """Holds `adapter/` afterwards, and done.json: settings, seconds, threads, command, commit."""
    kind: Literal["ppo", "sft", "trl"] = "ppo"
    changes: dict[str, Any] = field(default_factory=dict)
    """Settings that are not the defaults."""

    @property
    def adapter(self) -> Path:
        return self.folder / "adapter"

    @property
    def config(self) -> dict[str, Any]:
        """Everything that it depends on, as JSON gives it back."""
        if self.kind == "trl":
            return {**self.changes, "seed": self.seed}
        return _without_folder(json.loads(json.dumps(asdict(config_of(self)))))

    @property
    def record(self) -> dict[str, Any] | None:
        """What done.json says; None where it was not done, or with other settings. One that diverged is done and has no adapter."""
        done = read_json(self.folder / DONE_FILE)
        if not done or done["config"] != self.config:
            return None
        return done if self.adapter.is_dir() or done.get("diverged_after") is not None else None

    @property
    def expected_seconds(self) -> float:
        if self.kind == "sft":
            return 125 * STEP_SECONDS["sft"] + 20
        steps = self.changes.get("steps", TrainConfig.steps)
        size = self.changes.get("batch_size", TrainConfig.batch_size) / TrainConfig.batch_size
        return 15 + steps * size * STEP_SECONDS[self.kind] * (1 + 0.4 * (self.changes.get("ppo_epochs", 1) - 1))

    @property
    def command(self) -> str:
        """What does the same without this benchmark."""
        if self.kind == "trl":
            options = {"output": self.folder, "seed": self.seed, **self.changes}
            return " ".join([f"python -m {LEGACY}", *(f"--{name} {value}" for name, value in options.items())])
        if self.kind == "sft":
            return command_line("softspoken sft", config_of(self), SftConfig(output=""))
        return command_line("softspoken train", config_of(self), RECIPE)


def config_of(training: Training) -> TrainConfig | SftConfig:
    if training.kind == "sft":
        return SftConfig(**training.changes, seed=training.seed, output=str(training.adapter))
    return train_config(training)


def train_config(training: Training) -> TrainConfig:
    """Without an evaluation of its own: those come after, on all systems side by side."""
    return replace(RECIPE, **training.changes, seed=training.seed, output=str(training.folder), eval_limit=0)


def command_line(command: str, config: Any, defaults: Any) -> str:
    """With what differs from the defaults."""
    given, usual = asdict(config), asdict(defaults)
    options = [f"--{name} {_quoted(value)}" for name, value in given.items() if value != usual[name]]
    return " ".join([command, *options])


def _quoted(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(_quoted, value))
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f'"{text}"' if " " in text else text


def train(training: Training) -> None:
    """A run that was stopped goes on from its last checkpoint if its settings are the same."""
    seconds, diverged_after = {"ppo": _train_ppo, "sft": _train_sft, "trl": _train_trl}[training.kind](training)
    record = {
        "config": training.config,
        "seconds": round(seconds, 1),
        "threads": torch.get_num_threads(),
        "command": training.command,
        "commit": commit(),
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "diverged_after": diverged_after,
    }
    write_json(training.folder / DONE_FILE, record)


def _train_ppo(training: Training) -> Ended:
    config = train_config(training)
    if may_resume(training.folder, training.config):
        config = replace(config, resume=str(training.folder))
    elif training.folder.exists():
        config = replace(config, overwrite=True)
    run(config)
    return sum(row["time/step"] for row in read_metrics(training.folder)), None


def may_resume(folder: Path, config: dict[str, Any]) -> bool:
    """Whether `folder` holds a run of just these settings."""
    path = folder / "config.yaml"
    return path.is_file() and _without_folder(yaml.safe_load(path.read_text(encoding="utf-8"))["config"]) == config


def _without_folder(config: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name not in OF_THE_FOLDER}


def _train_sft(training: Training) -> Ended:
    shutil.rmtree(training.folder, ignore_errors=True)
    start = time.perf_counter()
    sft(config_of(training))
    return time.perf_counter() - start, None


def _train_trl(training: Training) -> Ended:
    """One that diverged leaves no adapter."""
    shutil.rmtree(training.folder, ignore_errors=True)
    settings = legacy_train.Settings(output=str(training.folder), seed=training.seed, **training.changes)
    record = legacy_train.train(settings)
    return record["seconds"], record["steps"] if record["diverged"] else None


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """A step that was done again after a stop counts as it was done last."""
    return list({row["step"]: row for row in read_lines(folder / "metrics.jsonl")}.values())
