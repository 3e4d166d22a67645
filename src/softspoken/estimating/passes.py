"""The heaviest passes of a training step, made on shapes: reading the prompts, and scoring and the update of one micro-batch.

They follow `rl.policy` and `rl.rollout`, with every prompt and response at its full length; what those compute in another order shows in
tests/component/estimating, where both are run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForSeq2SeqLM
from transformers.cache_utils import DynamicCache, DynamicLayer, EncoderDecoderCache

from softspoken.config import TrainConfig
from softspoken.estimating.tracing import Prepared, Shapes
from softspoken.models.cross_attention import cross_attentions, key_value_projections, with_adapter_term
from softspoken.models.families import CACHE, decoder_of, encoder_states, head_of, logits_of, text_parts
from softspoken.models.trained import is_trained, layers_of
from softspoken.rl import numerics
from softspoken.rl.loading import with_what_trains
from softspoken.rl.policy import READ_TOKENS, VOCABULARY_ROWS

FEW = 1
"""Layers of the encoder and decoder that are traced, and twice as many: what each more takes is the difference."""


class Skeleton:
    """A model's shapes with what `config` trains of it, and the sizes that its passes need."""

    def __init__(self, shape: Any, config: TrainConfig, prompt_tokens: int) -> None:
        self.config, self.prompt_tokens = config, prompt_tokens
        logging.disable(logging.INFO)  # where the adapter lies is of interest when there is one
        try:
            with torch.device("meta"):
                dtype = torch.bfloat16 if config.dtype == "bfloat16" else torch.float32
                self.seq2seq: Any = AutoModelForSeq2SeqLM.from_config(
                    shape, dtype=dtype, trust_remote_code=False
                ).eval()
                _untie(self.seq2seq)
                self.base = dict(self.seq2seq.named_parameters())
                self.of_base = {id(weight) for weight in self.base.values()}
                self.model: Any = with_what_trains(self.seq2seq, config)
        finally:
            logging.disable(logging.NOTSET)
        self.decoder = decoder_of(self.seq2seq)
        self.reads_once = config.fast and not is_trained(self.seq2seq.get_encoder())
        self.vocabulary_trained = is_trained(self.seq2seq.get_output_embeddings())
        self.vocabulary, self.width = self.seq2seq.get_output_embeddings().weight.shape
        self.cross_width = _cross_width(self.decoder)
        """Numbers a token that all layers' keys and values of the prompt have; the decoder's own have as many a response token."""

    def most(self, pass_of: Callable[[], Prepared]) -> int:
        """Bytes that a pass has alive at once: of all layers, from a few of them, where each takes as much as the next."""
        encoder, decoder = self.layers()
        many = len(encoder), len(decoder)
        # Of whole models and of layers that compute themselves again the most is at another moment with few layers than with many.
        alike = not (self.config.trains_whole_model or self.config.gradient_checkpointing)
        if min(many) <= 2 * FEW or not alike:
            return self._shapes().most(pass_of())
        both, less_encoder, few = (
            self._of_layers(counts, pass_of) for counts in ((2 * FEW, 2 * FEW), (FEW, 2 * FEW), (FEW, FEW))
        )
        of_encoder, of_decoder = (both - less_encoder) // FEW, (less_encoder - few) // FEW
        return few + of_encoder * (many[0] - FEW) + of_decoder * (many[1] - FEW)

    def most_without_gradient(self, pass_of: Callable[[], Prepared]) -> int:
        """The same of a pass that keeps nothing of a layer for later: two have at once what all have."""
        return self._of_layers((2, 2), pass_of)

    def _of_layers(self, counts: tuple[int, int], pass_of: Callable[[], Prepared]) -> int:
        encoder, decoder = self.layers()
        shapes = self._shapes()  # of all of it, whichever pass comes first
        with _only(encoder, counts[0]), _only(decoder, counts[1]):
            return shapes.most(pass_of())

    def layers(self) -> list[nn.ModuleList]:
        names = text_parts(self.seq2seq)
        return [layers_of(self.seq2seq.get_submodule(names[part])) for part in ("encoder", "decoder")]

    def _shapes(self) -> Shapes:
        self._made = getattr(self, "_made", None) or Shapes(self.model)
        return self._made


def _untie(seq2seq: Any) -> None:
    """transformers ties the embeddings of every T5 that it makes; those whose files hold a matrix for the logits have it for themselves."""
    config = seq2seq.config
    if config.model_type == "mt5" or getattr(config, "scale_decoder_outputs", None) is False:
        seq2seq.lm_head.weight = nn.Parameter(torch.empty_like(seq2seq.lm_head.weight))


