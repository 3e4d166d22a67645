"""Everything a run needs to go on: adapter, value head, optimizer, schedule, KL weight. safetensors and JSON only.

Sampling and order depend on the seed and the step alone, so there is no random state to keep.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from softspoken.config import TrainConfig
from softspoken.rl.policy import Policy
from softspoken.runtime import processes
from softspoken.storage.run_folder import RunFolder
from softspoken.types import InputError, RunError, first_line

log = logging.getLogger(__name__)

FOLDER = "checkpoints"
KEEP = 2


@dataclass(frozen=True)
class Progress:
    step: int
    """Steps done."""
    kl_coef: float
    schedule: dict[str, Any]
    """The learning-rate scheduler's state."""
    watched: dict[str, Any] = field(default_factory=dict)
    """What was decided so far on whether to go on and which checkpoint to keep (training/watch.py)."""


def save_checkpoint(
    folder: RunFolder, progress: Progress, policy: Policy, optimizer: torch.optim.Optimizer, best_step: int = 0
) -> None:
    """A checkpoint that is there is whole; older ones than the last two go, but for that of the best step. Of several processes the
    first writes it, once it is sure that all have the same weights; however many there are, as many or as few can go on from it."""
    weights = policy.trainable()
    _require_alike(weights, progress.step)
    if not processes.first():
        return
    with folder.replacing(f"{FOLDER}/{_name(progress.step)}") as beside:
        save_file(
            {name: weight.detach().contiguous() for name, weight in weights.items()}, beside / "weights.safetensors"
        )
        save_file(_optimizer_tensors(weights, optimizer), beside / "optimizer.safetensors")
        (beside / "progress.json").write_text(json.dumps(vars(progress), indent=2) + "\n", encoding="utf-8")
    prune(folder, best_step)


def checkpoint_bytes(weights: Iterable[torch.Tensor], *, best: bool) -> int:
    """What checkpoints take at most: those that are kept (with the `best` one, another) and the one that is written, each with two
    moments for each weight."""
    return (KEEP + best + 1) * 3 * sum(weight.numel() * weight.element_size() for weight in weights)


def prune(folder: RunFolder, best_step: int = 0) -> None:
    """Older checkpoints than the last two go, but for that of the best step, and what a stop in the middle of that has left of them."""
    kept = whole_checkpoints(folder.path)[-KEEP:]
    for old in sorted((folder.path / FOLDER).glob("step-*")):
        if old not in kept and old.name != _name(best_step):
            folder.remove(f"{FOLDER}/{old.name}")


def load_weights(run: Path, step: int, policy: Policy) -> None:
    """Put the weights of that step's checkpoint in place. Raises InputError for one that cannot be read."""
    folder = run / FOLDER / _name(step)
    if processes.first():
        _put_in_place(folder, _weights_of(folder), {}, policy, None)
    processes.broadcast(list(policy.trainable().values()))


