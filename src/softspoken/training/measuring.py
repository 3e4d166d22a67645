"""Step 5, measure: what is said of a step, and how long its parts took."""

from __future__ import annotations

import time
from itertools import pairwise

from torch import Tensor

from softspoken.config import TrainConfig
from softspoken.config.rewards import reward_weights
from softspoken.data.words import words
from softspoken.rewards.terms import judge_term, weighted_sum
from softspoken.rl import numerics
from softspoken.rl.numerics import masked_mean
from softspoken.rl.rollout import alike
from softspoken.rl.scaling import too_short
from softspoken.types import Experience, Scores, UpdateStats


def metrics_of(experience: Experience, stats: UpdateStats, config: TrainConfig) -> dict[str, float]:
    rollout, scores, mask = experience.rollout, experience.scores, experience.rollout.response_mask
    logratio = rollout.old_logprobs - rollout.ref_logprobs
    short = too_short(rollout, config.min_response_chars)
    metrics = {
        "objective/score": _score(scores, short, config),
        "objective/score_std": scores.total.std(correction=0).item(),
    }
    if judge := judge_term(config.reward or {}):
        metrics["objective/toxicity"] = 1 - scores.terms[judge].nanmean().item()
    if config.samples_per_prompt > 1:
        metrics["groups/alike"] = alike(scores.total, rollout).sum().item()
    if rollout.mismatch is not None:
        metrics["objective/sampling_mismatch"] = rollout.mismatch
    if experience.returns is not None:
        metrics |= {
            "ppo/value/loss": stats.value_loss,
            "ppo/value/explained_variance": stats.explained_variance,
            "ppo/value/grad_norm": stats.value_grad_norm,
        }
    if rollout.has_reference:
        metrics |= {
            "objective/kl": masked_mean(logratio, mask).item(),
            "objective/kl_stderr": (numerics.masked_var(logratio, mask) / mask.sum()).sqrt().item(),
            "objective/kl_k2": masked_mean(numerics.kl_k2(logratio), mask).item(),
            "objective/kl_k3": masked_mean(numerics.kl_k3(logratio), mask).item(),
        }
    return metrics | {
        **_of_terms(scores, short),
        "objective/entropy": stats.entropy,
        "ppo/policy/loss": stats.policy_loss,
        "ppo/policy/clip_fraction": stats.clip_fraction,
        "ppo/policy/approx_kl": stats.approx_kl,
        "ppo/policy/ratio_mean": stats.ratio_mean,
        "ppo/grad_norm": stats.grad_norm,
        "ppo/skipped": float(stats.skipped),
        "ppo/optimizer_steps": float(stats.optimizer_steps),
        "ppo/rows": float(stats.rows),
        **{f"{config.algorithm}/{name}": value for name, value in stats.own.items()},
        "tokens/response_mean": mask.sum(dim=1).float().mean().item(),
        "tokens/distinct_2": distinct_pairs(rollout.responses),
        "tokens/truncated_share": rollout.truncated.float().mean().item(),
    }


def distinct_pairs(responses: list[str]) -> float:
    """The share of distinct ones among all pairs of neighbouring words (distinct-2, Li et al. 2016); 1 where there are none."""
    pairs = [pair for said in map(words, responses) for pair in pairwise(said)]
    return len({*pairs}) / len(pairs) if pairs else 1.0


def _score(scores: Scores, short: Tensor, config: TrainConfig) -> float:
    """The mean score; where terms were scaled, whose mean is 0, that of the plain sum over the rows that were judged."""
    if config.reward_scaling == "none" or not config.reward:
        return scores.total.mean().item()
    plain = weighted_sum(scores.terms, reward_weights(config.reward))[~short]
    return plain.nanmean().item() if not plain.isnan().all() else 0.0


def _of_terms(scores: Scores, short: Tensor) -> dict[str, float]:
    """Each term's mean over the rows that it has an opinion on, where there are any, and how many it has none on, where it has not
    on all; rows that were too short to be judged are neither."""
    found = {}
    for name, term in scores.terms.items():
        silent = int(term[~short].isnan().sum())
        if silent:
            found[f"objective/no_opinion/{name}"] = float(silent)
        if silent < int((~short).sum()):
            found[f"objective/score/{name}"] = term[~short].nanmean().item()
    return found


class Clock:
    def __init__(self) -> None:
        self.start = self.last = time.perf_counter()
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[f"time/{name}"], self.last = now - self.last, now

    def times(self) -> dict[str, float]:
        return {**self.laps, "time/step": time.perf_counter() - self.start}