@contextmanager
def _only(layers: nn.ModuleList, count: int) -> Iterator[None]:
    """Inside, the first so many."""
    rest = list(layers[count:])
    del layers[count:]
    try:
        yield
    finally:
        layers.extend(rest)


def update(skeleton: Skeleton, rows: int, prompts: int, device: str, *, learns: bool = True) -> Prepared:
    """Forward and backward of a micro-batch of `rows` responses to `prompts` prompts, which have been read where one reading serves; where
    nothing `learns`, as in scoring, forward alone."""
    config, seq2seq = skeleton.config, skeleton.seq2seq

    def prepared() -> tuple[list[Tensor], Callable[[], None]]:
        place = torch.arange(rows) // -(-rows // prompts)
        ids, mask = _prompts(prompts, skeleton.prompt_tokens)
        responses, given = torch.ones((rows, config.max_new_tokens), dtype=torch.long), [ids, mask]
        memory, frozen = None, []
        if skeleton.reads_once:
            memory = torch.empty((prompts, skeleton.prompt_tokens, skeleton.width), dtype=seq2seq.dtype)
            frozen = [] if config.gradient_checkpointing else _frozen_cross(skeleton, memory, mask)
            given = [*given, memory, *chain.from_iterable(frozen)]

        @torch.set_grad_enabled(learns)
        def work() -> None:
            states = encoder_states(seq2seq, ids, mask) if memory is None else memory
            cache = _cache_of(skeleton, frozen, states, place) if frozen else None
            flat = _decoded(skeleton, responses, states[place], mask[place], cache).flatten(0, 1)

            def logits(states: Tensor) -> Tensor:
                return logits_of(seq2seq, states, head_of(seq2seq)).float()

            if config.fast and not skeleton.vocabulary_trained:
                rows_at_once = VOCABULARY_ROWS[device == "cuda"]
                found = numerics.projected_logprobs(logits, flat, responses.flatten(), rows=rows_at_once)
            else:
                found = numerics.token_logprobs(logits(flat), responses.flatten())
            if learns:
                found.sum().backward()

        return given, work

    return prepared


def reading(skeleton: Skeleton, prompts: int, device: str) -> Prepared:
    """The encoder on `prompts` at once or, on a CPU, on as many of them as have READ_TOKENS."""
    together = min(prompts, max(1, READ_TOKENS // skeleton.prompt_tokens)) if device == "cpu" else prompts

    def prepared() -> tuple[list[Tensor], Callable[[], None]]:
        ids, mask = _prompts(together, skeleton.prompt_tokens)

        @torch.no_grad()
        def work() -> None:
            encoder_states(skeleton.seq2seq, ids, mask)

        return [ids, mask], work

    return prepared


def _prompts(count: int, tokens: int) -> tuple[Tensor, Tensor]:
    ids = torch.ones((count, tokens), dtype=torch.long)
    return ids, torch.ones_like(ids)


def _decoded(skeleton: Skeleton, ids: Tensor, states: Tensor, mask: Tensor, cache: Any) -> Tensor:
    made: Tensor = skeleton.decoder(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        encoder_hidden_states=states,
        encoder_attention_mask=mask,
        use_cache=cache is not None,
        **{CACHE: cache},
    ).last_hidden_state
    return made


@torch.no_grad()
def _frozen_cross(skeleton: Skeleton, states: Tensor, mask: Tensor) -> list[tuple[Tensor, Tensor]]:
    """As Policy.read keeps them for a step."""
    if not key_value_projections(skeleton.decoder):
        return []
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    _decoded(skeleton, torch.ones((len(states), 1), dtype=torch.long), states, mask, cache)
    return [(layer.keys, layer.values) for layer in cache.cross_attention_cache.layers]


def _cache_of(
    skeleton: Skeleton, frozen: list[tuple[Tensor, Tensor]], states: Tensor, place: Tensor
) -> EncoderDecoderCache:
    """As Policy.new_cache makes it: the adapter's term added, and a copy for each row."""
    cross = DynamicCache()
    for pair, parts in zip(key_value_projections(skeleton.decoder), frozen, strict=True):
        layer = DynamicLayer()
        keys, values = (
            with_adapter_term(part, projection, states)[place] for part, projection in zip(parts, pair, strict=True)
        )
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys, values
        cross.layers.append(layer)
    return EncoderDecoderCache(DynamicCache(), cross)


def _cross_width(decoder: nn.Module) -> int:
    """Numbers that all layers' cross-attention keys and values have for a token."""
    return sum(
        _base(getattr(attention, name)).weight.shape[0]
        for attention in cross_attentions(decoder)
        for name in ("k", "v", "k_proj", "v_proj")
        if hasattr(attention, name)
    )


def _base(projection: Any) -> Any:
    return projection.get_base_layer() if hasattr(projection, "get_base_layer") else projection
