"""What both sides' workers do alike: take orders, keep time, count padding, read the peak. Standard library and torch."""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

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
        self.positions += ids.numel()
        self.tokens += ids.numel() if mask is None else int(mask.sum())

    def take(self) -> dict[str, int]:
        taken = {"encoder_positions": self.positions, "encoder_tokens": self.tokens}
        self.positions = self.tokens = 0
        return taken


def peak_bytes() -> int:
    """The most memory this process ever held."""
    return memory_bytes(os.getpid(), "VmHWM")


def memory_bytes(process: int, name: str) -> int:
    """VmHWM (the most so far) or VmRSS (now) of a process, as Linux counts them; 0 once it has ended."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), 0)


def serve(prepare: Callable[[], Step], packages: list[str]) -> None:
    """Say that all is ready, then do one step for each line on standard input, and answer each with a line of JSON."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print goes to the log
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    step = prepare()
    versions = {name: importlib.metadata.version(name) for name in packages}
    print(json.dumps({"ready": True, "versions": versions}), file=answers)
    for line in sys.stdin:
        order = json.loads(line)
        if torch.cuda.is_initialized():
            torch.cuda.reset_peak_memory_stats()
        result = step(order["round"], order["brief"])
        result["peak_bytes"] = peak_bytes()
        if torch.cuda.is_initialized():
            result["peak_gpu_bytes"] = torch.cuda.max_memory_reserved()  # of CUDA graphs' own memory too
        print(json.dumps(result), file=answers)
