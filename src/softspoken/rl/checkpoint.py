"""Everything a run needs to go on: adapter, value head, optimizer, schedule, KL weight. safetensors and JSON only.

Sampling and order depend on the seed and the step alone, so there is no random state to keep.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from softspoken.rl.policy import Policy
from softspoken.types import InputError

FOLDER = "checkpoints"
KEEP = 2


@dataclass(frozen=True)
class Progress:
    step: int
    """Steps done."""
    kl_coef: float
    schedule: dict[str, Any]
    """The learning-rate scheduler's state."""


def save_checkpoint(run: Path, progress: Progress, policy: Policy, optimizer: torch.optim.Optimizer) -> Path:
    """Written beside and renamed, so that a checkpoint that is there is whole; older ones than the last two go."""
    folder = run / FOLDER / f"step-{progress.step:06d}"
    beside = folder.with_name(f".{folder.name}.saving")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    weights = policy.trainable()
    save_file({name: weight.detach().contiguous() for name, weight in weights.items()}, beside / "weights.safetensors")
    save_file(_optimizer_tensors(weights, optimizer), beside / "optimizer.safetensors")
    (beside / "progress.json").write_text(json.dumps(vars(progress), indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    beside.replace(folder)
    for old in whole_checkpoints(run)[:-KEEP]:
        shutil.rmtree(old)
    return folder


def whole_checkpoints(run: Path) -> list[Path]:
    """The run's checkpoints, oldest first."""
    return sorted((run / FOLDER).glob("step-*"))


def load_checkpoint(run: Path, policy: Policy, optimizer: torch.optim.Optimizer) -> Progress | None:
    """Put the last whole checkpoint's weights and optimizer state in place; None where there is none yet."""
    checkpoints = whole_checkpoints(run)
    if not checkpoints:
        return None
    folder = checkpoints[-1]
    weights = policy.trainable()
    saved = load_file(folder / "weights.safetensors", device=str(policy.device))
    if saved.keys() != weights.keys():
        raise InputError(
            f"{folder} holds other weights than the model of the run's configuration; is its model the same?"
        )
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(saved[name])
    tensors = load_file(folder / "optimizer.safetensors", device=str(policy.device))
    for name, weight in weights.items():
        state = {key.split("|", 1)[1]: value for key, value in tensors.items() if key.split("|", 1)[0] == name}
        if "step" in state:
            state["step"] = state["step"].cpu()  # where AdamW keeps its counter
        if state:
            optimizer.state[weight] = state
    return Progress(**json.loads((folder / "progress.json").read_text(encoding="utf-8")))


def _optimizer_tensors(
    weights: dict[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer
) -> dict[str, torch.Tensor]:
    return {
        f"{name}|{key}": value.detach().clone().contiguous()
        for name, weight in weights.items()
        for key, value in optimizer.state.get(weight, {}).items()
    }
