"""TRL 0.11.4's PPOTrainer as its users wrote it, for both of TRL's processes; imported in the legacy environment alone."""

from __future__ import annotations

from typing import Any

import torch
from peft import LoraConfig, TaskType
from transformers import PreTrainedTokenizerFast
from trl import AutoModelForSeq2SeqLMWithValueHead, PPOConfig, PPOTrainer  # type: ignore[import-not-found]

SAMPLING = {"do_sample": True, "top_k": 0, "top_p": 1.0}


def make_trainer(
    folder: str,
    scope: str,
    lora_r: int,
    lora_alpha: float,
    dtype: str = "float32",
    device: str = "cpu",
    **settings: Any,
) -> PPOTrainer:
    """LoRA on the family's query and value projections; of PPOConfig, TRL's defaults but for `settings`."""
    lora = LoraConfig(
        task_type=TaskType.SEQ_2_SEQ_LM,
        r=lora_r,
        lora_alpha=lora_alpha,
        target_modules=["q", "v"] if scope == "all" else r".*\bdecoder\..*\.(q|v)",
    )
    model = AutoModelForSeq2SeqLMWithValueHead.from_pretrained(
        folder, peft_config=lora, torch_dtype=getattr(torch, dtype)
    )
    config = PPOConfig(**settings, accelerator_kwargs={"cpu": True} if device == "cpu" else {})
    return PPOTrainer(config=config, model=model, tokenizer=PreTrainedTokenizerFast.from_pretrained(folder))


def generate(trainer: PPOTrainer, queries: list[torch.Tensor], **settings: Any) -> list[torch.Tensor]:
    """Responses with the decoder's start token before them, as TRL wants them. The whole batch at once, which favours TRL: its
    own default is four at a time, the notebooks' loop one."""
    responses: list[torch.Tensor] = trainer.generate(queries, batch_size=len(queries), **SAMPLING, **settings)
    return responses
