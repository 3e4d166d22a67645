"""Steps 3 and 4, shape and optimise, for the algorithms that learn from chosen responses: best of N, and DPO.

Of each prompt's samples best_of_n takes the best and makes it likelier, as if it were a reference (Dong et al. 2023, RAFT;
Touvron et al. 2023, Llama 2, sec. 3.2.3). dpo takes the best and the worst and makes the one likelier against the other, measured
by the frozen reference (Rafailov et al. 2023; on the policy's own samples: Guo et al. 2024). A prompt whose samples all score alike has neither.
"""

from __future__ import annotations

import torch
from torch import Tensor

from softspoken.config import TrainConfig
from softspoken.rl import numerics
from softspoken.rl.groups import penalized
from softspoken.rl.losses import kl_loss, moved, penalty_kl, weighted_sum
from softspoken.rl.optimise import optimise
from softspoken.rl.policy import Policy
from softspoken.rl.rollout import alike, samples_of, score_rows
from softspoken.types import Experience, Rollout, Scores, UpdateStats


def build_experience(rollout: Rollout, scores: Scores, config: TrainConfig, kl_coef: float) -> Experience:
    """The choice as an advantage, at each token: 1 of what is to be likelier, −1 of what is to be less so, 0 of the rest."""
    kl = penalty_kl(rollout, config)
    best, worst = best_and_worst(penalized(scores, kl, rollout, config, kl_coef), rollout)
    choice = best.to(kl) - worst.to(kl) if config.algorithm == "dpo" else best.to(kl)
    return Experience(rollout, scores, kl, choice.unsqueeze(1) * rollout.response_mask, None, kl_coef)


def best_and_worst(values: Tensor, rollout: Rollout) -> tuple[Tensor, Tensor]:
    """Of values [N], each prompt's highest and lowest, the first where there are several: [N] bool each; none where all are alike."""
    samples, inf = samples_of(rollout), float("inf")
    found = []
    for places in (torch.where(samples, values, -inf).argmax(dim=1), torch.where(samples, values, inf).argmin(dim=1)):
        rows = torch.zeros_like(values, dtype=torch.bool)
        rows[places[~alike(values, rollout)]] = True
        found.append(rows)
    return found[0], found[1]


def update(
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    experience: Experience,
    config: TrainConfig,
    generator: torch.Generator,
) -> UpdateStats:
    """Step 4: `ppo_epochs` passes over the chosen responses; see `optimise`. `generator` shuffles them."""
    loss_of = dpo_loss if config.algorithm == "dpo" else likelihood_loss
    return optimise(policy, optimizer, experience, config, generator, loss_of)


def likelihood_loss(
    policy: Policy, experience: Experience, rows: Tensor, config: TrainConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """−log π of the chosen rows and, where `kl_in` puts it there, the KL to the reference; summed over their weighted tokens."""
    logprobs, _ = score_rows(policy, experience.rollout, rows, config)
    mask, movement = _movement(logprobs, experience, rows)
    loss = weighted_sum(-logprobs, mask, config)
    return loss + kl_loss(logprobs, experience, rows, config), {"policy_loss": loss.detach(), **movement}


def dpo_loss(
    policy: Policy, experience: Experience, rows: Tensor, config: TrainConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """DPO's loss, summed over the pairs that `rows` are, the two of a pair side by side in either order; β is the KL's weight.

    Its parts: how many pairs the policy has the right way round against the reference, and β times by how much.
    """
    rollout = experience.rollout
    logprobs, _ = score_rows(policy, rollout, rows, config)
    mask, movement = _movement(logprobs, experience, rows)
    choice = experience.advantages[rows].sum(dim=1).sign()
    drift = ((logprobs - rollout.ref_logprobs[rows, : logprobs.shape[1]]) * mask).sum(dim=1)
    margins = (choice * drift).view(-1, 2).sum(dim=1)
    loss = numerics.dpo_loss(margins, experience.kl_coef).sum()
    with torch.no_grad():
        own = {"accuracy": (margins > 0).sum().float(), "margin": experience.kl_coef * margins.sum()}
    return loss, {"policy_loss": loss.detach(), **own, **movement}


def _movement(logprobs: Tensor, experience: Experience, rows: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The rows' mask [n, L], and how far the policy is from the one that sampled."""
    rollout, length = experience.rollout, logprobs.shape[1]
    mask = rollout.response_mask[rows, :length]
    logratio = (logprobs.detach() - rollout.old_logprobs[rows, :length]) * mask
    return mask, moved(logratio, numerics.ratio(logratio), mask)
