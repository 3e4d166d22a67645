"""Adapters that matter, of tiny models, for tests."""

from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSeq2SeqLM


def add_adapter(model: Path, folder: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    base = AutoModelForSeq2SeqLM.from_pretrained(model)
    lora = LoraConfig(task_type="SEQ_2_SEQ_LM", r=4, lora_alpha=64, target_modules=["q", "v"], init_lora_weights=False)
    get_peft_model(base, lora).save_pretrained(folder)
    return folder
