"""Parts of rollouts: the samples of some prompts alone, and two rollouts as one, padded to the longer."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from softspoken.types import Memory, PromptBatch, Rollout, Scores


def of_prompts(rollout: Rollout, scores: Scores, kept: Tensor) -> tuple[Rollout, Scores]:
    """Of the prompts `kept` [b] int64, in that order, and of their samples; widths stay as they were."""
    place = torch.full((len(rollout.prompts.examples),), -1, device=rollout.prompt_index.device)
    kept = kept.to(place.device)
    place[kept] = torch.arange(len(kept), device=place.device)
    rows = (place[rollout.prompt_index] >= 0).nonzero().squeeze(1)
    prompts, memory = rollout.prompts, rollout.memory
    some = replace(
        rollout,
        prompts=PromptBatch(
            [prompts.examples[number] for number in kept.tolist()],
            prompts.input_ids[kept],
            prompts.attention_mask[kept],
            prompts.truncated,
        ),
        prompt_index=place[rollout.prompt_index[rows]],
        responses=[rollout.responses[row] for row in rows.tolist()],
        response_ids=rollout.response_ids[rows],
        response_mask=rollout.response_mask[rows],
        truncated=rollout.truncated[rows],
        old_logprobs=rollout.old_logprobs[rows],
        ref_logprobs=rollout.ref_logprobs[rows],
        old_values=None if rollout.old_values is None else rollout.old_values[rows],
        # Of several processes each has a part of it, in an order that is lost here: the prompts are read again.
        own=None,
        memory=None
        if memory is None or rollout.own
        else Memory(
            memory.states[kept],
            memory.attention_mask[kept],
            [(keys[kept], values[kept]) for keys, values in memory.cross],
        ),
    )
    asked = rows.to(scores.total.device)
    return some, Scores(scores.total[asked], {name: term[asked] for name, term in scores.terms.items()})


def joined(one: tuple[Rollout, Scores], other: tuple[Rollout, Scores], pad_id: int) -> tuple[Rollout, Scores]:
    """The prompts of both, those of `one` first, and all their samples."""
    (first, first_scores), (second, second_scores) = one, other
    values = None
    if first.old_values is not None and second.old_values is not None:
        values = _stacked(first.old_values, second.old_values)
    found = [mismatch for mismatch in (first.mismatch, second.mismatch) if mismatch is not None]
    both = Rollout(
        prompts=PromptBatch(
            [*first.prompts.examples, *second.prompts.examples],
            _stacked(first.prompts.input_ids, second.prompts.input_ids, filler=pad_id),
            _stacked(first.prompts.attention_mask, second.prompts.attention_mask),
            first.prompts.truncated + second.prompts.truncated,
        ),
        prompt_index=torch.cat([first.prompt_index, second.prompt_index + len(first.prompts.examples)]),
        responses=[*first.responses, *second.responses],
        response_ids=_stacked(first.response_ids, second.response_ids, filler=pad_id),
        response_mask=_stacked(first.response_mask, second.response_mask),
        truncated=torch.cat([first.truncated, second.truncated]),
        old_logprobs=_stacked(first.old_logprobs, second.old_logprobs),
        ref_logprobs=_stacked(first.ref_logprobs, second.ref_logprobs),
        old_values=values,
        mismatch=max(found, default=None),
        has_reference=first.has_reference and second.has_reference,
        memory=_joined_memory(first, second),
    )
    terms = {name: torch.cat([term, second_scores.terms[name]]) for name, term in first_scores.terms.items()}
    return both, Scores(torch.cat([first_scores.total, second_scores.total]), terms)


def _joined_memory(one: Rollout, other: Rollout) -> Memory | None:
    first, second = one.memory, other.memory
    if first is None or second is None or one.own or other.own:
        return None
    cross = [
        (_stacked(keys, more_keys, dim=2), _stacked(values, more_values, dim=2))
        for (keys, values), (more_keys, more_values) in zip(first.cross, second.cross, strict=True)
    ]
    states = _stacked(first.states, second.states)
    return Memory(states, _stacked(first.attention_mask, second.attention_mask), cross)


def _stacked(first: Tensor, second: Tensor, *, dim: int = 1, filler: int = 0) -> Tensor:
    """Along dimension 0, the narrower padded on the right of `dim`."""
    width = max(first.shape[dim], second.shape[dim])
    behind = [0, 0] * (first.ndim - 1 - dim)
    wide = [F.pad(part, [*behind, 0, width - part.shape[dim]], value=filler) for part in (first, second)]
    return torch.cat(wide)
