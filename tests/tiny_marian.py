"""A 1 + 1-layer Marian with random weights and a real tokenizer of pieces."""

from pathlib import Path

import torch
from transformers import MarianConfig, MarianMTModel

from tiny_tokenizers import build_tokenizer

SIZES = {
    "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "max_position_embeddings": 64,
}  # fmt: skip
"""Of a 1 + 1-layer model of BART's kind."""


def build_marian(folder: Path, pieces: Path, languages: tuple[str, ...] = ()) -> None:
    """`languages`: its targets, where it has several."""
    tokenizer = build_tokenizer("Marian", pieces, languages)
    torch.manual_seed(0)
    config = MarianConfig(
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=0,
        forced_eos_token_id=None,
        decoder_start_token_id=tokenizer.pad_token_id,
        **SIZES,
    )
    model = MarianMTModel(config)
    model.generation_config.max_new_tokens = 8
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
