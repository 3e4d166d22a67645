"""What a run keeps from step to step: the KL weight, and the moments of its scores."""

from __future__ import annotations

from torch import Tensor

from softspoken.config import TrainConfig
from softspoken.rl.ppo import next_kl_coef


class KLController:
    """The KL weight, `value`: steered towards a target or, by configuration, left as it is."""

    def __init__(self, value: float, config: TrainConfig) -> None:
        self.value = value
        self.config = config

    def update(self, current: float, n_steps: int) -> None:
        self.value = next_kl_coef(self.value, current, n_steps, self.config)


class RunningMoments:
    """Mean and standard deviation of all scores so far (Chan et al. 1979, parallel variance)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = 0.0
        self.std = 1.0
        self._squares = 0.0

    def update(self, scores: Tensor) -> None:
        count, mean = scores.numel(), scores.double().mean().item()
        squares = (scores.double() - mean).square().sum().item()
        total = self.count + count
        delta = mean - self.mean
        self._squares += squares + delta**2 * self.count * count / total
        self.mean += delta * count / total
        self.count = total
        if total > 1:
            self.std = (self._squares / (total - 1)) ** 0.5
