"""A run's weights as they were on the way. A run keeps its last two checkpoints only and knows nothing of this: while it goes on,
a thread copies the weights of each new one; afterwards they are saved as adapters, as `train` saves its own."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file

from softspoken.rl.checkpoint import whole_checkpoints
from softspoken.rl.policy import Policy

LOOK_EVERY = 0.2
"""Seconds; a checkpoint stays for two intervals between checkpoints."""
WEIGHTS = "weights.safetensors"
Wanted = Callable[[int, int], bool]
"""(a checkpoint's step, that of the last one copied) → whether it is to be copied."""


def every(step: int, last: int) -> bool:
    return True


@contextmanager
def watching(run: Path, copies: Path, wanted: Wanted = every) -> Iterator[None]:
    """Inside, the weights of the wanted checkpoints that appear in `run` are copied to `copies`; at the end, those that are there."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(LOOK_EVERY):
            copy_new(run, copies, wanted)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        copy_new(run, copies, wanted)


def copy_new(run: Path, copies: Path, wanted: Wanted = every) -> None:
    """Each is copied beside and renamed; one that goes meanwhile was copied before."""
    for checkpoint in whole_checkpoints(run):
        target, step = copies / checkpoint.name / WEIGHTS, step_of(checkpoint)
        if target.exists() or not wanted(step, max(map(step_of, copied(copies)), default=0)):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_name(".saving")
        try:
            shutil.copy(checkpoint / WEIGHTS, beside)
        except FileNotFoundError:
            continue
        beside.replace(target)


def copied(copies: Path) -> list[Path]:
    """The folders of the copies, the earliest first."""
    return sorted(path.parent for path in copies.glob(f"step-*/{WEIGHTS}"))


def step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def save_adapter(policy: Policy, copy: Path, adapter: Path, max_new_tokens: int) -> None:
    """What `train` does with the last weights, with those of a copy; `policy` is the run's."""
    weights = policy.trainable()
    saved = load_file(copy / WEIGHTS) if (copy / WEIGHTS).is_file() else {}
    if saved.keys() != weights.keys():
        raise SystemExit(f"{copy} does not hold the weights of the run; remove {copy.parent} and run this again")
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(saved[name])
    policy.save(adapter, max_new_tokens)
