"""How the learning rate rises and falls over a training."""

from __future__ import annotations

import math
import warnings
from functools import partial

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def learning_rates(optimizer: Optimizer, schedule: str, warmup_steps: int, horizon: int) -> LambdaLR:
    """The optimizer's rates, which are the peaks, times `factor`; the first step's are set."""
    return LambdaLR(optimizer, partial(factor, schedule=schedule, warmup_steps=warmup_steps, horizon=horizon))


def next_rate(scheduler: LambdaLR) -> None:
    """Whether or not the optimizer did a step: torch warns where the first one taught nothing, though the rates are right."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
        scheduler.step()


def factor(step: int, *, schedule: str, warmup_steps: int, horizon: int) -> float:
    """What the peak rate is multiplied with at `step` (the first is 0): in [0, 1], above 0 before `horizon`.

    Over `warmup_steps` it rises evenly, by 1 / (warmup_steps + 1) a step, so that the step after them is the first at the peak;
    from there `linear` and `cosine` (half a wave) fall to 0 at `horizon`, and `constant` stays.
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    if schedule == "constant":
        return 1.0
    if schedule == "linear":
        return max(0.0, (horizon - step) / max(1, horizon - warmup_steps))
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - warmup_steps) / max(1, horizon - warmup_steps))))
