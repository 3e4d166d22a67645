"""A base whose weights are rounded to 8 or 4 bits (bitsandbytes), under an adapter that is not: QLoRA (Dettmers et al. 2023)."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from transformers import PreTrainedModel

from softspoken.models.families import keep_attention
from softspoken.models.pretrained import read_seq2seq, require_seq2seq
from softspoken.types import InputError


def load_quantized(model: str, quantization: str, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    """As `load_seq2seq`, with the linear layers between the embeddings and the head in `quantization` (8bit, 4bit) and what they
    compute in `dtype`. Raises InputError where bitsandbytes is not installed, or says no."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise InputError(
            f"quantization {quantization} needs bitsandbytes, which is not installed; pip install 'softspoken[quantize]', or leave it out"
        )
    from transformers import BitsAndBytesConfig

    require_seq2seq(model)
    settings: dict[str, Any] = (
        {"load_in_8bit": True}
        if quantization == "8bit"
        else {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": dtype}
    )
    seq2seq = read_seq2seq(
        model,
        dtype=dtype,
        quantization_config=BitsAndBytesConfig(**settings),
        device_map={"": device},
    ).eval()
    keep_attention(seq2seq)
    for layer in seq2seq.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            # On such CPUs the first pass without a gradient would pack the weights for good into a form that has no gradient.
            layer.support_avx512bf16_for_cpu = False
    return seq2seq
