"""Whether the policy's own way through a model gives the model's own logits: all at once, and one token after another."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from softspoken.models.families import routes
from softspoken.models.generation import require_finite
from softspoken.types import InputError, RunError

LENGTHS = (6, 3)
"""Tokens of the prompts it is tried on: unequal, so that one is padded."""
STEPS = 4
STILL = 1e-4
"""Share of the logits' range by which an adapter that has learned nothing may change them: what rotates weights does so by rounding."""
COARSER = 50
"""So many times the tolerance for one token at a time below float32, where the order of additions shows."""


@torch.no_grad()
def require_agreement(policy: Any) -> None:
    """Raises InputError for a model whose logits the policy (a Policy, which calls this) does not compute as its own forward
    pass does, and RunError where they are no numbers."""
    try:
        same = _agrees(policy)
    except RunError:
        raise
    except (AttributeError, TypeError, RuntimeError, IndexError) as error:  # other names, arguments or shapes
        if isinstance(error, torch.OutOfMemoryError):
            raise
        same = False
    if not same:
        raise InputError(
            f"models of type {policy.seq2seq.config.model_type!r} compute their logits in a way softspoken does not know; "
            "use T5, BART or kin"
        )


@torch.no_grad()
def require_start(policy: Any) -> None:
    """Raises InputError where a fresh adapter makes other logits than the reference, before anything has trained it."""
    prompts, mask, ids = _tried(policy)

    def logits() -> Tensor:
        return policy.project(policy.decode(ids, policy.encode(prompts, mask), mask)).float()

    own = logits()
    with policy.reference():
        moved = (own - logits()).abs().max().item()
    if moved > STILL * (own.max() - own.min()).item():
        raise InputError(
            "peft_config: the adapter changes the model before it is trained, so that the reference is not where it starts; leave out "
            "what initializes it otherwise (such as init_lora_weights)"
        )


def _agrees(policy: Any) -> bool:
    prompts, mask, ids = _tried(policy)
    start = torch.full_like(ids[:, :1], policy.start_id)
    given = {"input_ids": prompts, "attention_mask": mask, "decoder_input_ids": torch.cat([start, ids[:, :-1]], dim=1)}
    ones = torch.ones_like(given["decoder_input_ids"])
    own = policy.seq2seq(**given, decoder_attention_mask=ones).logits.float()
    require_finite(own.amax(dim=-1), "at first")
    encoded = policy.encode(prompts, mask)
    if not _same(policy.project(policy.decode(ids, encoded, mask)).float(), own, 1):
        return False
    if routes(policy.seq2seq):  # where one at a time differs by its nature: it is measured in each step
        return True
    cache, coarser = policy.new_cache(), 1 if policy.seq2seq.dtype == torch.float32 else COARSER
    for step in range(STEPS):
        states = policy.decode_step(given["decoder_input_ids"][:, step], encoded, mask, cache)
        if not _same(policy.project(states).float(), own[:, step], coarser):
            return False
    return True


def _tried(policy: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Prompts and their mask [2, longest], and responses [2, STEPS]: ids from most of the vocabulary, whose end is often not for texts."""
    allowed = (~policy.forbidden).nonzero().squeeze(1)
    count = sum(LENGTHS) + 2 * STEPS
    ids = allowed[torch.linspace(1, 0.9 * len(allowed), count, device=policy.device).long()]
    mask = torch.tensor([[place < length for place in range(max(LENGTHS))] for length in LENGTHS], device=policy.device)
    prompts = torch.full(mask.shape, policy.pad_id, device=policy.device).masked_scatter(mask, ids)
    return prompts, mask.long(), ids[sum(LENGTHS) :].view(2, STEPS)


def _same(found: Tensor, own: Tensor, coarser: int) -> bool:
    """Of logits [..., V]; what they have in common in a row does not count."""
    largest = (own.max() - own.min()).item()
    return found.shape == own.shape and torch.allclose(found, own, rtol=1e-2, atol=1e-3 * largest * coarser)
