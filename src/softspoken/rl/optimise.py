"""Step 4, optimise, whatever the algorithm: mini-batches of the samples, their gradient in micro-batches, when to stop."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from peft import PeftModel
from torch import Tensor

from softspoken.config import TrainConfig
from softspoken.config.training import FROM_CHOSEN
from softspoken.rl import numerics, replays
from softspoken.rl.losses import divisor
from softspoken.rl.policy import Policy
from softspoken.rl.rollout import encodes, micro_batches, own_rows, samples_of, widest, within_memory
from softspoken.rl.sharding import in_step
from softspoken.runtime import processes
from softspoken.types import Experience, Rollout, RunError, UpdateStats

Loss = Callable[[Policy, Experience, Tensor, TrainConfig], tuple[Tensor, dict[str, Tensor]]]
"""(policy, experience, rows, config) → the loss summed over the weighted tokens of the rows, and its parts' sums by name."""
OF_TOKENS = ("approx_kl", "clip_fraction", "ratio_mean")
"""The parts that are means over tokens; the others are divided as the loss is."""
OWN = ("accuracy", "margin")
"""The parts that one algorithm alone has."""


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
    teach = teaching(experience, config)
    chosen = teach if config.algorithm in FROM_CHOSEN else torch.ones_like(teach)
    plan = _mini_batches(experience.rollout, config, generator, chosen)
    for done, batch in enumerate(plan):
        rows = batch[teach[batch]]
        if not len(rows):
            continue
        accumulate = partial(_accumulate_gradient, policy, optimizer, experience, batch, rows, config, loss_of)
        sums = within_memory(
            policy, min(len(rows), config.micro_batch_size), widest(experience.rollout, rows), accumulate
        )
        _add_up_gradients([weight for part in parts for weight in part])
        losses = _means(sums, experience.rollout.response_mask, batch, rows, config)
        if config.target_kl is not None and losses["approx_kl"] > config.target_kl:
            totals.skipped += len(plan) - done
            break
        norm, value_norm = torch.stack([_clipped(part, config.max_grad_norm, policy.device) for part in parts]).tolist()
        if not math.isfinite(norm + value_norm):
            totals.skipped += 1
            continue
        optimizer.step()
        totals.add(losses, norm, value_norm)
    optimizer.zero_grad(set_to_none=not replays.applies_to(policy, config))
    return totals.stats(experience, int(teach.sum()))


def teaching(experience: Experience, config: TrainConfig) -> Tensor:
    """[N] bool, on the CPU: the rows that are computed in an update; the others lack an advantage, and cost time.

    A row without one is left out where nothing else would come of it. The value loss may (PPO), and so may the KL in the loss; but
    without a critic a prompt whose samples all score alike is left out with it, KL and all: with nothing that pulls away from the
    reference there, nothing has to pull back. What a mini-batch is divided by counts all its rows, whether they are computed or not.
    """
    found = experience.advantages.any(dim=1)
    pulled = config.kl_in == "loss" and experience.kl_coef > 0
    if config.algorithm == "ppo" and (pulled or config.value_coef):
        found = torch.ones_like(found)
    elif config.algorithm in ("rloo", "grpo") and pulled:
        samples = samples_of(experience.rollout)
        found = (samples & found).any(dim=1)[experience.rollout.prompt_index]
    return found.cpu()


def _mini_batches(
    rollout: Rollout, config: TrainConfig, generator: torch.Generator, among: Tensor | None = None
) -> list[Tensor]:
    """Rows of every mini-batch of every epoch: prompts shuffled, samples of one prompt together, the last one smaller.

    `among` [N] bool: those that there are; by default all.
    """
    batches: list[Tensor] = []
    index = rollout.prompt_index.cpu()
    for _ in range(config.ppo_epochs):
        place = torch.randperm(len(rollout.prompts.examples), generator=generator)
        rows = place[index].sort(stable=True).indices
        rows = rows if among is None else rows[among[rows]]
        batches += rows.split(config.mini_batch_size) if len(rows) else []
    return batches


