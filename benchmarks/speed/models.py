"""The models: published architectures with random weights, and a tokenizer of T5's size, written where both sides read them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import GenerationConfig, T5Config, T5ForConditionalGeneration

from benchmarks.speed.cells import FIRST_WORD, WORDS
from benchmarks.speed.floor import SHAPES, Shape


def model_folder(models: Path, name: str) -> Path:
    """`models`/`name`, written if it is not there."""
    folder = models / name
    if not folder.is_dir():
        beside = models / f".{name}.writing"
        shutil.rmtree(beside, ignore_errors=True)
        write_model(beside, SHAPES[name])
        write_tokenizer(beside)
        beside.replace(folder)
    return folder


def write_model(folder: Path, shape: Shape) -> None:
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=shape.vocabulary,
        d_model=shape.d_model,
        d_kv=shape.d_kv,
        d_ff=shape.d_ff,
        num_layers=shape.layers,
        num_decoder_layers=shape.layers,
        num_heads=shape.heads,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=1,
    )
    model = T5ForConditionalGeneration(config)
    with torch.no_grad():  # as drawn, one word has nearly all the probability; so the logits have variance 1
        model.lm_head.weight.normal_(std=shape.d_model**-0.5)
    model.generation_config = GenerationConfig.from_model_config(config)
    model.save_pretrained(folder)


def write_tokenizer(folder: Path) -> None:
    """T5's count of tokens. Its settings are written by hand, in words that old and new transformers read alike."""
    words = ["<pad>", "</s>", "<unk>", *(f"w{number}" for number in range(FIRST_WORD, WORDS))]
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "model_max_length": 4096,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