def _weights_of(folder: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(folder / "weights.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(
            f"{folder}, the best checkpoint, cannot be read ({first_line(error)}); resume with --keep last"
        ) from error


def _name(step: int) -> str:
    return f"step-{step:06d}"


def _require_alike(weights: Mapping[str, torch.Tensor], step: int) -> None:
    if processes.size() == 1:
        return
    sums = [sum(weight.detach().double().sum().item() for weight in weights.values())]
    if len({*map(tuple, processes.gather(sums))}) > 1:
        raise RunError(f"step {step}: the processes do not have the same weights any more; start the run again")


def whole_checkpoints(run: Path) -> list[Path]:
    """The run's checkpoints, oldest first."""
    return sorted(path for path in (run / FOLDER).glob("step-*") if (path / "progress.json").is_file())


def load_checkpoint(run: Path, policy: Policy, optimizer: torch.optim.Optimizer) -> Progress | None:
    """Put the last whole checkpoint's weights and optimizer state in place; None where there is none yet.

    One that cannot be read is said, and the one before it taken. Raises InputError where none can, and for one whose weights are
    not those of the run's configuration. Of several processes the first reads, and all have what it has, from the start on.
    """
    progress = _read_checkpoint(run, policy, optimizer) if processes.first() else None
    if processes.size() == 1:
        return progress
    weights = policy.trainable()
    processes.broadcast(list(weights.values()))
    moments = _optimizer_tensors(weights, optimizer) if processes.first() else {}
    shapes = processes.from_first({key: list(moment.shape) for key, moment in moments.items()})
    there = {key: moments.get(key, torch.zeros(shape)) for key, shape in shapes.items()}
    processes.broadcast(list(there.values()))
    _put_state(there, weights, optimizer)
    said = processes.from_first(vars(progress) if progress else None)
    return Progress(**said) if said else None


def _read_checkpoint(run: Path, policy: Policy, optimizer: torch.optim.Optimizer) -> Progress | None:
    checkpoints = whole_checkpoints(run)
    for folder in reversed(checkpoints):
        try:
            saved = {name: load_file(folder / f"{name}.safetensors") for name in ("weights", "optimizer")}
            progress = Progress(**json.loads((folder / "progress.json").read_text(encoding="utf-8")))
            _check_progress(progress)
        except (OSError, ValueError, TypeError, KeyError, RecursionError, SafetensorError) as error:
            reason = first_line(error)
            log.warning("%s cannot be read (%s); going on from the checkpoint before it", folder, reason)
            continue
        _put_in_place(folder, saved["weights"], saved["optimizer"], policy, optimizer)
        return progress
    if checkpoints:
        raise InputError(
            f"resume: no checkpoint in {run / FOLDER} can be read; start the run again with --overwrite true"
        )
    return None


def _check_progress(progress: Progress) -> None:
    """Raises ValueError for what no run can have written."""
    rates = progress.schedule["_last_lr"]  # TypeError, where it is no mapping
    if not (
        isinstance(progress.step, int) and progress.step > 0 and all(map(math.isfinite, [progress.kl_coef, *rates]))
    ):
        raise ValueError("progress.json does not say how far the run was")


def _put_in_place(
    folder: Path,
    saved: dict[str, torch.Tensor],
    tensors: dict[str, torch.Tensor],
    policy: Policy,
    optimizer: torch.optim.Optimizer | None,
) -> None:
    weights = policy.trainable()
    other = [name for name in {**weights, **saved} if _shape(weights, name) != _shape(saved, name)]
    for key, value in tensors.items():
        name, _, what = key.partition("|")
        if name not in weights or (what != "step" and value.shape != weights[name].shape):
            other.append(name)
    if other:
        name = other[0]
        raise InputError(
            f"{folder} holds other weights than the run's configuration makes ({name}: {_shape(saved, name)} for "
            f"{_shape(weights, name)}); are its model, lora_r and lora_targets the same?"
        )
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(saved[name])
    if optimizer is not None:
        _put_state(tensors, weights, optimizer)


def _put_state(
    tensors: Mapping[str, torch.Tensor], weights: Mapping[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer
) -> None:
    state: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        name, _, what = key.partition("|")
        state.setdefault(name, {})[what] = value
    fused = bool(optimizer.defaults.get("fused"))  # else AdamW keeps its counter on the CPU
    for name, moments in state.items():
        optimizer.state[weights[name]] = {
            what: value.to("cpu" if what == "step" and not fused else weights[name].device)
            for what, value in moments.items()
        }


def _shape(weights: Mapping[str, torch.Tensor], name: str) -> str:
    return str(list(weights[name].shape)) if name in weights else "nothing"


def _optimizer_tensors(
    weights: dict[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer
) -> dict[str, torch.Tensor]:
    return {
        f"{name}|{key}": value.detach().clone().contiguous()
        for name, weight in weights.items()
        for key, value in optimizer.state.get(weight, {}).items()
    }


# ------------------------------------------------------------------------------------------------ the configuration


def saved_config(path: Path) -> TrainConfig:
    """What a run was started with. Raises InputError for a file that was changed into what no run can be started with."""
    where = f"resume: {path}"
    try:
        saved = yaml.safe_load(processes.from_first(path.read_text(encoding="utf-8") if processes.first() else ""))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise InputError(f"{where} cannot be read ({' '.join(str(error).split())[:200]}); restore it") from error
    settings = saved.get("config") if isinstance(saved, dict) else None
    if not isinstance(settings, dict):
        raise InputError(f"{where} has no settings in it; restore it")
    known = {setting.name for setting in fields(TrainConfig)}
    for name in settings:
        if name not in known:
            raise InputError(f"{where} has a setting {name!r} that train does not know; remove it")
    try:
        return replace(TrainConfig(**settings), resume=None, overwrite=False)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
