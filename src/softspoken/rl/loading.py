"""How a policy is made: the model, its adapter or what else of it trains, its reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel
from transformers.activations import NewGELUActivation

from softspoken.config import TrainConfig
from softspoken.data.prompts import PromptFormat
from softspoken.models.adapters import adapter_folder, tokenizer_source, with_adapter
from softspoken.models.cpu import lay_out_columns
from softspoken.models.generation import generation_to_save
from softspoken.models.languages import speak
from softspoken.models.pretrained import load_seq2seq, load_tokenizer, prompt_format_for, resolve_device
from softspoken.models.quantized import load_quantized
from softspoken.models.room import fitting, require_fit, require_room_to_answer
from softspoken.models.trained import LORA, prepared, recompute_layers
from softspoken.rl.agreement import require_start
from softspoken.rl.policy import START_ADAPTER, VALUE_HEAD_FILE, Policy
from softspoken.rl.sharding import shard_layers
from softspoken.runtime import processes
from softspoken.types import InputError, first_line


def load_policy(config: TrainConfig, prompt_format: PromptFormat | None = None) -> Policy:
    """The model of `config` with what trains of it (a fresh adapter, its last layers, all of it), or with `config.adapter` to go on
    from; and the reference, which is a copy where it cannot be had without. Asked by `prompt_format` or, without one, as it was
    saved."""
    torch.manual_seed(config.seed)
    start = adapter_folder(config.adapter) if config.adapter else None
    require_fit(config.model, start)
    if config.shard and processes.size() == 1:
        raise InputError(
            "shard lays the base in parts across several processes: start them with torchrun, or leave it out"
        )
    seq2seq = _load(config)
    base = set(seq2seq.parameters())
    require_room_to_answer(seq2seq.config, config.max_new_tokens)
    generation_to_save(seq2seq.generation_config, config.max_new_tokens)
    if config.fast and seq2seq.device.type == "cpu" and not (config.quantization or config.shard):
        lay_out_columns(seq2seq.get_decoder())
    tokenizer = load_tokenizer(tokenizer_source(config.model, start))
    prompt_format = speak(tokenizer, prompt_format or prompt_format_for(config.model, start), seq2seq.generation_config)
    prompt_format = fitting(prompt_format, seq2seq.config, tokenizer)
    model = with_what_trains(seq2seq, config, start)
    if config.shard:
        shard_layers(seq2seq, base, resolve_device(config.device))
    policy = _policy(model, tokenizer, prompt_format, config)
    policy.recomputes, policy.sharded = config.gradient_checkpointing, config.shard
    policy.can_capture = policy.can_capture and not config.shard
    if policy.not_allowed.sequences:
        raise InputError(
            f"bad_words_ids of {config.model} forbids {policy.not_allowed.sequences[0]}, a run of several ids, which would make "
            "sampling another distribution than is trained; take runs out of its generation_config.json"
        )
    if config.trains_whole_model:
        policy.has_reference = config.has_reference
        if policy.has_reference:
            policy.keep_start()
    elif config.peft_config:
        require_start(policy)
    made = start or Path(config.model)
    if (
        config.algorithm == "ppo" and (made / VALUE_HEAD_FILE).is_file()
    ):  # by another run's critic, whose reward may have been another
        policy.load_value_head(made)
    return policy


def _policy(
    model: PeftModel | PreTrainedModel, tokenizer: Any, prompt_format: PromptFormat, config: TrainConfig
) -> Policy:
    try:
        return Policy(model, tokenizer, prompt_format, config.tokens_per_microbatch, fast=config.fast)
    except (InputError, ValueError) as error:
        of_the_kind = not isinstance(error, InputError) or "compute their logits" in str(error)
        if not (of_the_kind and isinstance(config.peft_config, dict) and isinstance(model, PeftModel)):
            raise
        kind = model.active_peft_config.peft_type.value
        raise InputError(
            f"peft_config: with {kind} this model cannot be sampled from as it is here ({first_line(error)[:200]}); give peft_type LORA"
        ) from error


def with_what_trains(
    seq2seq: PreTrainedModel, config: TrainConfig, start: Path | None = None
) -> PeftModel | PreTrainedModel:
    """The model of `config` with what trains of it, in float32, the adapter in the folder `start` or a fresh one, and its layers as they
    are to be computed."""
    if config.fast:
        _fuse_gelu(seq2seq)
    model = _with_start_adapter(seq2seq, start, config.model) if start else prepared(seq2seq, config)
    if isinstance(model, PeftModel) and config.dtype != "float32":
        _require_rounding(model, config.dtype)
    for weight in model.parameters():
        if weight.requires_grad:  # bfloat16 is too coarse for the sum of many small updates
            weight.data = weight.data.float()
    if config.gradient_checkpointing:
        recompute_layers(seq2seq)
    return model


def _load(config: TrainConfig) -> PreTrainedModel:
    dtype, device = getattr(torch, config.dtype), resolve_device(config.device)
    if config.quantization:
        return load_quantized(config.model, config.quantization, dtype, device)
    seq2seq = load_seq2seq(config.model, dtype)
    return seq2seq if config.shard else seq2seq.to(device)


def _require_rounding(model: PeftModel, dtype: str) -> None:
    if model.active_peft_config.peft_type.value not in (LORA, "IA3"):
        raise InputError(f"dtype {dtype} goes with peft_type LORA and IA3 alone; give float32")


def _with_start_adapter(seq2seq: PreTrainedModel, folder: Path, name: str) -> PeftModel:
    model = with_adapter(seq2seq, folder, name, trainable=True)
    if getattr(model.active_peft_config, "bias", "none") != "none":
        raise InputError(
            f"adapter {folder} trains the base's own biases too, so that no reference is left; give one with bias none"
        )
    model.load_adapter(str(folder), adapter_name=START_ADAPTER, is_trainable=False)
    model.set_adapter("default")
    return model


def _fuse_gelu(model: nn.Module) -> None:
    """The tanh form of GELU as one operation that keeps its input, where transformers' own has eight and keeps five."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, nn.GELU(approximate="tanh"))
