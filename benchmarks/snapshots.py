"""A run's weights as they were on the way. A run keeps its last two checkpoints only and knows nothing of this: while it goes on,
a thread copies the weights of each new one; afterwards they are saved as adapters, as `train` saves its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from benchmarks.provenance import ROOT
from softspoken.rl.checkpoint import saved_config, whole_checkpoints
from softspoken.rl.loading import load_policy

SOFTSPOKEN = Path(sys.executable).with_name("softspoken")
LOOK_EVERY = 0.2
"""Seconds; a checkpoint stays for two intervals between checkpoints."""
WEIGHTS = "weights.safetensors"
Wanted = Callable[[int, int], bool]
"""(a checkpoint's step, that of the last one copied) → whether it is to be copied."""


def train(run: Path, settings: Sequence[str], copies: Path, wanted: Wanted, log: Any = None) -> None:
    """`softspoken train` into `run`, gone on with where it was stopped; the weights of the wanted checkpoints go to `copies`."""
    where = ["--resume", run] if (run / "config.yaml").is_file() else ["--output", run, *settings]
    with watching(run, copies, wanted):
        ended = subprocess.run([SOFTSPOKEN, "train", *where], cwd=ROOT, stdout=log, stderr=log)
    if ended.returncode:
        raise SystemExit(f"softspoken train failed{f'; see {log.name}' if log else ''}")


@contextmanager
def watching(run: Path, copies: Path, wanted: Wanted) -> Iterator[None]:
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


def copy_new(run: Path, copies: Path, wanted: Wanted) -> None:
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


def adapters(run: Path, copies: Path) -> Iterator[tuple[int, Path]]:
    """Each copy's step and adapter, saved beside its weights as `train` saves the last ones."""
    config = saved_config(run / "config.yaml")
    policy = load_policy(config)
    weights = policy.trainable()
    for copy in copied(copies):
        saved = load_file(copy / WEIGHTS)
        if saved.keys() != weights.keys():
            raise SystemExit(f"{copy} does not hold the weights of {run}; remove {copies} and run this again")
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(saved[name])
        shutil.rmtree(copy / "adapter", ignore_errors=True)
        policy.save(copy / "adapter", config.max_new_tokens)
        yield step_of(copy), copy / "adapter"
