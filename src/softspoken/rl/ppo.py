"""Steps 3 and 4, shape and optimise, for PPO: KL-penalized token rewards, advantages, policy and value loss.

Details follow Huang et al. 2024, "The N Implementation Details of RLHF with PPO"; the objective is Schulman et al. 2017.
"""

from __future__ import annotations

import torch
from torch import Tensor

from softspoken.config import TrainConfig
from softspoken.rl import numerics
from softspoken.rl.losses import kl_loss, penalty_kl, surrogate_loss, weighted_sum
from softspoken.rl.optimise import optimise
from softspoken.rl.policy import Policy
from softspoken.rl.rollout import score_rows, sibling_mean
from softspoken.types import Experience, Rollout, Scores, UpdateStats


def token_rewards(rollout: Rollout, scores: Scores, config: TrainConfig, kl_coef: float) -> Tensor:
    """Each token's reward [N, T]: −kl_coef · KL (where the penalty is in the reward), and on the last true position the
    summary's score as well."""
    rewards = -kl_coef * (config.kl_in == "reward") * penalty_kl(rollout, config)
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
    return Experience(rollout, scores, penalty_kl(rollout, config), advantages, returns, kl_coef)


def sibling_baseline(advantages: Tensor, rollout: Rollout) -> Tensor:
    """For each row [N, 1]: the mean advantage, at the first token, of the other samples of its prompt or, where there are none,
    of the other rows; 0 for a single row.

    They do not depend on what this row sampled, so subtracting it leaves the gradient's expectation as it is and takes out
    what the value head has not learned of the prompt (leave-one-out: Kool et al. 2019; Ahmadian et al. 2024, eq. 6).
    """
    first = rollout.response_mask.int().argmax(dim=1, keepdim=True)
    starts = advantages.gather(1, first).squeeze(1)
    siblings_mean, siblings = sibling_mean(starts, rollout)
    others_mean = (starts.sum() - starts) / max(1, len(starts) - 1)
    return torch.where(siblings > 0, siblings_mean, others_mean).unsqueeze(1)


def update(
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    experience: Experience,
    config: TrainConfig,
    generator: torch.Generator,
) -> UpdateStats:
    """Step 4: `ppo_epochs` passes over the samples; see `optimise`. `generator` shuffles them."""
    return optimise(policy, optimizer, experience, config, generator, ppo_loss)


def ppo_loss(
    policy: Policy, experience: Experience, rows: Tensor, config: TrainConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """The surrogate policy loss + value_coef · clipped value loss, summed over the weighted tokens of `rows`, and its parts' sums.

    Value: ½ max((V − R)², (clip(V) − R)²), where the clip is clip_range_value around the old value (Huang et al. 2024,
    detail 15).
    """
    rollout = experience.rollout
    assert rollout.old_values is not None
    assert experience.returns is not None
    logprobs, values = score_rows(policy, rollout, rows, config)
    policy_loss, parts = surrogate_loss(logprobs, experience, rows, config)
    length = logprobs.shape[1]
    mask, returns = rollout.response_mask[rows, :length], experience.returns[rows, :length]
    old_values = rollout.old_values[rows, :length]
    near = old_values + (values - old_values).clamp(-config.clip_range_value, config.clip_range_value)
    errors = torch.maximum((values - returns).square(), (near - returns).square())
    value_loss = weighted_sum(0.5 * errors, mask, config)
    loss = policy_loss + config.value_coef * value_loss + kl_loss(logprobs, experience, rows, config)
    return loss, parts | {"value_loss": value_loss.detach()}


def next_kl_coef(kl_coef: float, kl: float, samples: int, config: TrainConfig) -> float:
    """The KL weight for the next step: as it is (fixed), or nudged towards `kl_target` (Ziegler et al. 2019, sec. 2.2).

    By at most a fifth: with more samples than the horizon their formula would turn the weight negative.
    """
    if config.kl_controller == "fixed":
        return kl_coef
    error = min(max(kl / config.kl_target - 1, -0.2), 0.2)
    return kl_coef * (1 + error * min(1.0, samples / config.kl_horizon))
