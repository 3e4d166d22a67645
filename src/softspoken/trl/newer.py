"""Keywords of the PPOTrainer and PPOConfig that TRL has had since 0.12: what they are called here, where they are anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from softspoken.types import InputError

TRAINER: Mapping[str, str | None] = {
    "args": "config",
    "processing_class": "tokenizer",
    "train_dataset": "dataset",
    "optimizers": "optimizer",
    **dict.fromkeys(["eval_dataset", "reward_model", "value_model", "callbacks", "peft_config"]),
}
CONFIG: Mapping[str, str | None] = {
    "num_ppo_epochs": "ppo_epochs",
    "kl_coef": "init_kl_coef",
    "per_device_train_batch_size": "mini_batch_size",
    "total_episodes": "steps",
    "num_train_epochs": None,
    **dict.fromkeys(["output_dir", "response_length", "num_mini_batches", "local_rollout_forward_batch_size"]),
    **dict.fromkeys(["missing_eos_penalty", "stop_token", "sft_model_path", "reward_model_path", "kl_estimator"]),
}


def refuse_newer_names(kind: str, given: Mapping[str, Any], newer: Mapping[str, str | None]) -> None:
    """`given` has the keywords that `kind` does not know: those of a later TRL are explained, any other is Python's TypeError."""
    for name in given:
        if name not in newer:
            raise TypeError(f"{kind}.__init__() got an unexpected keyword argument {name!r}")
        here = f"give {newer[name]}= instead" if newer[name] else "leave it out"
        raise InputError(
            f"{kind} takes no {name}=, which is of TRL 0.12 and later, where softspoken.trl is TRL 0.4 to 0.11: {here}, and drive "
            "the trainer with generate, your own scores, and step; softspoken train is the one that does all of that itself"
        )
