"""The statistics of a step, under TRL's names."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from softspoken.rl.numerics import masked_mean, masked_var

PADDING = -1
"""Fills the arrays of mini-batches that are smaller than others, as TRL does."""


def entropy(logits: Tensor) -> Tensor:
    """Entropy [...] in nats of softmax(logits), [..., V] with −inf for what cannot come out."""
    with torch.no_grad():
        normalizer = logits.logsumexp(dim=-1)
        return normalizer - (logits - normalizer.unsqueeze(-1)).exp().mul_(logits.clamp(min=-1e30)).sum(dim=-1)


def clipped_losses(
    policy_losses: tuple[Tensor, Tensor], value_losses: tuple[Tensor, Tensor], mask: Tensor
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Masked means of the larger of each pair (unclipped, clipped), and how often the clipped one was."""
    policy_loss = masked_mean(torch.maximum(*policy_losses), mask)
    value_loss = 0.5 * masked_mean(torch.maximum(*value_losses), mask)
    fractions = {
        "policy/clipfrac": masked_mean((policy_losses[1] > policy_losses[0]).float(), mask),
        "val/clipfrac": masked_mean((value_losses[1] > value_losses[0]).float(), mask),
    }
    return policy_loss, value_loss, fractions


def gathered(minis: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """One entry a mini-batch, in rows; the arrays of all mini-batches in one row, so that they are not averaged."""
    result = {}
    for name in minis[0]:
        flat = [mini[name].flatten() for mini in minis]
        rows = torch.nn.utils.rnn.pad_sequence(flat, batch_first=True, padding_value=PADDING)
        result[name] = rows.flatten().unsqueeze(0) if name in ("policy/advantages", "policy/ratio") else rows
    return result


def step_stats(kl_coef: float, data: Mapping[str, Any]) -> dict[str, Any]:
    """What TRL's record_step_stats makes of a step; `data` has its names."""
    mask = data["masks"]
    per_response = (data["kls"] * mask).sum(dim=-1)
    scores = data["scores"]
    stats: dict[str, Any] = {
        "objective/kl": per_response.mean(),
        "objective/kl_dist": per_response,
        "objective/logprobs": data["logprobs"],
        "objective/ref_logprobs": data["ref_logprobs"],
        "objective/kl_coef": kl_coef,
        "objective/entropy": (-data["logprobs"] * mask).sum(dim=-1).mean(),
        "ppo/mean_non_score_reward": masked_mean(data["non_score_reward"], mask),
        "ppo/mean_scores": scores.mean(),
        "ppo/std_scores": _std(scores),
    }
    for name, texts in (("queries", data["queries"]), ("responses", data["responses"])):
        lengths = torch.tensor([float(len(ids)) for ids in texts])
        stats[f"tokens/{name}_len_mean"] = lengths.mean()
        stats[f"tokens/{name}_len_std"] = _std(lengths)
        stats[f"tokens/{name}_dist"] = lengths
    for name, values in data["train_stats"].items():
        stats[f"ppo/{name}"] = values.mean(dim=0)
    variance = stats["ppo/returns/var"]
    explained = 1 - stats["ppo/val/error"] / variance if bool((variance > 0).all()) else torch.zeros(1)
    stats["ppo/val/var_explained"] = explained
    return stats


def moments(values: Tensor, mask: Tensor) -> dict[str, Tensor]:
    return {"mean": masked_mean(values, mask), "var": masked_var(values, mask)}


def as_numpy(stats: Mapping[str, Any], *, scalars: bool) -> dict[str, Any]:
    """Tensors as arrays and, with `scalars`, those of one entry as plain numbers, which trackers take."""
    result: dict[str, Any] = {}
    for name, value in stats.items():
        array = value.detach().float().cpu().numpy() if isinstance(value, Tensor) else value
        if scalars and isinstance(array, np.ndarray) and (array.ndim == 0 or array.shape == (1,)):
            array = array.item()
        result[name] = float(array) if isinstance(array, (int, float)) else array
    return result


def _std(values: Tensor) -> Tensor:
    """Unbiased; 0 for a single one."""
    return values.std() if len(values) > 1 else values.new_zeros(())


@contextlib.contextmanager
def clock(timing: dict[str, float], name: str) -> Iterator[None]:
    """Write into `timing` how many seconds the block took."""
    begun = time.time()
    yield
    timing[f"time/ppo/{name}"] = time.time() - begun