def _accumulate_gradient(
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    experience: Experience,
    batch: Tensor,
    rows: Tensor,
    config: TrainConfig,
    loss_of: Loss,
) -> dict[str, float]:
    """Backward through every micro-batch of this process's own of `rows`, those of the mini-batch `batch` that teach; a token weighs the
    same in it, however it is split. Returns the sums of the loss's parts."""
    replayed = replays.applies_to(policy, config)
    optimizer.zero_grad(set_to_none=not replayed)  # a graph adds to the gradients that it knows
    whole = divisor(experience.rollout.response_mask[batch], config)
    together = 2 if config.algorithm == "dpo" else 1
    own = own_rows(experience.rollout, rows)
    sums: dict[str, Tensor] = {}

    def work(experience: Experience, some: Tensor, whole: Tensor) -> dict[str, Tensor]:
        loss, parts = loss_of(policy, experience, some, config)
        (loss / whole).backward()
        return parts

    for micro in in_step(micro_batches(policy, experience.rollout, own, config, together), sharded=policy.sharded):
        if micro is None:
            policy.idle(encodes=encodes(policy, experience.rollout, config)).backward()
            continue
        parts = (
            replays.run(policy, experience, micro, config, work, config.micro_batch_size, whole)
            if replayed
            else work(experience, micro, whole)
        )
        for name, value in parts.items():
            sums[name] = sums.get(name, torch.zeros_like(value)) + value
    # All at once: on a GPU each look waits.
    return dict(zip(sums, torch.stack(list(sums.values())).tolist(), strict=True)) if sums else {}


def _add_up_gradients(weights: list[torch.nn.Parameter]) -> None:
    """Each process has the sum over all of its own rows' gradients, 0 where it had none. A weight that nothing reached stays without."""
    if processes.size() == 1:
        return
    reached = [
        any(each) for each in zip(*processes.gather([weight.grad is not None for weight in weights]), strict=True)
    ]
    trained = [weight for weight, is_reached in zip(weights, reached, strict=True) if is_reached]
    for weight in trained:
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
    processes.add_up([weight.grad for weight in trained if weight.grad is not None])


def _clipped(weights: list[torch.nn.Parameter], most: float, device: torch.device) -> Tensor:
    """The norm of their gradient before it is clipped to `most`, a scalar on `device`; 0 without one, as a value head has none where there
    is no critic, which torch itself says on the CPU."""
    if all(weight.grad is None for weight in weights):
        return torch.zeros((), device=device)
    return torch.nn.utils.clip_grad_norm_(weights, most)


def _means(own: dict[str, float], mask: Tensor, batch: Tensor, rows: Tensor, config: TrainConfig) -> dict[str, float]:
    """Means over the rows that teach from all processes' sums, and how many tokens those rows have. mask: [N, T]."""
    tokens, whole = mask[rows].sum().item(), divisor(mask[batch], config).item()
    sums: dict[str, float] = {}
    for part in processes.gather(own):
        for name, value in part.items():
            sums[name] = sums.get(name, 0.0) + value
    return {name: value / (tokens if name in OF_TOKENS else whole) for name, value in sums.items()} | {"tokens": tokens}


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

    def stats(self, experience: Experience, rows: int) -> UpdateStats:
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
            rows=rows,
            own={name: self.sums[name] / tokens for name in OWN if name in self.sums},
        )


def _explained_variance(experience: Experience) -> float:
    values, returns = experience.rollout.old_values, experience.returns
    if values is None or returns is None:
        return 0.0
    return numerics.explained_variance(values, returns, experience.rollout.response_mask)


def require_moved(policy: Policy, optimizer: torch.optim.Optimizer | None = None) -> None:
    """After an update every lora_B must have left zero, and every other adapter weight have had a gradient; one that has not is not
    in the graph. Of a model's own weights some may well have none (experts that nothing was sent to). Raises RunError."""
    still = unmoved_adapters(policy)
    if optimizer and isinstance(policy.model, PeftModel):
        still += [name for name, weight in policy.adapter_parameters().items() if not optimizer.state.get(weight)]
    if not policy.adapter_parameters():
        raise RunError("no weights of the policy train; what is trained was lost on the way (please report this)")
    if still:
        raise RunError(
            f"{len(still)} adapter matrices did not move in an update (the first is {still[0]}); they are not in the graph"
        )


def unmoved_adapters(policy: Policy) -> list[str]:
    """Names of the lora_B matrices that are still all zero: none, once a step has trained the whole adapter."""
    return [name for name, weight in policy.adapter_parameters().items() if "lora_B" in name and not weight.any()]
