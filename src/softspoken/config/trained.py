"""What of a model is trained: the settings that train, sft and dpo share, and what of them cannot go together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from softspoken.config.kinds import Quantization, check

Kind = Literal["lora", "ia3", "last_layers", "full"]
Scope = Literal["all", "decoder"]


@dataclass(frozen=True, kw_only=True)
class WhatTrains:
    """A part of a command's settings: fields and what follows from them, no command of its own."""

    trained: Kind = "lora"
    """what learns: an adapter (LoRA, IA3, or another by peft_config), the last layers, or all weights. The latter two end in a whole
    model, and where there is a reference it is a copy of how they were"""
    peft_config: str | dict[str, Any] | None = None
    """YAML file of PEFT's settings for an adapter of another kind (peft_type: LOHA, and one setting a line), in place of lora_...;
    where it names no target_modules, they are those of LoRA"""
    last_layers: int = 1
    """how many layers train with trained last_layers: of the decoder and, with adapter_scope all, of the encoder too"""
    lora_r: int = 8
    """rank of the adapter"""
    lora_alpha: int = 16
    """scale of the adapter: alpha / r multiplies its output"""
    lora_targets: list[str] | None = None
    """all-linear, or names of the modules that get an adapter; by default the family's query and value projections (for IA3 key
    and value, and wo, fc2 or down_proj)"""
    lora_dropout: float = 0.0
    """share of LoRA's inputs that a step leaves out; in train and dpo the same ones in all of a step"""
    use_rslora: bool = False
    """scale LoRA by alpha / sqrt(r) in place of alpha / r (rank-stabilized)"""
    use_dora: bool = False
    """DoRA: learn each weight's length and direction apart"""
    adapter_scope: Scope = "decoder"
    """where the adapter (or what trains of the last layers) lies: in the decoder alone (the text is then read once a step), or in the
    encoder as well"""
    quantization: Quantization | None = None
    """bits of the base's weights in torch, which are rounded to so many under the adapter (needs bitsandbytes); by default they stay whole"""
    gradient_checkpointing: bool = False
    """compute each layer again in the backward pass in place of keeping what it made: less memory, more time, the same result"""

    @property
    def trains_whole_model(self) -> bool:
        """Weights of the model itself, so that a whole model comes of it and no adapter."""
        return self.trained in ("full", "last_layers")

    def shared(self) -> dict[str, Any]:
        """These settings by their names, for another command's."""
        return {name: getattr(self, name) for name in WhatTrains.__dataclass_fields__}


def check_what_trains(config: WhatTrains, adapter: str | None) -> None:
    """Raises InputError for settings that say two things. `adapter`: what the training starts from, if it does."""
    alone = f"trained {config.trained} has no adapter: leave it out"
    check(not (config.trains_whole_model and adapter), config, "adapter", alone)
    check(not (config.trains_whole_model and config.quantization), config, "quantization", alone)
    named = config.trained == "lora" or not config.peft_config
    check(named, config, "peft_config", "it says what is trained: leave trained out")
    both = adapter and config.peft_config
    check(not both, config, "peft_config", "adapter brings its own: leave one of them out")
    plain = config.trained == "lora" and not (config.peft_config or adapter)
    for name in ("lora_dropout", "use_rslora", "use_dora"):
        remedy = "it is for a fresh LoRA adapter: leave it out, or put it into peft_config"
        check(plain or not getattr(config, name), config, name, remedy)
    remedy = "DoRA's lengths are of whole inputs: give 0, or use_dora false"
    check(not (config.use_dora and config.lora_dropout), config, "lora_dropout", remedy)
