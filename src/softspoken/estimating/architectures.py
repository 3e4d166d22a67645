"""The shapes of models that are known by name; of every other, its config.json is read."""

from __future__ import annotations

from typing import Any

import transformers
from transformers import AutoConfig

from softspoken.models.pretrained import from_pretrained

T5_ALIKE = {"vocab_size": 32_128, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "d_kv": 64}
GEMMA_ALIKE = {"head_dim": 256, "query_pre_attn_scalar": 256, "vocab_size": 256_000, "sliding_window": 4096}
BART_ALIKE = {"vocab_size": 50_265, "max_position_embeddings": 1024, "scale_embedding": False}


def _t5(width: int, inner: int, layers: int, heads: int) -> tuple[str, dict[str, Any]]:
    sizes = {"d_model": width, "d_ff": inner, "num_layers": layers, "num_decoder_layers": layers, "num_heads": heads}
    return "T5Config", {**T5_ALIKE, **sizes, "decoder_start_token_id": 0}


def _gemma(width: int, inner: int, layers: int, heads: int, key_value_heads: int) -> tuple[str, dict[str, Any]]:
    sizes = {"hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers}
    part = {**GEMMA_ALIKE, **sizes, "num_attention_heads": heads, "num_key_value_heads": key_value_heads}
    return "T5GemmaConfig", {"encoder": part, "decoder": part, "vocab_size": 256_000}


def _bart(width: int, layers: int, heads: int) -> tuple[str, dict[str, Any]]:
    part = {"layers": layers, "attention_heads": heads, "ffn_dim": 4 * width}
    both = {f"{side}_{name}": size for side in ("encoder", "decoder") for name, size in part.items()}
    return "BartConfig", {**BART_ALIKE, **both, "d_model": width}


NAMED = {
    "flan-t5-small": _t5(512, 1024, 8, 6),
    "flan-t5-base": _t5(768, 2048, 12, 12),
    "flan-t5-large": _t5(1024, 2816, 24, 16),
    "flan-t5-xl": _t5(2048, 5120, 24, 32),
    "flan-t5-xxl": _t5(4096, 10_240, 24, 64),
    "t5gemma-2b-2b": _gemma(2304, 9216, 26, 8, 4),
    "t5gemma-9b-9b": _gemma(3584, 14_336, 42, 16, 8),
    "bart-base": _bart(768, 6, 12),
    "bart-large": _bart(1024, 12, 16),
}
"""Name → transformers' class and what it is given, from the configurations that lie on the hub."""


def config_of(model: str) -> Any:
    """The configuration of a hub id, a folder, mini, or a name in NAMED, with its owner's before it or not.

    Raises InputError where it cannot be had.
    """
    name = model.removeprefix("google/").removeprefix("facebook/")
    if name in NAMED:
        kind, settings = NAMED[name]
        return getattr(transformers, kind)(**settings)
    return from_pretrained(AutoConfig.from_pretrained, model)
