"""What accelerate's save_state leaves out, and load_state then leaves as it was: the weights, and what a trainer keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from softspoken.types import InputError

WEIGHTS_FILE = "trained.safetensors"
TRAINER_FILE = "trainer.json"


def keep_with_states(trainer: Any) -> None:
    """From now on `trainer.accelerator` saves and loads a PPOTrainer whole, in safetensors and JSON beside its own files.

    The trainer's model is not accelerate's to prepare (its forward pass is not what `step` calls), so its weights are
    written here: those that train, the value head's among them.
    """
    trainer.accelerator.register_save_state_pre_hook(lambda _models, _weights, folder: _save(trainer, Path(folder)))
    trainer.accelerator.register_load_state_pre_hook(lambda _models, folder: _load(trainer, Path(folder)))


def _save(trainer: Any, folder: Path) -> None:
    weights = {name: weight.detach().cpu().contiguous() for name, weight in _trained(trainer).items()}
    kept = {
        "kl_coef": trainer.kl_ctl.value,
        "running": vars(trainer.running),
        "counters": {name: getattr(trainer, name) for name in ("current_step", "_compare_step", "_best_score")},
        "lr_scheduler": None if trainer.lr_scheduler is None else trainer.lr_scheduler.state_dict(),
    }
    try:
        text = json.dumps(kept)
    except TypeError as error:
        raise InputError(
            f"the state of lr_scheduler cannot be written as JSON ({error}); give one of plain numbers"
        ) from None
    save_file(weights, folder / WEIGHTS_FILE)
    (folder / TRAINER_FILE).write_text(text + "\n", encoding="utf-8")


def _load(trainer: Any, folder: Path) -> None:
    for name in (WEIGHTS_FILE, TRAINER_FILE):
        if not (folder / name).is_file():
            raise InputError(f"{folder} has no {name}; give a folder that this trainer's accelerator.save_state wrote")
    saved, weights = load_file(folder / WEIGHTS_FILE), _trained(trainer)
    if {name: weight.shape for name, weight in saved.items()} != {
        name: weight.shape for name, weight in weights.items()
    }:
        raise InputError(
            f"{folder} holds other weights than those that this trainer trains; make it from the same model"
        )
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(saved[name])  # in place: the optimizer holds these very tensors
    kept = json.loads((folder / TRAINER_FILE).read_text(encoding="utf-8"))
    trainer.kl_ctl.value = kept["kl_coef"]
    vars(trainer.running).update(kept["running"])
    vars(trainer).update(kept["counters"])
    if trainer.lr_scheduler is not None and kept["lr_scheduler"] is not None:
        trainer.lr_scheduler.load_state_dict(kept["lr_scheduler"])
    trainer.model.drawn.clear()


def _trained(trainer: Any) -> dict[str, Tensor]:
    return {name: weight for name, weight in trainer.model.named_parameters() if weight.requires_grad}
