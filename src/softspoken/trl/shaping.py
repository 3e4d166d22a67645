"""The arithmetic of a step in TRL's words: token rewards, advantages, losses."""

from __future__ import annotations

import torch
from torch import Tensor

from softspoken.rl import numerics
from softspoken.rl.numerics import masked_mean
from softspoken.trl import stats as statistics
from softspoken.trl.config import PPOConfig


def kl_penalty(logprobs: Tensor, ref_logprobs: Tensor, kind: str) -> Tensor:
    """KL [N, T] in nats: by the tokens' log-probabilities [N, T] or, if `kind` is "full", by the vocabulary's [N, T, V]."""
    if kind == "full":  # what can come out under neither adds nothing
        logprobs, ref_logprobs = logprobs.nan_to_num(neginf=0.0), ref_logprobs.nan_to_num(neginf=0.0)
        return torch.nn.functional.kl_div(ref_logprobs, logprobs, log_target=True, reduction="none").sum(dim=-1)
    difference = logprobs - ref_logprobs
    if kind == "abs":
        return difference.abs()
    return numerics.kl_k2(difference) if kind == "mse" else numerics.kl_k1(difference)


def token_rewards(scores: Tensor, kls: Tensor, masks: Tensor, kl_coef: float) -> tuple[Tensor, Tensor]:
    """(rewards, their part that is not the score), each [N, T]; a response's score lands on its last masked position."""
    non_score_reward = -kl_coef * kls
    rewards = non_score_reward.clone()
    rewards[torch.arange(len(rewards)), numerics.last_true(masks.bool())] += scores
    return rewards, non_score_reward


def advantages_of(values: Tensor, rewards: Tensor, mask: Tensor, config: PPOConfig) -> tuple[Tensor, Tensor, Tensor]:
    """(values, whitened advantages, returns), each [N, T]."""
    mask = mask.bool()
    values, rewards = values * mask, rewards * mask
    among = torch.ones_like(mask) if config.padding_in_advantages else mask
    if config.whiten_rewards:
        scale = torch.rsqrt(numerics.masked_var(rewards, mask) + 1e-8)
        mean = masked_mean(rewards, mask)
        rewards = ((rewards - mean) * scale + mean) * among
    advantages = numerics.gae(rewards, values, among, config.gamma, config.lam)
    return values, numerics.whiten(advantages, mask), advantages + values


def losses(
    old_logprobs: Tensor,
    values: Tensor,
    logits: Tensor,
    vpreds: Tensor,
    logprobs: Tensor,
    mask: Tensor,
    advantages: Tensor,
    returns: Tensor,
    config: PPOConfig,
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """(policy loss, vf_coef · value loss, statistics) of a mini-batch. All [n, T], but the logits: [n, T, V], or one row a token.

    A mini-batch whose mean ratio passes ratio_threshold, or is no number, has losses of 0 and "policy/skipped" 1.
    """
    mask = mask.bool()
    near = values + (vpreds - values).clamp(-config.cliprange_value, config.cliprange_value)
    logratio = torch.where(mask, logprobs - old_logprobs, 0.0)
    ratio = logratio.exp()
    clipped = ratio.clamp(1 - config.cliprange, 1 + config.cliprange)
    policy_loss, value_loss, fractions = statistics.clipped_losses(
        (-advantages * ratio, -advantages * clipped), ((vpreds - returns) ** 2, (near - returns) ** 2), mask
    )
    total = policy_loss + config.vf_coef * value_loss
    skipped = not masked_mean(ratio, mask) <= config.ratio_threshold or not bool(torch.isfinite(total))
    if skipped:
        policy_loss, value_loss, total = (torch.zeros_like(loss) for loss in (policy_loss, value_loss, total))
    with torch.no_grad():
        entropies = statistics.entropy(logits)
        stats = {
            "loss/policy": policy_loss,
            "loss/value": value_loss,
            "loss/total": total,
            "policy/entropy": masked_mean(entropies, mask) if entropies.shape == mask.shape else entropies.mean(),
            "policy/approxkl": masked_mean(numerics.kl_k2(logratio), mask),
            "policy/policykl": masked_mean(-logratio, mask),
            "policy/advantages": advantages,
            "policy/advantages_mean": masked_mean(advantages, mask),
            "policy/ratio": ratio,
            "policy/skipped": torch.tensor(float(skipped)),
            "val/vpred": masked_mean(vpreds, mask),
            "val/error": masked_mean((vpreds - returns) ** 2, mask),
            **{f"returns/{name}": value for name, value in statistics.moments(returns, mask).items()},
            **{f"val/{name}": value for name, value in statistics.moments(values, mask).items()},
            **fractions,
        }
    return policy_loss, config.vf_coef * value_loss, {name: value.detach() for name, value in stats.items()}
