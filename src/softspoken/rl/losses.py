"""What an update descends, whatever gave the advantages: the surrogate objective, the KL to the reference, and what a token weighs."""

from __future__ import annotations

import torch
from torch import Tensor

from softspoken.config import TrainConfig
from softspoken.rl import numerics
from softspoken.types import Experience, Rollout


def surrogate_loss(
    logprobs: Tensor, experience: Experience, rows: Tensor, config: TrainConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """The policy's loss, summed over the weighted tokens of `rows`, and its parts' sums; see `numerics` for the surrogates.

    logprobs: [n, L] float32 of the policy as it is, L the longest of the rows; r is their ratio to the sampling policy's, a token's
    or, by `importance_ratio`, a response's.
    """
    rollout, length = experience.rollout, logprobs.shape[1]
    mask, advantages = rollout.response_mask[rows, :length], experience.advantages[rows, :length]
    logratio = (logprobs - rollout.old_logprobs[rows, :length]) * mask
    of_sequence = config.importance_ratio == "sequence"
    ratio = numerics.sequence_ratio(logratio, mask) if of_sequence else numerics.ratio(logratio)
    high = config.clip_range if config.clip_range_high is None else config.clip_range_high
    if config.surrogate == "cispo":
        loss, held = numerics.cispo_surrogate(ratio, logprobs, advantages, high)
    else:
        loss, held = numerics.clipped_surrogate(ratio, advantages, config.clip_range, high, config.dual_clip)
    loss = weighted_sum(loss, mask, config)
    parts = {"policy_loss": loss.detach(), "clip_fraction": (held & mask).sum().float()}
    return loss, parts | moved(logratio, ratio, mask)


@torch.no_grad()
def moved(logratio: Tensor, ratio: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """How far the policy is from the one that sampled, summed over the tokens: [n, L] each → scalars."""
    return {"approx_kl": (numerics.kl_k3(-logratio) * mask).sum(), "ratio_mean": (ratio * mask).sum()}


def kl_loss(logprobs: Tensor, experience: Experience, rows: Tensor, config: TrainConfig) -> Tensor:
    """kl_coef · KL(policy || reference) by `kl_estimator`, summed over the weighted tokens of `rows`; see `numerics.kl_for_loss`.

    0 where the penalty is in the reward. Its gradient has less noise than that of a reward, and no interest in short summaries.
    """
    if config.kl_in == "reward" or not experience.kl_coef:
        return logprobs.new_zeros(())
    rollout, length = experience.rollout, logprobs.shape[1]
    old, reference = rollout.old_logprobs[rows, :length], rollout.ref_logprobs[rows, :length]
    kl = numerics.kl_for_loss(config.penalty_estimator, logprobs, old, reference)
    return experience.kl_coef * weighted_sum(kl, rollout.response_mask[rows, :length], config)


def penalty_kl(rollout: Rollout, config: TrainConfig) -> Tensor:
    """KL(policy || reference) at each sampled token, [N, T] in nats, by the estimator of the penalty; 0 off the mask."""
    estimator = numerics.KL_ESTIMATORS[config.penalty_estimator]
    return estimator(rollout.old_logprobs - rollout.ref_logprobs) * rollout.response_mask


# ------------------------------------------------------------------------------------------------ what a token weighs


def weighted_sum(losses: Tensor, mask: Tensor, config: TrainConfig) -> Tensor:
    """Over the true positions of losses [n, L]: as they are or, where each response weighs the same, over its number of tokens.

    The loss of a mini-batch is the sum of these over its rows by `divisor` of them all, however they are split.
    """
    if config.loss_normalization == "sequence":
        losses = losses / mask.sum(dim=1, keepdim=True).clamp(min=1)
    return (losses * mask).sum()


def divisor(mask: Tensor, config: TrainConfig) -> Tensor:
    """What the loss of a mini-batch is divided by, a scalar, from its rows' mask [n, T].

    token: their tokens, so that each weighs the same (Yu et al. 2025, DAPO, eq. 12). sequence: their number, so that each response
    does (Shao et al. 2024, GRPO, eq. 3), and a token of a long one less. constant: their number times `max_new_tokens`, so that
    neither a response's length nor its neighbours' changes what a token weighs (Liu et al. 2025, Dr. GRPO, sec. 3.2). Of pairs (dpo)
    it is their number.
    """
    if config.algorithm == "dpo":
        return mask.new_tensor(len(mask) // 2, dtype=torch.long)
    match config.loss_normalization:
        case "token":
            return mask.sum()
        case "sequence":
            return mask.new_tensor(len(mask), dtype=torch.long)
        case "constant":
            return mask.new_tensor(len(mask) * config.max_new_tokens, dtype=torch.long)
