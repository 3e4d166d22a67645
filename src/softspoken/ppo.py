"""Steps 3 and 4, shape and optimise, for PPO: KL-penalized token rewards, advantages, the clipped update.

Details follow Huang et al. 2024, "The N Implementation Details of RLHF with PPO"; the objective is Schulman et al. 2017.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from softspoken import numerics
from softspoken.config import TrainConfig
from softspoken.model import Policy
from softspoken.numerics import masked_mean
from softspoken.rollout import micro_batches, score_rows, within_memory
from softspoken.types import Experience, Rollout, Scores, UpdateStats


def token_rewards(rollout: Rollout, scores: Scores, config: TrainConfig, kl_coef: float) -> Tensor:
    """Each token's reward [N, T]: −kl_coef · KL, and on the last true position the summary's score as well."""
    penalty = numerics.KL_ESTIMATORS[config.kl_estimator](rollout.old_logprobs - rollout.ref_logprobs)
    rewards = -kl_coef * penalty * rollout.response_mask
    total = scores.total.to(rewards) - config.missing_eos_penalty * rollout.truncated
    rows = torch.arange(len(rewards), device=rewards.device)
    rewards[rows, numerics.last_true(rollout.response_mask)] += total
    return rewards


def build_experience(rollout: Rollout, scores: Scores, config: TrainConfig, kl_coef: float) -> Experience:
    """Token rewards → advantages and value targets. `rollout` must have no row whose mask is all false."""
    assert rollout.old_values is not None, "PPO needs the values that generate_rollout records"
    mask = rollout.response_mask
    rewards = token_rewards(rollout, scores, config, kl_coef)
    if config.whiten_rewards:
        rewards = numerics.whiten(rewards, mask, shift_mean=False)
    advantages = numerics.gae(rewards, rollout.old_values, mask, config.gamma, config.gae_lambda)
    returns = (advantages + rollout.old_values) * mask
    if config.sibling_baseline:
        advantages = advantages - sibling_baseline(advantages, rollout) * mask
    if config.whiten_advantages:
        advantages = numerics.whiten(advantages, mask)
    kl = numerics.kl_k1(rollout.old_logprobs - rollout.ref_logprobs) * mask
    return Experience(rollout, scores, kl, advantages, returns)


def sibling_baseline(advantages: Tensor, rollout: Rollout) -> Tensor:
    """For each row [N, 1]: the mean advantage, at the first token, of the other samples of its prompt; 0 where there are none.

    They do not depend on what this row sampled, so subtracting it leaves the gradient's expectation as it is and takes out
    what the value head has not learned of the prompt (leave-one-out: Kool et al. 2019; Ahmadian et al. 2024, eq. 6).
    """
    first = rollout.response_mask.int().argmax(dim=1)
    own = advantages.gather(1, first[:, None]).squeeze(1)
    index, prompts = rollout.prompt_index, len(rollout.prompts.dialogues)
    total = own.new_zeros(prompts).index_add(0, index, own)[index]
    siblings = index.bincount(minlength=prompts)[index] - 1
    return ((total - own) / siblings.clamp(min=1) * (siblings > 0)).unsqueeze(1)


def update(
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    experience: Experience,
    config: TrainConfig,
    generator: torch.Generator,
) -> UpdateStats:
    """`ppo_epochs` passes over the samples in mini-batches, each in micro-batches whose gradients add up to the same.

    Stops early once the policy has moved by more than `target_kl` since it sampled; that mini-batch and the rest are
    counted as skipped, and so is a mini-batch whose gradient is not finite.
    """
    totals = _Totals()
    plan = _mini_batches(experience.rollout, config, generator)
    for done, rows in enumerate(plan):
        accumulate = partial(_accumulate_gradient, policy, optimizer, experience, rows, config)
        losses = within_memory(policy, experience.rollout, rows, accumulate)
        if config.target_kl is not None and losses["approx_kl"] > config.target_kl:
            totals.skipped += len(plan) - done
            break
        norm = torch.nn.utils.clip_grad_norm_(policy.trainable().values(), config.max_grad_norm)
        if not torch.isfinite(norm):
            totals.skipped += 1
            continue
        optimizer.step()
        totals.add(losses, norm.item())
    optimizer.zero_grad(set_to_none=True)
    return totals.stats(experience)


def _mini_batches(rollout: Rollout, config: TrainConfig, generator: torch.Generator) -> list[Tensor]:
    """Rows of every mini-batch of every epoch: prompts shuffled, samples of one prompt together, the last one smaller."""
    batches: list[Tensor] = []
    index = rollout.prompt_index.cpu()
    for _ in range(config.ppo_epochs):
        place = torch.randperm(len(rollout.prompts.dialogues), generator=generator)
        rows = place[index].sort(stable=True).indices
        batches += rows.split(config.mini_batch_size)
    return batches


def _accumulate_gradient(
    policy: Policy, optimizer: torch.optim.Optimizer, experience: Experience, rows: Tensor, config: TrainConfig
) -> dict[str, float]:
    """Backward through every micro-batch; each token weighs the same in the mini-batch, however it was split."""
    optimizer.zero_grad(set_to_none=True)
    tokens = experience.rollout.response_mask[rows].sum()
    sums: dict[str, Tensor] = {}
    for micro in micro_batches(policy, experience.rollout, rows, config):
        loss, parts = ppo_loss(policy, experience, micro, config)
        (loss / tokens).backward()
        for name, value in parts.items():
            sums[name] = sums.get(name, torch.zeros_like(value)) + value
    return {name: (value / tokens).item() for name, value in sums.items()} | {"tokens": tokens.item()}


def ppo_loss(
    policy: Policy, experience: Experience, rows: Tensor, config: TrainConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """Clipped policy loss + value_coef · clipped value loss, summed over the tokens of `rows`, and its parts' sums.

    Policy: −min(rA, clip(r, 1 ± clip_range)A), Schulman et al. 2017 eq. 7. Value: ½ max((V − R)², (clip(V) − R)²), where
    the clip is clip_range_value around the old value (Huang et al. 2024, detail 15).
    """
    rollout = experience.rollout
    assert rollout.old_values is not None
    assert experience.returns is not None
    logprobs, values = score_rows(policy, rollout, rows, config)
    length = logprobs.shape[1]
    mask = rollout.response_mask[rows, :length]
    advantages, returns = experience.advantages[rows, :length], experience.returns[rows, :length]
    old_logprobs, old_values = rollout.old_logprobs[rows, :length], rollout.old_values[rows, :length]

    logratio = (logprobs - old_logprobs) * mask
    ratio = logratio.exp()
    unclipped = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - config.clip_range, 1 + config.clip_range)
    policy_loss = (torch.maximum(unclipped, clipped) * mask).sum()

    near = old_values + (values - old_values).clamp(-config.clip_range_value, config.clip_range_value)
    value_loss = (0.5 * torch.maximum((values - returns).square(), (near - returns).square()) * mask).sum()

    with torch.no_grad():
        parts = {
            "policy_loss": policy_loss.detach(),
            "value_loss": value_loss.detach(),
            "approx_kl": (numerics.kl_k3(-logratio) * mask).sum(),
            "clip_fraction": ((clipped > unclipped) & mask).sum().float(),
            "ratio_mean": (ratio * mask).sum(),
        }
    return policy_loss + config.value_coef * value_loss, parts


def next_kl_coef(kl_coef: float, kl: float, samples: int, config: TrainConfig) -> float:
    """The KL weight for the next step: as it is (fixed), or nudged towards `kl_target` (Ziegler et al. 2019, sec. 2.2)."""
    if config.kl_controller == "fixed":
        return kl_coef
    error = min(max(kl / config.kl_target - 1, -0.2), 0.2)
    return kl_coef * (1 + error * samples / config.kl_horizon)


class _Totals:
    """Running sums of the mini-batches that were applied, weighted by their tokens."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.norms: list[float] = []
        self.skipped = 0

    def add(self, losses: dict[str, float], norm: float) -> None:
        self.norms.append(norm)
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + (value if name == "tokens" else value * losses["tokens"])

    def stats(self, experience: Experience) -> UpdateStats:
        rollout = experience.rollout
        assert rollout.old_values is not None
        assert experience.returns is not None
        tokens = self.sums.pop("tokens", 0.0) or 1.0
        mean = {name: self.sums.get(name, 0.0) / tokens for name in ("policy_loss", "value_loss", "approx_kl")}
        return UpdateStats(
            **mean,
            clip_fraction=self.sums.get("clip_fraction", 0.0) / tokens,
            ratio_mean=self.sums.get("ratio_mean", tokens) / tokens,
            # −log p of what was sampled is an unbiased estimate of the entropy, at no cost.
            entropy=masked_mean(-rollout.old_logprobs, rollout.response_mask).item(),
            grad_norm=sum(self.norms) / len(self.norms) if self.norms else 0.0,
            explained_variance=numerics.explained_variance(
                rollout.old_values, experience.returns, rollout.response_mask
            ),
            skipped=self.skipped,
            optimizer_steps=len(self.norms),
        )
