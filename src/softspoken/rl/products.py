"""In what precision a CPU multiplies by what is frozen (`dtype auto`): bfloat16 where the processor does so by itself and the model stays
what it is, else float32."""

from __future__ import annotations

import logging
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn

from softspoken.config import TrainConfig
from softspoken.models.cpu import FrozenProduct, outruns_mkl, rounds_natively
from softspoken.models.families import head_of
from softspoken.models.trained import LORA, frozen_layers
from softspoken.rl import numerics
from softspoken.rl.policy import Policy

log = logging.getLogger(__name__)

WORTH_IT = 20_000_000
"""Weights in frozen layers from which on: with fewer a step is mostly what lies around the products. With the embedded model's 9 million it is
shorter by a tenth in float32 and by a sixth in bfloat16, for other last digits than were published."""
TEXTS, READ, WRITTEN = 4, 48, 16
"""What the self-check reads and writes, in tokens."""
LARGEST, MEAN = 0.25, 0.05
"""The most that rounding may move the log-probability of a likeliest token, in nats."""


def products_for(config: TrainConfig, model: Any, weights: int) -> torch.dtype | None:
    """What a CPU would multiply `weights` numbers of frozen layers in, by oneDNN, if the self-check agrees; None: as torch does."""
    if not config.fast or config.quantization or config.shard or config.dtype == "bfloat16" or weights < WORTH_IT:
        return None
    adapted = isinstance(model, PeftModel)
    if adapted and model.active_peft_config.peft_type.value not in (LORA, "IA3"):
        return None  # others compute with the base's weights themselves, and would differ from the reference at once
    if config.dtype == "auto" and adapted and rounds_natively():
        return torch.bfloat16
    return torch.float32 if outruns_mkl() else None


def choose_products(policy: Policy, config: TrainConfig) -> None:
    """Once, before anything has trained. Says what it took of bfloat16."""
    weights = sum(layer.weight.numel() for layer in frozen_layers(policy.seq2seq))  # none on a GPU
    dtype = products_for(config, policy.model, weights)
    if dtype is None:
        return
    multiply_in(policy, torch.float32 if outruns_mkl() else None)
    if dtype == torch.float32:
        return
    exact = policy.exact
    moved = _moved_by_rounding(policy)
    if moved.max() <= LARGEST and moved.mean() <= MEAN:
        log.info(
            "frozen layers multiply in bfloat16, which this processor does by itself: log-probabilities are %.3f nats off on average, "
            "%.2f at most (--dtype float32: not)",
            moved.mean(),
            moved.max(),
        )
        return
    log.info("float32: in bfloat16 log-probabilities would be %.2f nats off", moved.max())
    multiply_in(policy, torch.float32 if outruns_mkl() else None)
    policy.exact = exact


def multiply_in(policy: Policy, dtype: torch.dtype | None) -> None:
    """From now on every frozen layer's products are taken by oneDNN in `dtype`, on a CPU, or as they were: the same in sampling, scoring
    and update. What trains, the states between layers, attention and log-probabilities stay in float32."""
    few = {id(module) for module in policy.decoder.modules()}
    for layer in frozen_layers(policy.seq2seq):
        vars(layer).pop("forward", None)
        if dtype is not None:
            vars(layer)["forward"] = FrozenProduct(layer, dtype, packed=id(layer) in few, gradient=True)
    head = head_of(policy.seq2seq)
    if isinstance(policy.vocabulary_product, FrozenProduct) and isinstance(head, nn.Linear):
        policy.vocabulary_product = FrozenProduct(head, dtype or torch.float32, gradient=dtype is not None)
    if dtype == torch.bfloat16:
        policy.exact = False


@torch.no_grad()
def _moved_by_rounding(policy: Policy) -> Tensor:
    """[TEXTS, WRITTEN] nats, by how much the likeliest tokens' log-probabilities move once products are taken in bfloat16, as they are
    from here on."""
    generator = torch.Generator().manual_seed(0)
    allowed = (~policy.forbidden).nonzero().squeeze(1)
    ids = allowed[torch.randint(len(allowed), (TEXTS, READ + WRITTEN), generator=generator)]
    prompts, mask = ids[:, :READ], torch.ones_like(ids[:, :READ])

    def logits() -> Tensor:
        return policy.logits(policy.decode(ids[:, READ:], policy.encode(prompts, mask), mask), temperature=1.0)

    plain = logits()
    likeliest = plain.argmax(dim=-1)
    multiply_in(policy, torch.bfloat16)
    return (numerics.token_logprobs(logits(), likeliest) - numerics.token_logprobs(plain, likeliest)).abs()
