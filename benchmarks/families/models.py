"""A tiny random model of each encoder–decoder family that transformers has for texts, with the embedded model's tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from transformers import AutoTokenizer, GenerationConfig, PreTrainedModel

from softspoken import mini
from softspoken.data.prompts import PromptFormat

SPECIAL = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
POSITIONS = 128
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_heads": 2, "num_layers": 2, "num_decoder_layers": 2}
LAYERS = {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
BART = {"d_model": 16, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, **LAYERS, "max_position_embeddings": POSITIONS}
LED = {name: value for name, value in BART.items() if name != "max_position_embeddings"}
BERT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
GEMMA = {**BERT, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
SEAMLESS = {
    **{name: value for name, value in BART.items() if name != "d_model"},
    "hidden_size": 16,
    "speech_encoder_layers": 1,
    "t2u_encoder_layers": 1,
    "t2u_decoder_layers": 1,
}
PROPHET = {
    "hidden_size": 16,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "num_encoder_layers": 2,
    "num_decoder_layers": 2,
    "num_encoder_attention_heads": 2,
    "num_decoder_attention_heads": 2,
}


def _plain(kind: str, model: str = "ForConditionalGeneration", **shape: Any) -> Callable[[int], PreTrainedModel]:
    def build(vocabulary: int) -> PreTrainedModel:
        config = getattr(hf, f"{kind}Config")(vocab_size=vocabulary, **{**SPECIAL, **shape})
        return getattr(hf, f"{kind}{model}")(config)

    return build


def _t5gemma(vocabulary: int) -> PreTrainedModel:
    shape = {**GEMMA, "vocab_size": vocabulary}
    return hf.T5GemmaForConditionalGeneration(
        hf.T5GemmaConfig(encoder=shape, decoder=shape, vocab_size=vocabulary, **SPECIAL)
    )


def _t5gemma2(vocabulary: int) -> PreTrainedModel:
    text = {**GEMMA, "vocab_size": vocabulary, "sliding_window": 64}
    image = {"image_token_index": 5, "boi_token_index": 6, "eoi_token_index": 7}
    vision = {**BERT, "model_type": "siglip_vision_model", "image_size": 8, "patch_size": 4}
    encoder = {"text_config": text, "vision_config": vision, **image}
    config = hf.T5Gemma2Config(
        encoder=encoder, decoder=text, image_token_index=image["image_token_index"], eoi_token_index=7
    )
    config.decoder_start_token_id = 2
    return hf.T5Gemma2ForConditionalGeneration(config)


def _bert2bert(vocabulary: int) -> PreTrainedModel:
    encoder = hf.BertConfig(vocab_size=vocabulary, **BERT)
    decoder = hf.BertConfig(vocab_size=vocabulary, **{**BERT, "hidden_size": 24})
    return hf.EncoderDecoderModel(hf.EncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder, **SPECIAL))


def _fsmt(vocabulary: int) -> PreTrainedModel:
    shape = {**BART, "src_vocab_size": vocabulary, "tgt_vocab_size": vocabulary}
    return hf.FSMTForConditionalGeneration(hf.FSMTConfig(**shape, **SPECIAL))


FAMILIES: dict[str, Callable[[int], PreTrainedModel]] = {
    "T5": _plain("T5", **T5),
    "FLAN-T5": _plain("T5", **T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    "mT5": _plain("MT5", **T5),
    "umT5": _plain("UMT5", **T5),
    "LongT5, local": _plain("LongT5", **T5, local_radius=15),
    "LongT5, transient-global": _plain("LongT5", **T5, local_radius=15, encoder_attention_type="transient-global"),
    "SwitchTransformers": _plain(
        "SwitchTransformers",
        **T5,
        num_experts=4,
        expert_capacity=2,
        num_sparse_encoder_layers=1,
        num_sparse_decoder_layers=1,
    ),
    "BART": _plain("Bart", **BART, forced_bos_token_id=2),
    "mBART": _plain("MBart", **BART),
    "PLBart": _plain("PLBart", **BART),
    "MVP": _plain("Mvp", **BART),
    "Blenderbot": _plain("Blenderbot", **BART),
    "BlenderbotSmall": _plain("BlenderbotSmall", **BART),
    "Pegasus": _plain("Pegasus", **BART),
    "Pegasus-X": _plain("PegasusX", **BART, block_size=16, num_global_tokens=4),
    "BigBird-Pegasus": _plain(
        "BigBirdPegasus", **{**BART, "max_position_embeddings": 512}, block_size=2, num_random_blocks=1
    ),
    "LED": _plain("LED", **LED, attention_window=8, max_encoder_position_embeddings=POSITIONS),
    "Marian": _plain("Marian", "MTModel", **BART),
    "M2M100, NLLB": _plain("M2M100", **BART, decoder_start_token_id=1),
    "NLLB-MoE": _plain(
        "NllbMoe", **BART, decoder_start_token_id=1, num_experts=4, encoder_sparse_step=2, decoder_sparse_step=2
    ),
    "SeamlessM4T": _plain("SeamlessM4T", "ForTextToText", **SEAMLESS, decoder_start_token_id=1),
    "SeamlessM4T v2": _plain("SeamlessM4Tv2", "ForTextToText", **SEAMLESS, decoder_start_token_id=1),
    "T5Gemma": _t5gemma,
    "T5Gemma 2": _t5gemma2,
    "EncoderDecoder (BERT, BERT)": _bert2bert,
    "ProphetNet": _plain("ProphetNet", **PROPHET),
    "FSMT": _fsmt,
}


def build(family: str, folder: Path, **generation: Any) -> Path:
    """The family's model, its weights random but the same each time, in `folder`; `generation` is its generation config's."""
    tokenizer = AutoTokenizer.from_pretrained(mini.path)
    torch.manual_seed(0)
    model = FAMILIES[family](len(tokenizer))
    for name, weight in model.named_parameters():  # as they come, all tokens are about as likely, whatever a pass does
        if weight.ndim > 1:
            vocabulary = any(part in name for part in ("embed", "shared", "lm_head", "predictions"))
            torch.nn.init.normal_(weight, std=1.0 if vocabulary else 0.3)
    own = model.generation_config
    given = {"decoder_start_token_id": own.decoder_start_token_id or 0, "forced_bos_token_id": own.forced_bos_token_id}
    model.generation_config = GenerationConfig(**{**SPECIAL, **given, **generation})
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    PromptFormat(template="{dialogue}", max_prompt_tokens=100).save(folder)
    return folder
