"""Step 4, optimise, whatever the algorithm: mini-batches of the samples, their gradient in micro-batches, when to stop."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from softspoken.config import TrainConfig
from softspoken.rl import numerics
from softspoken.rl.policy import Policy
from softspoken.rl.rollout import micro_batches, widest, within_memory
from softspoken.types import Experience, Rollout, UpdateStats

Loss = Callable[[Policy, Experience, Tensor, TrainConfig], tuple[Tensor, dict[str, Tensor]]]
"""(policy, experience, rows, config) → the loss summed over the tokens of the rows, and its parts' sums by name."""


def optimise(
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    experience: Experience,
    config: TrainConfig,
    generator: torch.Generator,
    loss_of: Loss,
) -> UpdateStats:
    """`ppo_epochs` passes over the samples in mini-batches, each in micro-batches whose gradients add up to the same.

    Stops early once the policy has moved by more than `target_kl` since it sampled; that mini-batch and the rest are
    counted as skipped, and so is a mini-batch whose gradient is not finite.
    """
    totals = _Totals()
    # Each clipped by itself: the critic's gradient may be the larger by far, and would take the adapter's share.
    parts = list(policy.adapter_parameters().values()), list(policy.value_head.parameters())
    plan = _mini_batches(experience.rollout, config, generator)
    for done, rows in enumerate(plan):
        accumulate = partial(_accumulate_gradient, policy, optimizer, experience, rows, config, loss_of)
        losses = within_memory(
            policy, min(len(rows), config.micro_batch_size), widest(experience.rollout, rows), accumulate
        )
        if config.target_kl is not None and losses["approx_kl"] > config.target_kl:
            totals.skipped += len(plan) - done
            break
        norm, value_norm = (torch.nn.utils.clip_grad_norm_(part, config.max_grad_norm).item() for part in parts)
        if not math.isfinite(norm + value_norm):
            totals.skipped += 1
            continue
        optimizer.step()
        totals.add(losses, norm, value_norm)
    optimizer.zero_grad(set_to_none=True)
    return totals.stats(experience)


def clipped_policy_loss(
    logprobs: Tensor, experience: Experience, rows: Tensor, config: TrainConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """−min(rA, clip(r, 1 ± clip_range)A), summed over the tokens of `rows` (Schulman et al. 2017, eq. 7), and its parts' sums.

    logprobs: [n, L] float32 of the policy as it is, L the longest of the rows; r is their ratio to the sampling policy's.
    """
    rollout, length = experience.rollout, logprobs.shape[1]
    mask, advantages = rollout.response_mask[rows, :length], experience.advantages[rows, :length]
    logratio = (logprobs - rollout.old_logprobs[rows, :length]) * mask
    ratio = numerics.ratio(logratio)
    unclipped = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - config.clip_range, 1 + config.clip_range)
    loss = (torch.maximum(unclipped, clipped) * mask).sum()
    with torch.no_grad():
        parts = {
            "policy_loss": loss.detach(),
            "approx_kl": (numerics.kl_k3(-logratio) * mask).sum(),
            "clip_fraction": ((clipped > unclipped) & mask).sum().float(),
            "ratio_mean": (ratio * mask).sum(),
        }
    return loss, parts


def kl_loss(logprobs: Tensor, experience: Experience, rows: Tensor, config: TrainConfig) -> Tensor:
    """kl_coef · KL(policy || reference) by `kl_estimator`, summed over the tokens of `rows`; see `numerics.kl_for_loss`.

    0 where the penalty is in the reward. Its gradient has less noise than that of a reward, and no interest in short summaries.
    """
    if config.kl_in == "reward" or not experience.kl_coef:
        return logprobs.new_zeros(())
    rollout, length = experience.rollout, logprobs.shape[1]
    old, reference = rollout.old_logprobs[rows, :length], rollout.ref_logprobs[rows, :length]
    kl = numerics.kl_for_loss(config.penalty_estimator, logprobs, old, reference)
    return experience.kl_coef * (kl * rollout.response_mask[rows, :length]).sum()


def penalty_kl(rollout: Rollout, config: TrainConfig) -> Tensor:
    """KL(policy || reference) at each sampled token, [N, T] in nats, by the estimator of the penalty; 0 off the mask."""
    estimator = numerics.KL_ESTIMATORS[config.penalty_estimator]
    return estimator(rollout.old_logprobs - rollout.ref_logprobs) * rollout.response_mask


def _mini_batches(rollout: Rollout, config: TrainConfig, generator: torch.Generator) -> list[Tensor]:
    """Rows of every mini-batch of every epoch: prompts shuffled, samples of one prompt together, the last one smaller."""
    batches: list[Tensor] = []
    index = rollout.prompt_index.cpu()
    for _ in range(config.ppo_epochs):
        place = torch.randperm(len(rollout.prompts.examples), generator=generator)
        rows = place[index].sort(stable=True).indices
        batches += rows.split(config.mini_batch_size)
    return batches


def _accumulate_gradient(
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    experience: Experience,
    rows: Tensor,
    config: TrainConfig,
    loss_of: Loss,
) -> dict[str, float]:
    """Backward through every micro-batch; each token weighs the same in the mini-batch, however it was split."""
    optimizer.zero_grad(set_to_none=True)
    tokens = experience.rollout.response_mask[rows].sum()
    sums: dict[str, Tensor] = {}
    for micro in micro_batches(policy, experience.rollout, rows, config):
        loss, parts = loss_of(policy, experience, micro, config)
        (loss / tokens).backward()
        for name, value in parts.items():
            sums[name] = sums.get(name, torch.zeros_like(value)) + value
    return {name: (value / tokens).item() for name, value in sums.items()} | {"tokens": tokens.item()}


class _Totals:
    """Running sums of the mini-batches that were applied, weighted by their tokens."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.norms: list[tuple[float, float]] = []
        self.skipped = 0

    def add(self, losses: dict[str, float], norm: float, value_norm: float) -> None:
        self.norms.append((norm, value_norm))
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + (value if name == "tokens" else value * losses["tokens"])

    def stats(self, experience: Experience) -> UpdateStats:
        rollout = experience.rollout
        tokens = self.sums.pop("tokens", 0.0) or 1.0
        norm, value_norm = (sum(norms) / len(norms) for norms in zip(*(self.norms or [(0.0, 0.0)]), strict=True))
        mean = {name: self.sums.get(name, 0.0) / tokens for name in ("policy_loss", "value_loss", "approx_kl")}
        return UpdateStats(
            **mean,
            clip_fraction=self.sums.get("clip_fraction", 0.0) / tokens,
            ratio_mean=self.sums.get("ratio_mean", tokens) / tokens,
            # −log p of what was sampled is an unbiased estimate of the entropy, at no cost.
            entropy=numerics.masked_mean(-rollout.old_logprobs, rollout.response_mask).item(),
            grad_norm=norm,
            value_grad_norm=value_norm,
            explained_variance=_explained_variance(experience),
            skipped=self.skipped,
            optimizer_steps=len(self.norms),
        )


def _explained_variance(experience: Experience) -> float:
    values, returns = experience.rollout.old_values, experience.returns
    if values is None or returns is None:
        return 0.0
    return numerics.explained_variance(values, returns, experience.rollout.response_mask)
