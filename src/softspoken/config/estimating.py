"""The settings of estimate."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from softspoken.config.kinds import Quantization, check
from softspoken.config.ranges import check_settings
from softspoken.config.trained import Kind, Scope
from softspoken.config.training import TrainConfig


@dataclass(frozen=True)
class EstimateConfig:
    """Say how much memory a training takes, part by part, without a weight being loaded."""

    model: list[str]
    """hub ids, local folders or mini, of which the configuration alone is read; the sizes of FLAN T5, T5Gemma and BART are known by their
    names, without a hub"""
    device: Literal["cpu", "cuda"] = "cuda"
    """where it would be computed"""
    memory: float | None = None
    """gigabytes that the device has, to be told whether it fits; on a GPU sampling's buffers keep within an eighth of it"""
    processes: int = 1
    """how many share the work: each has its part of a step's texts and, with shard, of the base's layers"""
    shard: bool = False
    """as in train: the base's layers lie in parts across the processes"""
    max_prompt_tokens: int = 512
    """as if every text had so many tokens"""
    max_new_tokens: int | None = None
    """as if every response had so many tokens; this and all below by default as train takes it for the model"""
    algorithm: Literal["ppo", "rloo", "grpo", "best_of_n", "dpo"] | None = None
    """how the policy is updated"""
    batch_size: int | None = None
    """texts a step"""
    samples_per_prompt: int | None = None
    """responses sampled for each text"""
    micro_batch_size: int | None = None
    """responses in one forward pass of the update"""
    tokens_per_microbatch: int | None = None
    """at most so many tokens in it"""
    fast: bool | None = None
    """as in train"""
    kl_coef: float | None = None
    """0 keeps no copy for a reference where the model's own weights train"""
    trained: Kind | None = None
    """what learns"""
    last_layers: int | None = None
    """how many layers train with trained last_layers"""
    lora_r: int | None = None
    """rank of the adapter"""
    lora_targets: list[str] | None = None
    """all-linear, or names of the modules that get an adapter"""
    use_dora: bool | None = None
    """DoRA"""
    adapter_scope: Scope | None = None
    """where the adapter lies"""
    quantization: Quantization | None = None
    """bits of the base's weights"""
    gradient_checkpointing: bool | None = None
    """compute each layer again in the backward pass"""
    dtype: Literal["float32", "bfloat16"] | None = None
    """precision of the base's weights"""

    def __post_init__(self) -> None:
        check_settings(self)
        check(bool(self.model), self, "model", "name one")
        check(not self.shard or self.processes > 1, self, "shard", "there is one process: give --processes 2 or more")
        for model in self.model:
            self.training_of(model)

    def training_of(self, model: str) -> TrainConfig:
        """What `train` would be told for the same: its defaults for `model`, and what is given here."""
        names = {field.name for field in dataclasses.fields(TrainConfig)} & {
            field.name for field in dataclasses.fields(self)
        }
        given: dict[str, Any] = {name: getattr(self, name) for name in sorted(names) if getattr(self, name) is not None}
        return TrainConfig(**{**given, "model": model, "eval_limit": 0})
