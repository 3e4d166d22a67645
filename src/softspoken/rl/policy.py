"""The policy: an encoder–decoder of which some weights train, a value head, and the frozen reference inside it."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel
from transformers.cache_utils import DynamicCache, DynamicLayer, EncoderDecoderCache

from softspoken.data.prompts import PromptFormat
from softspoken.models.cpu import FrozenProduct, can_multiply
from softspoken.models.cross_attention import cross_attentions, key_value_projections, with_adapter_term
from softspoken.models.families import (
    CACHE,
    decoder_of,
    encoder_states,
    head_of,
    keep_attention,
    logits_of,
    routes,
)
from softspoken.models.generation import (
    Forbidden,
    end_ids,
    forbidden_ids,
    generation_to_save,
    padding_ids,
    require_ids_within,
    start_id,
)
from softspoken.models.pretrained import no_bar_for_weights
from softspoken.models.room import require_embeddings
from softspoken.models.trained import is_trained, step_dropouts
from softspoken.rl import numerics
from softspoken.rl.agreement import require_agreement
from softspoken.types import InputError, Memory

VALUE_HEAD_FILE = "value_head.safetensors"
START_ADAPTER = "reference"
VOCABULARY_ROWS = (192, 1024)
"""Tokens whose logits are computed at once, on a CPU and on a GPU: more are hardly faster and take the memory.

