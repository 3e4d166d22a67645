"""Responses that were written, not sampled, as a rollout: for losses that learn from what others preferred."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from softspoken.config import TrainConfig
from softspoken.data.batches import on_device
from softspoken.rl.policy import Policy
from softspoken.rl.rollout import own_rows, read, teacher_forced
from softspoken.runtime import processes
from softspoken.types import PromptBatch, Rollout


@torch.no_grad()
def given_rollout(
    policy: Policy, prompts: PromptBatch, prompt_index: list[int], labels: list[list[int]], config: TrainConfig
) -> Rollout:
    """`labels`: the ids of each response, an end among them, as `label_ids` makes them; `prompt_index`: which prompt it answers.

    Both log-probabilities are the frozen reference's: nothing sampled these.
    """
    prompts = on_device(prompts, policy.device)
    own, reads_once = processes.share(len(prompts.examples)), config.fast and not policy.encoder_adapted
    ids = torch.full((len(labels), max(map(len, labels))), policy.pad_id)
    for row, label in enumerate(labels):
        ids[row, : len(label)] = torch.tensor(label)
    ids = ids.to(policy.device)
    lengths = torch.tensor([len(label) for label in labels], device=policy.device)
    mask = counted(policy, ids, lengths)
    blank = torch.zeros(mask.shape, device=policy.device)
    rollout = Rollout(
        prompts=prompts,
        prompt_index=torch.tensor(prompt_index, device=policy.device),
        responses=policy.texts(ids),
        response_ids=ids,
        response_mask=mask,
        truncated=~(policy.ends(ids) & mask).any(dim=1),
        old_logprobs=blank,
        ref_logprobs=blank,
        memory=read(policy, prompts, config, own) if reads_once and own.start < own.stop else None,
        own=own if reads_once and processes.size() > 1 else None,
    )
    with policy.reference():
        logprobs, _ = teacher_forced(policy, rollout, config, own_rows(rollout, torch.arange(len(labels))))
    processes.add_up([logprobs])  # of each process's own rows; 0 elsewhere
    return replace(rollout, old_logprobs=logprobs, ref_logprobs=logprobs)


def counted(policy: Policy, ids: Tensor, lengths: Tensor) -> Tensor:
    """[N, T] bool: true through the first end of ids [N, T], false where the model has no choice: what it is forced to begin with, and
    what it can never write (ids that are suppressed), whose probability is 0."""
    ends = policy.ends(ids)
    mask = torch.arange(ids.shape[1], device=ids.device) < lengths.unsqueeze(1)
    mask = mask & (ends.cumsum(dim=1) - ends.long() == 0) & ~policy.forbidden[ids]
    if policy.forced_bos_id is not None:
        mask[:, 0] &= ids[:, 0] != policy.forced_bos_id
    first = mask & (mask.cumsum(dim=1) == 1)
    return mask & ~(first & torch.isin(ids, policy.forbidden_first))
