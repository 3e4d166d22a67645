"""Steps 3 and 4, shape and optimise, for the algorithms without a critic: RLOO and GRPO.

Both judge a summary by the other samples of its dialogue: RLOO (Ahmadian et al. 2024, eq. 6) subtracts the mean of the
others', GRPO (Shao et al. 2024, sec. 4.1) scales a dialogue's summaries to mean 0 and variance 1. `kl_in` says where the KL
to the reference acts: RLOO's paper has it in the reward, GRPO's in the loss. With one pass over the samples both are
REINFORCE with that advantage; in later passes the ratio is clipped as in PPO.
"""

from __future__ import annotations

import torch
from torch import Tensor

from softspoken.config import TrainConfig
from softspoken.rl.losses import kl_loss, penalty_kl, surrogate_loss
from softspoken.rl.optimise import optimise
from softspoken.rl.policy import Policy
from softspoken.rl.rollout import alike, score_rows, sibling_mean
from softspoken.types import Experience, Rollout, Scores, UpdateStats


def build_experience(rollout: Rollout, scores: Scores, config: TrainConfig, kl_coef: float) -> Experience:
    """One advantage a summary, at each of its tokens."""
    kl = penalty_kl(rollout, config)
    total = penalized(scores, kl, rollout, config, kl_coef)
    advantages = leave_one_out(total, rollout) if config.algorithm == "rloo" else group_relative(total, rollout)
    # By rounding, what is alike would have an advantage of a hair, and stay in the update for it.
    advantages = advantages.masked_fill(alike(total, rollout)[rollout.prompt_index], 0.0)
    return Experience(rollout, scores, kl, advantages.unsqueeze(1) * rollout.response_mask, None, kl_coef)


def penalized(scores: Scores, kl: Tensor, rollout: Rollout, config: TrainConfig, kl_coef: float) -> Tensor:
    """What a response is compared by, [N]: its score, less what a missing end costs and, where it is in the reward, the KL [N, T]."""
    total = scores.total.to(kl) - config.missing_eos_penalty * rollout.truncated
    return total - kl_coef * kl.sum(dim=1) if config.kl_in == "reward" else total


def update(
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    experience: Experience,
    config: TrainConfig,
    generator: torch.Generator,
) -> UpdateStats:
    """Step 4: `ppo_epochs` passes over the samples; see `optimise`. `generator` shuffles them."""
    return optimise(policy, optimizer, experience, config, generator, policy_loss)


def policy_loss(
    policy: Policy, experience: Experience, rows: Tensor, config: TrainConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """The surrogate policy loss and, where `kl_in` puts it there, the KL to the reference; summed over the weighted tokens of `rows`."""
    rollout = experience.rollout
    logprobs, _ = score_rows(policy, rollout, rows, config)
    loss, parts = surrogate_loss(logprobs, experience, rows, config)
    return loss + kl_loss(logprobs, experience, rows, config), parts


def leave_one_out(rewards: Tensor, rollout: Rollout) -> Tensor:
    """Each reward [N] minus the mean of the other samples of its prompt; 0 where there are none."""
    others, siblings = sibling_mean(rewards, rollout)
    return torch.where(siblings > 0, rewards - others, 0.0)


def group_relative(scores: Tensor, rollout: Rollout) -> Tensor:
    """Each score [N] minus the mean of its prompt's samples, over their standard deviation; 0 where they are all alike."""

    def mean(values: Tensor) -> Tensor:
        others, siblings = sibling_mean(values, rollout)
        return (others * siblings + values) / (siblings + 1)

    centred = scores - mean(scores)
    return centred / (mean(centred.square()).sqrt() + 1e-4)