With 64 a CPU took two thirds longer over the vocabulary's product (flan-t5-small, two cores): it reads the whole matrix each time.
"""
READ_TOKENS = 256
"""Tokens that a CPU encodes at once, with padding: fewer prompts pad less, more make a little more of a product."""


class Policy:
    """What samples, and what is scored: one model, run with its adapter on (policy) or off (reference), or, where its own weights
    train, with those or a copy of how they were.

    Dropout is off in every pass, or LoRA's the same in all of a step. Shapes: N rows, P prompt tokens, T response tokens, D width, V logits.
    """

    def __init__(
        self,
        model: PeftModel | PreTrainedModel,
        tokenizer: Any,
        prompt_format: PromptFormat,
        tokens_per_microbatch: int | None = None,
        *,
        fast: bool = False,
        generation: GenerationConfig | None = None,
    ) -> None:
        """`generation` says which ids begin and force, where it is not the model's own."""
        if isinstance(model, PeftModel) and model.active_peft_config.is_prompt_learning:
            raise InputError(
                "adapters that learn a prompt or prefix cannot be sampled from; use LoRA or another that changes weights"
            )
        self.model = model.eval()
        self.seq2seq: Any = model.get_base_model() if isinstance(model, PeftModel) else model
        self.tokenizer = tokenizer
        self.prompt_format = prompt_format
        self.tokens_per_microbatch = tokens_per_microbatch
        self.fast = fast
        self.device = self.seq2seq.device
        width = self.seq2seq.get_output_embeddings().weight.shape[1]
        self.value_head = nn.Linear(width, 1, device=self.device, dtype=torch.float32)
        # At 0 the first advantages are the scores themselves; a random head drowns them in its own noise for many steps.
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)
        require_embeddings(
            self.seq2seq.get_input_embeddings().weight.shape[0],
            tokenizer,
            f"this {self.seq2seq.config.model_type} model",
        )
        generation = generation or self.seq2seq.generation_config
        text_config = self.seq2seq.config.get_text_config(decoder=True)
        require_ids_within(generation, tokenizer, text_config.vocab_size)
        self.start_id = start_id(generation, self.seq2seq.config)
        self.eos_id: int = tokenizer.eos_token_id
        self.end_ids = torch.tensor(end_ids(generation, self.eos_id), device=self.device)
        self.pad_id: int = tokenizer.pad_token_id
        self.forced_bos_id: int | None = generation.forced_bos_token_id
        self.not_allowed: Forbidden = forbidden_ids(generation)
        forbidden = torch.arange(text_config.vocab_size, device=self.device) >= len(tokenizer)
        pads = padding_ids(generation, text_config, self.pad_id, self.end_ids.tolist())
        forbidden[[*pads, *self.not_allowed.always]] = True
        self.forbidden_first = torch.tensor(self.not_allowed.first, dtype=torch.long, device=self.device)
        self.sampling_buffers: dict[Any, Any] = {}  # what sampling on a GPU keeps from step to step (graphs.py)
        self.passes: dict[Any, Any] = {}  # and what scoring and updates do (replays.py)
        self.can_capture = self.can_replay = self.device.type == "cuda"
        self.in_reference = False
        self.forbid(forbidden)
        self.has_start_adapter = START_ADAPTER in getattr(model, "peft_config", {})
        self.decoder, head = decoder_of(self.seq2seq), head_of(self.seq2seq)
        self.encoder_adapted = is_trained(self.seq2seq.get_encoder())
        self.vocabulary_adapted = is_trained(self.seq2seq.get_output_embeddings()) or (
            head is not None and is_trained(head)
        )
        self.vocabulary_product = FrozenProduct(head) if fast and can_multiply(head) else head
        self.cross_attention = cross_attentions(self.decoder)
        self.cross_projections = key_value_projections(self.decoder)
        self.dropouts = step_dropouts(self.model)
        self.recomputes = False
        """Whether layers compute themselves again in the backward pass, which a cache would not survive."""
        self.sharded = False
        """Whether its layers lie in parts across processes, which must then call the same ones in the same order (sharding.py)."""
        self.has_reference = True
        self._start: list[tuple[nn.Parameter, Tensor]] = []
        """Where the model's own weights train: each with the copy of it that is the reference's."""
        self.exact: bool | None = None
        """Whether one token at a time gives what all at once give, as far as rounding goes; None: not measured yet."""
        if self.seq2seq.dtype != torch.float32 or routes(self.seq2seq):
            self.exact = False
        keep_attention(self.seq2seq)
        require_agreement(self)

    # ------------------------------------------------------------------------------------------- passes

    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """input_ids, attention_mask: [B, P] int64 → encoder states [B, P, D]."""
        return encoder_states(self.seq2seq, input_ids, attention_mask)

    def encode_for(self, input_ids: Tensor, attention_mask: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Encoder states and mask of the prompts `rows` [N] of input_ids, attention_mask [B, P].

        A prompt that several rows share is encoded once, and nothing is padded beyond the longest of them.
        """
        prompts, place = numerics.each_once(rows, len(input_ids))
        width = int(attention_mask[prompts].sum(dim=1).max())
        ids, mask = input_ids[prompts, :width], attention_mask[prompts, :width]
        return self._encode_alike(ids, mask)[place], mask[place]

    @torch.no_grad()
    def read(self, input_ids: Tensor, attention_mask: Tensor, group: int) -> Memory:
        """Encode prompts [B, P] for passes to come, `group` of similar length at a time, so that little padding is computed."""
        pieces = []
        for rows, ids, mask in numerics.of_similar_length(input_ids, attention_mask, group):
            states = self._encode_alike(ids, mask)
            pieces.append((rows, states, self._frozen_cross(states, mask)))
        shape = attention_mask.shape
        states = numerics.gather_rows([(rows, states) for rows, states, _ in pieces], shape, dim=1)
        cross = [
            (
                numerics.gather_rows([(rows, layers[layer][0]) for rows, _, layers in pieces], shape, dim=2),
                numerics.gather_rows([(rows, layers[layer][1]) for rows, _, layers in pieces], shape, dim=2),
            )
            for layer in range(len(pieces[0][2]))
        ]
        return Memory(states, attention_mask, cross)

    def decode(
        self,
        response_ids: Tensor,
        encoder_states: Tensor,
        attention_mask: Tensor,
        cache: EncoderDecoderCache | None = None,
        own_mask: Tensor | None = None,
    ) -> Tensor:
        """Teacher-forced decoder states [N, T, D] (final, normalized): position t has read response_ids[:, :t] only.

        Padding needs no mask here: it lies to the right, where a causal decoder does not look. `cache`: from new_cache(). `own_mask`
        [1, 1, T, T]: what is added so that it does not, where the model is not to make that itself.
        """
        return self._decoder(self._shifted(response_ids), encoder_states, attention_mask, cache, own_mask)

    def decode_from(self, response_ids: Tensor, memory: Memory, rows: Tensor) -> Tensor:
        """The same as `decode`, for the prompts `rows` [N] of a memory."""
        width = int(memory.attention_mask[rows].sum(dim=1).max())
        cache = self.new_cache(self.cross_of(memory, rows, width))
        return self.decode(response_ids, memory.states[rows, :width], memory.attention_mask[rows, :width], cache)

    def idle(self, *, encodes: bool) -> Tensor:
        """What another process's pass calls, on as little as there can be: layers in parts are gathered by all. A scalar, 0."""
        one = torch.full((1, 1), self.start_id, device=self.device)
        mask, width = torch.ones_like(one), self.value_head.in_features
        states = (
            self.encode(one, mask)
            if encodes
            else torch.zeros((1, 1, width), dtype=self.seq2seq.dtype, device=self.device)
        )
        return 0.0 * self.decode(one, states, mask).float().sum()

    def decode_step(self, token: Tensor, encoder_states: Tensor, attention_mask: Tensor, cache: Any) -> Tensor:
        """One more position, with `cache` from new_cache(); token: [N] int64 → states [N, D]."""
        return self._decoder(token.unsqueeze(1), encoder_states, attention_mask, cache)[:, 0]

    def new_cache(self, cross: Iterable[tuple[Tensor, Tensor]] = ()) -> EncoderDecoderCache:
        """An empty cache or one that knows the cross-attention's keys and values of each layer, [N, H, P, d]; see `cross_of`."""
        # Sized by use, not by the configuration, whose num_layers is the encoder's (T5 with unequal depths).
        known = DynamicCache()
        for keys, values in cross:
            layer = DynamicLayer()
            layer.lazy_initialization(keys, values)
            layer.keys, layer.values = keys, values  # where update() would copy them
            known.layers.append(layer)
        return EncoderDecoderCache(DynamicCache(), known)

    def cross_of(self, memory: Memory, rows: Tensor, width: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Each layer's cross-attention keys and values [N, H, P, d] of the prompts `rows` [N], the active adapter's term added."""
        prompts, place = numerics.each_once(rows, len(memory.states))
        return self.cross_at(memory, prompts, place, width)

    def cross_at(
        self, memory: Memory, prompts: Tensor | slice, place: Tensor | slice, width: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The same for rows whose prompts, among `prompts`, are at `place`.

        The adapter's own term is added here, afresh for each pass, so that its gradient is that pass's own and the
        reference has none of it (design section 10).
        """
        states = memory.states[prompts, :width]
        for projections, frozen in zip(self.cross_projections, memory.cross, strict=True):
            keys, values = (
                with_adapter_term(part[prompts, :, :width], projection, states)[place]
                for part, projection in zip(frozen, projections, strict=True)
            )
            yield keys, values

    def project(self, states: Tensor) -> Tensor:
        """Decoder states [..., D] → the model's own logits [..., V] (checked when the policy is made)."""
        return logits_of(self.seq2seq, states, self.vocabulary_product)

    def logits(self, states: Tensor, temperature: float) -> Tensor:
        """Decoder states [..., D] → logits [..., V] float32 of the distribution that is sampled, scored and trained.

        Divided by the temperature; ids that must not come out (padding, logits beyond the vocabulary, what the generation
        config suppresses) are −inf. At the first position that is sampled, `begin` forbids more.
        """
        logits = self.project(states).float()
        # In place, and where there is something to do: these are the largest tensors of a step.
        if temperature != 1.0:
            logits.div_(temperature)
        with torch.no_grad():  # where nothing comes out no gradient comes in: zeroing it would copy all of it
            logits.index_fill_(-1, self.forbidden_ids, float("-inf"))
        return logits

    def begin(self, logits: Tensor) -> Tensor:
        """Logits [..., V] of a first position, as there are of a later one, with what must not begin a response at −inf."""
        return logits.index_fill(-1, self.forbidden_first, float("-inf")) if len(self.forbidden_first) else logits

    def texts(self, ids: Tensor) -> list[str]:
        """Responses [N, T] int64 as text, without white space around it unless that counts."""
        if not len(ids):  # of no rows, transformers before 5.24 makes one empty text
            return []
        texts: list[str] = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [text.strip() for text in texts] if self.prompt_format.strip else texts

    def ends(self, ids: Tensor) -> Tensor:
        """Which of these ids, of any shape, end a summary."""
        return (ids.unsqueeze(-1) == self.end_ids).any(dim=-1)

    def forbid(self, forbidden: Tensor) -> None:
        """Ids that must not come out, from now on: [V] bool."""
        self.forbidden, self.forbidden_ids = forbidden, forbidden.nonzero().squeeze(1)
        self.let_go()  # a graph goes on with the ids that were forbidden when it was captured

    @functools.cached_property
    def weights(self) -> list[nn.Parameter]:
        """Every weight that a pass reads, in a fixed order; none comes or goes, though what it holds may lie elsewhere later."""
        return [*self.model.parameters(), *self.value_head.parameters()]

    def let_go(self) -> bool:
        """Of what sampling, scoring and updates keep on a GPU from step to step; whether there was any."""
        kept = bool(self.sampling_buffers or self.passes)
        self.sampling_buffers.clear()
        self.passes.clear()
        return kept

    def token_logprobs(
        self, states: Tensor, ids: Tensor, temperature: float, *, chunked: bool, first: Tensor | None = None
    ) -> Tensor:
        """log softmax(logits)[ids]: states [n, D], ids [n] int64 → [n] float32. `first` [n] bool: which begin a response.

        `chunked`: some rows at a time, whose gradient is taken at once, so that the logits of all never lie in memory.
        """
        if first is not None and len(self.forbidden_first):
            begun = numerics.token_logprobs(self.begin(self.logits(states[first], temperature)), ids[first])
            later = self.token_logprobs(states[~first], ids[~first], temperature, chunked=chunked)
            return torch.zeros_like(ids, dtype=begun.dtype).masked_scatter(first, begun).masked_scatter(~first, later)

        def project(states: Tensor) -> Tensor:
            return self.logits(states, temperature)

        if not chunked or self.vocabulary_adapted:
            return numerics.token_logprobs(project(states), ids)
        return numerics.projected_logprobs(project, states, ids, rows=VOCABULARY_ROWS[self.device.type == "cuda"])

    def values(self, states: Tensor, *, detached: bool = True) -> Tensor:
        """Value estimates [...] float32 from decoder states [..., D], before the token at that position is known."""
        states = states.detach() if detached else states
        return self.value_head(states.float()).squeeze(-1)

    @contextlib.contextmanager
    def reference(self) -> Iterator[None]:
        """Inside, the same weights without the trained adapter, or as they were: the frozen reference. For use under no_grad."""
        self.in_reference = True
        try:
            with self._as_it_was():
                yield
        finally:
            self.in_reference = False

    @contextlib.contextmanager
    def _as_it_was(self) -> Iterator[None]:
        if self._start:
            self._exchange_start()
            try:
                yield
            finally:
                self._exchange_start()
            return
        if not self.has_start_adapter:
            with self._without_adapter():
                yield
            return
        self.model.set_adapter(START_ADAPTER)
        try:
            yield
        finally:
            # set_adapter makes what it activates trainable and the rest not: back to exactly how it was.
            self.model.set_adapter("default")
            for name, weight in self.model.named_parameters():  # lora_A.default.weight, but ia3_l.default
                weight.requires_grad_("default" in name.split("."))

    def keep_start(self) -> None:
        """A copy of the weights that train, as they are now, is the reference."""
        self._start = [(weight, weight.detach().clone()) for weight in self.adapter_parameters().values()]

    def _exchange_start(self) -> None:
        for place, (weight, other) in enumerate(self._start):
            self._start[place] = weight, weight.data
            weight.data = other

    def thin(self, generator: torch.Generator) -> None:
        """Draw what LoRA's dropout leaves out from now on, if there is any; `generator` is a CPU generator."""
        for dropout in self.dropouts:
            dropout.draw(generator)

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """Inside, nothing is left out."""
        masks = [dropout.mask.clone() for dropout in self.dropouts]
        for dropout in self.dropouts:
            dropout.rest()
        try:
            yield
        finally:
            for dropout, mask in zip(self.dropouts, masks, strict=True):
                dropout.mask.copy_(mask)

    def _without_adapter(self) -> contextlib.AbstractContextManager[None]:
        return self.model.disable_adapter() if isinstance(self.model, PeftModel) else contextlib.nullcontext()

    def _shifted(self, response_ids: Tensor) -> Tensor:
        start = torch.full_like(response_ids[:, :1], self.start_id)
        return torch.cat([start, response_ids[:, :-1]], dim=1)

    def _encode_alike(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """`encode`, which a CPU is given in pieces of similar length, for little padding; other passes pad more cheaply."""
        if not self.fast or self.device.type != "cpu" or self.sharded:
            return self.encode(input_ids, attention_mask)
        alike = numerics.of_similar_length(input_ids, attention_mask, len(input_ids), READ_TOKENS)
        pieces = [(rows, self.encode(ids, mask)) for rows, ids, mask in alike]
        return numerics.gather_rows(pieces, attention_mask.shape, dim=1)

    def _frozen_cross(self, states: Tensor, attention_mask: Tensor) -> list[tuple[Tensor, Tensor]]:
        """The cross-attention's keys and values without the adapter, as the family's own decoder computes and shapes them."""
        if not self.cross_projections:
            return []
        cache = self.new_cache()
        start = torch.full_like(attention_mask[:, :1], self.start_id)
        with self._without_adapter():
            self._decoder(start, states, attention_mask, cache)
        return [(layer.keys, layer.values) for layer in cache.cross_attention_cache.layers]

    def _decoder(
        self,
        ids: Tensor,
        encoder_states: Tensor,
        attention_mask: Tensor,
        cache: EncoderDecoderCache | None,
        own_mask: Tensor | None = None,
    ) -> Tensor:
        if own_mask is None:
            # Said outright: left to itself, T5Gemma would hide a start token that is also the padding token.
            seen = ids.shape[1] + (cache.get_seq_length() if cache is not None else 0)
            own_mask = torch.ones((len(ids), seen), dtype=torch.long, device=ids.device)
        return self.decoder(
            input_ids=ids,
            attention_mask=own_mask,
            encoder_hidden_states=encoder_states,
            encoder_attention_mask=attention_mask,
            use_cache=cache is not None,
            **{CACHE: cache},
        ).last_hidden_state

    # ---------------------------------------------------------------------------------------- parameters

    def adapter_parameters(self) -> dict[str, nn.Parameter]:
        return {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}

    def trainable(self) -> dict[str, nn.Parameter]:
        """The adapter's weights and the value head's, by name, in a fixed order."""
        head = {f"value_head.{name}": weight for name, weight in self.value_head.named_parameters()}
        return {**self.adapter_parameters(), **head}

    # ---------------------------------------------------------------------------------------- save, load

    def save(self, folder: Path, max_new_tokens: int) -> None:
        """Write a self-sufficient adapter into `folder` or, where the model's own weights train, the whole model."""
        if isinstance(self.model, PeftModel):
            self.model.save_pretrained(str(folder), selected_adapters=["default"])
        else:
            with no_bar_for_weights():
                self.model.save_pretrained(str(folder))
        self.tokenizer.save_pretrained(folder)
        generation_to_save(self.seq2seq.generation_config, max_new_tokens).save_pretrained(folder)
        self.prompt_format.save(folder)
        save_file(
            {name: weight.contiguous() for name, weight in self.value_head.state_dict().items()},
            folder / VALUE_HEAD_FILE,
        )
