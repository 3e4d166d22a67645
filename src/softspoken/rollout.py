"""Step 1, sample: summaries for a batch of prompts, and what the update needs to know about how they came about."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from softspoken import numerics
from softspoken.config import TrainConfig
from softspoken.model import Policy
from softspoken.types import PromptBatch, Rollout


@torch.no_grad()
def generate_rollout(policy: Policy, prompts: PromptBatch, config: TrainConfig, generator: torch.Generator) -> Rollout:
    """`samples_per_prompt` summaries of each dialogue, sampled at `temperature` from the distribution that is trained.

    Log-probabilities and values are recorded while sampling; one more pass, with the adapter off, scores the same tokens
    under the reference. `generator` is a CPU generator: the draws are the same on every device.
    """
    prompts = replace(
        prompts,
        input_ids=prompts.input_ids.to(policy.device),
        attention_mask=prompts.attention_mask.to(policy.device),
    )
    prompt_index = torch.arange(len(prompts.dialogues), device=policy.device).repeat_interleave(
        config.samples_per_prompt
    )
    uniforms = torch.rand((len(prompt_index), config.max_new_tokens), generator=generator).to(policy.device)
    encoder_states = policy.encode(prompts.input_ids, prompts.attention_mask)
    ids, mask, logprobs, values = _sample(
        policy, encoder_states[prompt_index], prompts.attention_mask[prompt_index], uniforms, config.temperature
    )
    texts = policy.tokenizer.batch_decode(ids, skip_special_tokens=True)
    rollout = Rollout(
        prompts=prompts,
        prompt_index=prompt_index,
        responses=[text.strip() for text in texts],
        response_ids=ids,
        response_mask=mask,
        truncated=~(ids == policy.eos_id).any(dim=1),
        old_logprobs=logprobs,
        ref_logprobs=logprobs,
        old_values=values,
    )
    return replace(rollout, ref_logprobs=reference_logprobs(policy, rollout, config))


def _sample(
    policy: Policy, encoder_states: Tensor, attention_mask: Tensor, uniforms: Tensor, temperature: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One token at a time until every row has its EOS, or for as many as there are uniforms.

    Returns response_ids int64, response_mask bool, old_logprobs and old_values float32, each [N, T].
    """
    rows, limit = uniforms.shape
    cache = policy.new_cache()
    token = torch.full((rows,), policy.start_id, device=policy.device)
    running = torch.ones(rows, dtype=torch.bool, device=policy.device)
    columns: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for t in range(limit):
        states = policy.decode_step(token, encoder_states, attention_mask, cache)
        logits = policy.logits(states, temperature)
        forced_id = policy.forced_bos_id if t == 0 else None
        forced = forced_id is not None
        drawn = numerics.sample_ids(logits, uniforms[:, t]) if forced_id is None else torch.full_like(token, forced_id)
        token = torch.where(running, drawn, policy.pad_id)
        counts = running & (not forced)
        logprobs = torch.where(counts, numerics.token_logprobs(logits, drawn), 0.0)
        columns.append((token, counts, logprobs, torch.where(counts, policy.values(states), 0.0)))
        running = running & (token != policy.eos_id) if not forced else running
        if not running.any():
            break
    ids, mask, old_logprobs, old_values = (torch.stack(column, dim=1) for column in zip(*columns, strict=True))
    return ids, mask, old_logprobs, old_values


@torch.no_grad()
def reference_logprobs(policy: Policy, rollout: Rollout, config: TrainConfig) -> Tensor:
    """Log-probabilities [N, T] float32 of the sampled tokens under the frozen reference, 0 off the mask."""
    logprobs = torch.zeros_like(rollout.old_logprobs)
    with policy.reference():
        for rows in micro_batches(rollout, torch.arange(len(rollout.responses)), config.micro_batch_size):
            logprobs[rows, : _longest(rollout, rows)], _ = score_rows(policy, rollout, rows, config)
    return logprobs


def score_rows(policy: Policy, rollout: Rollout, rows: Tensor, config: TrainConfig) -> tuple[Tensor, Tensor]:
    """Teacher-forced log-probabilities and values of some rows, each [n, longest of them] float32, 0 off the mask.

    Each prompt among the rows is encoded once, however many samples answer it, and nothing is padded beyond the longest.
    """
    length = _longest(rollout, rows)
    ids, mask = rollout.response_ids[rows, :length], rollout.response_mask[rows, :length]
    prompt_rows, place = rollout.prompt_index[rows].unique(return_inverse=True)
    attention_mask = rollout.prompts.attention_mask[prompt_rows]
    width = int(attention_mask.sum(dim=1).max())
    attention_mask = attention_mask[:, :width]
    encoder_states = policy.encode(rollout.prompts.input_ids[prompt_rows, :width], attention_mask)
    states = policy.decode(ids, encoder_states[place], attention_mask[place])
    logprobs = numerics.token_logprobs(policy.logits(states, config.temperature), torch.where(mask, ids, policy.eos_id))
    values = policy.values(states, detached=config.value_head_detached)
    return torch.where(mask, logprobs, 0.0), torch.where(mask, values, 0.0)


def micro_batches(rollout: Rollout, rows: Tensor, size: int) -> list[Tensor]:
    """The rows in pieces of at most `size`, those of one prompt kept together so that they share its encoding."""
    ordered = rows[rollout.prompt_index.cpu()[rows].sort(stable=True).indices]
    return list(ordered.split(size))


def keep_rows(rollout: Rollout, keep: Tensor) -> Rollout:
    """The rollout without the rows where `keep` [N] bool is false; prompts stay as they are."""
    rows = keep.nonzero().squeeze(1)
    return replace(
        rollout,
        prompt_index=rollout.prompt_index[rows],
        responses=[rollout.responses[row] for row in rows.tolist()],
        response_ids=rollout.response_ids[rows],
        response_mask=rollout.response_mask[rows],
        truncated=rollout.truncated[rows],
        old_logprobs=rollout.old_logprobs[rows],
        ref_logprobs=rollout.ref_logprobs[rows],
        old_values=None if rollout.old_values is None else rollout.old_values[rows],
    )


def drop_short(rollout: Rollout, min_chars: int) -> tuple[Rollout, int]:
    """Leave out responses of fewer than `min_chars` characters, and say how many those were; none may be left."""
    keep = torch.tensor([len(text) >= min_chars for text in rollout.responses], device=rollout.response_ids.device)
    return keep_rows(rollout, keep), int((~keep).sum())


def _longest(rollout: Rollout, rows: Tensor) -> int:
    return max(1, int(numerics.last_true(rollout.response_mask[rows]).max()) + 1)
