"""What both sides' workers do alike: keep time, count padding, read the peak. Standard library and torch."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed.cells import Cell

Step = Callable[[int, bool], dict[str, Any]]
"""(number of the round, whether it is to be brief, to warm up) → what was measured."""


class Laps:
    """Seconds of each phase; on a GPU only once its work is done."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.laps: dict[str, float] = {}
        self.start = self.last = self._now()

    def lap(self, name: str) -> None:
        now = self._now()
        self.laps[name], self.last = now - self.last, now

    def seconds(self) -> float:
        return self.last - self.start

    def _now(self) -> float:
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


class EncoderCount:
    """Positions that go through the encoder, and how many of them hold a token."""

    def __init__(self, encoder: torch.nn.Module) -> None:
        self.positions = self.tokens = 0
        encoder.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, module: torch.nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        ids = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
        mask = kwargs.get("attention_mask")
        if (
            mask is not None and mask.dim() == 4
        ):  # in a captured pass, which nothing may wait in, and which this sees once
            return
        self.positions += ids.numel()
        self.tokens += ids.numel() if mask is None else int(mask.sum())

    def take(self) -> dict[str, int]:
        taken = {"encoder_positions": self.positions, "encoder_tokens": self.tokens}
        self.positions = self.tokens = 0
        return taken


def peak_bytes() -> int:
    """VmHWM of this process, as Linux counts it: the most so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def measured(
    prepare: Callable[[Cell, str], Step],
) -> Callable[[dict[str, Any]], Callable[[dict[str, Any]], dict[str, Any]]]:
    """For `serve`: the step of a side, made for a cell and a model's folder, with its peak of memory."""

    def with_peak(settings: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
        step = prepare(Cell(**settings["cell"]), settings["model"])

        def answer(order: dict[str, Any]) -> dict[str, Any]:
            if torch.cuda.is_initialized():
                torch.cuda.reset_peak_memory_stats()
            result = step(order["round"], order["brief"]) | {"peak_bytes": peak_bytes()}
            if torch.cuda.is_initialized():
                result["peak_gpu_bytes"] = torch.cuda.max_memory_reserved()  # of CUDA graphs' own memory too
            return result

        return answer

    return with_peak
