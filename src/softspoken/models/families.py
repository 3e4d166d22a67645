"""What is the same in every encoder–decoder and called otherwise in each: its encoder, its decoder, what makes logits of states."""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

CACHE = "cache" if [*map(int, transformers.__version__.split(".")[:2])] >= [5, 24] else "past_key_values"
"""What a decoder calls the keys and values of what it has read; the newest transformers for Python 3.10, 5.20, has the old name."""


def decoder_of(seq2seq: Any) -> Any:
    """What turns ids into states. In an EncoderDecoderModel the decoder is a language model, of which it is a part."""
    decoder = seq2seq.get_decoder()
    return decoder.base_model if _is_pair(seq2seq) else decoder


def head_of(seq2seq: Any) -> Any:
    """What turns the decoder's states into logits, but for what `logits_of` adds; None where it is not known."""
    if not _is_pair(seq2seq):
        return getattr(seq2seq, "lm_head", None)
    decoder = seq2seq.get_decoder()
    rest = [child for child in decoder.children() if child is not decoder.base_model]
    return rest[0] if len(rest) == 1 else None


def encoder_states(seq2seq: Any, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """input_ids, attention_mask: [B, P] int64 → what the decoder reads of them [B, P, D]."""
    encoder = seq2seq.get_encoder()
    states = encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
    widths = getattr(seq2seq, "enc_to_dec_proj", None)  # an EncoderDecoderModel's, whose parts are of different width
    return states if widths is None else widths(states)


def logits_of(seq2seq: Any, states: Tensor, head: Any) -> Tensor:
    """Decoder states [..., D] → logits [..., V] as the family's own forward pass makes them, with `head` for its matrix."""
    config = seq2seq.config
    if getattr(config, "scale_decoder_outputs", False) or (  # T5 with tied embeddings
        config.model_type == "switch_transformers" and config.tie_word_embeddings
    ):
        states = states * config.d_model**-0.5
    logits = head(states)
    if hasattr(seq2seq, "final_logits_bias"):  # BART, Pegasus
        logits = logits + seq2seq.final_logits_bias
    softcap = getattr(config.get_text_config(decoder=True), "final_logit_softcapping", None)  # T5Gemma
    return logits.div(softcap).tanh() * softcap if softcap else logits


def text_parts(seq2seq: Any) -> dict[str, str]:
    """`encoder` and `decoder` → the module's name in the model; a multimodal encoder's is that of its part for texts."""
    encoder, decoder = seq2seq.get_encoder(), decoder_of(seq2seq)
    encoder = getattr(encoder, "text_model", encoder)  # T5Gemma 2, which has a vision tower beside it
    names = {id(module): name for name, module in seq2seq.named_modules()}
    return {"encoder": names[id(encoder)], "decoder": names[id(decoder)]}


def for_generate(seq2seq: Any, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Any]:
    """What `generate` is given of prompts [B, P]: a cache too where a T5's decoder is deeper than the encoder, whose depth it
    takes for the cache's."""
    given: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask}
    encoder, decoder = (getattr(seq2seq.config, name, 0) or 0 for name in ("num_layers", "num_decoder_layers"))
    if 0 < encoder < decoder:
        given[CACHE] = EncoderDecoderCache(DynamicCache(), DynamicCache())
    return given


def routes(seq2seq: Any) -> bool:
    """Whether it has experts, whose capacity may make a token's states depend on how many tokens are computed with it."""
    return hasattr(seq2seq.config, "num_experts")


def keep_attention(seq2seq: Any) -> None:
    """Have BigBird-Pegasus' encoder read each text as it does alone, whoever asks it: attention in blocks differs with the padding
    behind a text, and a short one switches it to full attention for good."""
    encoder = seq2seq.get_encoder()
    if getattr(seq2seq.config, "attention_type", "") == "block_sparse":
        encoder.forward = MethodType(_by_blocks, encoder)


def _by_blocks(encoder: Any, input_ids: Tensor | None = None, attention_mask: Tensor | None = None, **rest: Any) -> Any:
    """Its forward pass: texts of as many blocks together, none padded beyond them."""
    plain = type(encoder).forward
    if input_ids is None or attention_mask is None:
        return plain(encoder, input_ids, attention_mask, **rest)
    size = encoder.config.block_size
    blocks = attention_mask.sum(dim=1).sub(1).div(size, rounding_mode="floor").add(1)
    whole = input_ids.new_zeros((*input_ids.shape, encoder.config.hidden_size), dtype=encoder.dtype)
    for count in blocks.unique().tolist():
        rows, width = (blocks == count).nonzero().squeeze(1), count * size
        ids, mask = input_ids[rows, :width], attention_mask[rows, :width]
        states = plain(encoder, ids, mask).last_hidden_state
        encoder.set_attention_type(encoder.config.attention_type)
        whole = whole.index_put((rows.unsqueeze(1), torch.arange(ids.shape[1], device=rows.device)), states)
    return BaseModelOutput(whole)


def _is_pair(seq2seq: Any) -> bool:
    return bool(seq2seq.config.model_type == "encoder-decoder")
