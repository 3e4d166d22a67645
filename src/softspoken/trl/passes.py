"""Scoring: what a policy and a reference make of responses, in one teacher-forced pass each."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn

from softspoken.data.prompts import PromptFormat
from softspoken.rl import numerics
from softspoken.rl.policy import Policy
from softspoken.trl.align import Prompts, Responses
from softspoken.trl.config import PPOConfig
from softspoken.trl.models import AutoModelForSeq2SeqLMWithValueHead
from softspoken.types import Memory


@dataclass(frozen=True)
class Pass:
    logprobs: Tensor
    """[n, T] float32, 0 where nothing is scored."""
    values: Tensor
    """[n, T] float32, likewise."""
    logits: Tensor
    """[tokens, V] float32: one row for each position that is scored."""


def as_policy(model: Any, tokenizer: Any, config: PPOConfig) -> Policy:
    """A model with a value head (or, as a reference, one without) as softspoken's own parts take it."""
    wrapped = isinstance(model, AutoModelForSeq2SeqLMWithValueHead)
    inner = model.pretrained_model if wrapped else model
    policy = Policy(inner, tokenizer, PromptFormat())
    if wrapped:
        policy.value_head = model.v_head.summary
    if not config.mask_unused_ids:
        policy.forbid(torch.zeros_like(policy.forbidden))
    return policy


def read_once(policy: Policy, prompts: Prompts, group: int) -> Memory | None:
    """The prompts as every pass of a step reads them, where only a LoRA adapter in the decoder is trained; else None."""
    weights = policy.adapter_parameters()
    if not isinstance(policy.model, PeftModel) or policy.encoder_adapted:
        return None
    if not all("lora_" in name for name in weights):
        return None
    return policy.read(prompts.input_ids, prompts.attention_mask, group)


def forward(policy: Policy, prompts: Prompts, responses: Responses, rows: Tensor, memory: Memory | None) -> Pass:
    """Log-probabilities and values of some responses. Padding beyond the longest of them is not computed."""
    scored = responses.scored[rows]
    length = max(1, int(numerics.last_true(scored).max()) + 1)
    ids, mask = responses.ids[rows, :length], scored[:, :length]
    reads = responses.reads[rows, :length]
    if bool((reads[:, 0] != policy.start_id).any()):
        states = _decode_as_given(policy, prompts, reads, prompts.index[rows])
    elif memory is not None:
        states = policy.decode_from(ids, memory, prompts.index[rows])
    else:
        states = policy.decode(ids, *policy.encode_for(prompts.input_ids, prompts.attention_mask, prompts.index[rows]))
    counted = states[mask]
    logits = policy.logits(counted, 1.0)
    blank = torch.zeros(scored.shape, device=scored.device)
    return Pass(
        logprobs=blank.masked_scatter(scored, numerics.token_logprobs(logits, ids[mask])),
        values=blank.masked_scatter(scored, policy.values(counted, detached=False)),
        logits=logits,
    )


@torch.no_grad()
def forward_all(
    policy: Policy, prompts: Prompts, responses: Responses, memory: Memory | None, size: int, *, logits: bool = False
) -> Pass:
    """The same for all of them, `size` at a time; with `logits`, those are [N, T, V], 0 where nothing is scored."""
    rows, columns = responses.ids.shape
    logprobs, values = (torch.zeros((rows, columns), device=policy.device) for _ in range(2))
    vocabulary = torch.zeros((rows, columns if logits else 0, len(policy.forbidden)), device=policy.device)
    shortest_first = prompts.attention_mask.sum(dim=1)[prompts.index].argsort(stable=True)
    for piece in shortest_first.split(size):
        found = forward(policy, prompts, responses, piece, memory)
        logprobs[piece], values[piece] = found.logprobs, found.values
        if logits:
            dense = vocabulary[piece]
            dense[responses.scored[piece]] = found.logits
            vocabulary[piece] = dense
    return Pass(logprobs, values, vocabulary)


def trained_logits(logits: Tensor, batch: Responses, rows: Tensor) -> Tensor:
    """Of one row for each position that is scored, those of the positions that are trained as well."""
    among = batch.trained[rows][batch.scored[rows]]
    return logits.detach() if bool(among.all()) else logits.detach()[among]


@contextlib.contextmanager
def at_start(weights: list[nn.Parameter], start: list[Tensor]) -> Iterator[None]:
    """Inside, the weights have the values they had when `start` was taken. For use under no_grad."""
    now = [weight.data for weight in weights]
    for weight, value in zip(weights, start, strict=True):
        weight.data = value
    try:
        yield
    finally:
        for weight, value in zip(weights, now, strict=True):
            weight.data = value


def _decode_as_given(policy: Policy, prompts: Prompts, reads: Tensor, index: Tensor) -> Tensor:
    """Decoder states for responses that are read as they are, without a start token (align_responses off)."""
    states, attention_mask = policy.encode_for(prompts.input_ids, prompts.attention_mask, index)
    return policy.seq2seq.get_decoder()(
        input_ids=reads,
        encoder_hidden_states=states,
        encoder_attention_mask=attention_mask,
        use_cache=False,
    ).last_hidden_state
