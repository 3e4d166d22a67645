"""What is handed to a trainer: refused in one sentence where it cannot be used."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from softspoken.trl.config import PPOConfig
from softspoken.trl.models import DECODER_ONLY, AutoModelForSeq2SeqLMWithValueHead, require_reached
from softspoken.types import InputError, RunError


def check_arguments(config: Any, model: Any, ref_model: Any, tokenizer: Any, dataset: Any, lr_scheduler: Any) -> None:
    if not isinstance(config, PPOConfig):
        raise InputError(f"config is {_kind(config)}; give a softspoken.trl.PPOConfig")
    if isinstance(model, PeftModel) and isinstance(model.get_base_model(), AutoModelForSeq2SeqLMWithValueHead):
        raise InputError(
            "the adapter is around the model with the value head, and belongs inside it; instead of get_peft_model(model, "
            "lora_config), write AutoModelForSeq2SeqLMWithValueHead.from_pretrained(name, peft_config=lora_config)"
        )
    if not isinstance(model, AutoModelForSeq2SeqLMWithValueHead):
        inner = getattr(model, "config", None)
        if inner is not None and not getattr(inner, "is_encoder_decoder", True):
            raise InputError(f"{type(model).__name__} {DECODER_ONLY}")
        raise InputError(
            f"model is {_kind(model)}; give AutoModelForSeq2SeqLMWithValueHead.from_pretrained(model), of softspoken.trl"
        )
    require_reached(model)
    if ref_model is not None and not isinstance(
        ref_model, (AutoModelForSeq2SeqLMWithValueHead, PreTrainedModel, PeftModel)
    ):
        raise InputError(f"ref_model is {_kind(ref_model)}; give create_reference_model(model), or leave it out")
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise InputError(f"tokenizer is {_kind(tokenizer)}; give the model's, from AutoTokenizer.from_pretrained")
    if dataset is not None and not isinstance(dataset, (torch.utils.data.Dataset, Dataset)):
        raise InputError(f"dataset is {_kind(dataset)}; give a datasets.Dataset or a torch Dataset")
    if lr_scheduler is not None and not isinstance(lr_scheduler, torch.optim.lr_scheduler.LRScheduler):
        raise InputError(f"lr_scheduler is {_kind(lr_scheduler)}; give one of torch.optim.lr_scheduler")


NOT_CALLED = ("batched_forward_pass", "train_minibatch", "prepare_model_inputs", "_kl_penalty", "_early_stop")
"""Parts of TRL's step that are offered, or were private, and that this step goes past."""


def warn_of_overrides(kind: type, own: type) -> None:
    """`kind` is `own`, the trainer, or a subclass of it that may hope to change what step does."""
    names = [name for name in NOT_CALLED if getattr(kind, name, None) is not getattr(own, name, None)]
    if names:
        warnings.warn(
            f"{kind.__name__} overrides {', '.join(names)}, and step does not call it; override compute_rewards, "
            "compute_advantages, loss or record_step_stats, which step does call",
            stacklevel=3,
        )


def check_step(
    model: AutoModelForSeq2SeqLMWithValueHead, config: PPOConfig, queries: Any, responses: Any, scores: Any, masks: Any
) -> None:
    require_reached(model)
    if not any(weight.requires_grad for weight in model.pretrained_model.parameters()):
        raise InputError(
            "none of the model's own weights is trainable, so step would train the value head alone; load the adapter with "
            "is_trainable=True, or give peft_config"
        )
    lists = {"queries": queries, "responses": responses, "scores": scores}
    if masks is not None:
        lists["response_masks"] = masks
    for name, value in lists.items():
        if not isinstance(value, list) or not value or not isinstance(value[0], Tensor):
            raise InputError(f"{name} must be a list of tensors, and is {_kind(value)}")
        if len(value) != len(queries):
            raise InputError(f"there are {len(queries)} queries and {len(value)} {name}; give one for each query")
    smaller_is_fine = config.keep_last_batch and len(queries) < config.batch_size
    if len(queries) != config.batch_size and not smaller_is_fine:
        raise InputError(
            f"step got {len(queries)} queries, and PPOConfig.batch_size is {config.batch_size}; make them the same"
        )
    for number, score in enumerate(scores):
        if score.numel() != 1 or not bool(torch.isfinite(score).all()):
            raise InputError(f"score {number} is {score.tolist()}; give one finite number for each response")


def require_gradient(model: AutoModelForSeq2SeqLMWithValueHead) -> bool:
    """Whether this backward pass reached the weights; RunError where it reached some but left a LoRA matrix out."""
    trained = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    if all(weight.grad is None for _, weight in trained):
        return False
    still = [name for name, weight in trained if "lora_" in name and weight.grad is None]
    if still:
        raise RunError(f"{len(still)} adapter matrices got no gradient (the first is {still[0]}); no step trains them")
    return True


def _kind(value: Any) -> str:
    if isinstance(value, list):
        return f"a list of {type(value[0]).__name__}" if value else "an empty list"
    return "missing" if value is None else f"a {type(value).__name__}"
