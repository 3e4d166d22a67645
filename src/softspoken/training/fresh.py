"""Dynamic sampling: a step's texts whose responses all score alike, and so teach nothing, give way to fresh ones (Yu et al. 2025,
DAPO, sec. 3.2, which goes on until the batch is full; here there is a bound)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from softspoken.config import TrainConfig
from softspoken.data.batches import fresh_examples
from softspoken.data.prompts import encode_prompts
from softspoken.models.generation import require_finite
from softspoken.rl.joining import joined, of_prompts
from softspoken.rl.policy import Policy
from softspoken.rl.rollout import alike, generate_rollout
from softspoken.rl.scaling import too_short
from softspoken.types import Example, Rollout, Scores

Sampled = tuple[Rollout, Scores]
Draw = Callable[[list[Example], int], Sampled | None]
"""(texts that are not to come, at most how many are wanted) → their responses, scored; None where there is nothing more to draw."""


def with_fresh_texts(
    rollout: Rollout, scores: Scores, draw: Draw, config: TrainConfig, pad_id: int
) -> tuple[Rollout, Scores, int]:
    """The step's samples after at most `dynamic_sampling` replacements, of as many texts as before, and how many were replaced in all.

    What is alike after the last stays: the update leaves it out.
    """
    seen, replaced = list(rollout.prompts.examples), 0
    for _ in range(config.dynamic_sampling):
        dull = alike(scores.total, rollout)
        fresh = draw(seen, int(dull.sum())) if dull.any() else None
        if fresh is None:
            break
        texts = fresh[0].prompts.examples
        seen += texts
        replaced += len(texts)
        going = dull & (dull.cumsum(dim=0) <= len(texts))
        kept = (~going).nonzero().squeeze(1)
        rollout, scores = joined(of_prompts(rollout, scores, kept), fresh, pad_id) if len(kept) else fresh
    return rollout, scores, replaced


def sample_fresh(
    policy: Policy,
    examples: list[Example],
    score: Callable[[Rollout, Tensor, TrainConfig], Scores],
    config: TrainConfig,
    draws: torch.Generator,
    seen: list[Example],
    count: int,
) -> Sampled | None:
    """Samples of at most `count` examples that are not among `seen`, scored; None where there are none, or all are too short to judge."""
    texts = fresh_examples(examples, seen, count, draws)
    if not texts:
        return None
    prompts = encode_prompts(texts, policy.tokenizer, policy.prompt_format)
    rollout = generate_rollout(policy, prompts, config, draws)
    require_finite(rollout.old_logprobs, "sampling fresh texts")
    short = too_short(rollout, config.min_response_chars)
    return None if short.all() else (rollout, score(rollout, short, config))
