"""One long run, and its adapter as it was on the way.

A run keeps its last two checkpoints only. While `train` goes on, a thread copies the weights of each new one; afterwards each copy
that is wanted is put into the run's policy and saved as an adapter, as `train` saves its own. The run itself knows nothing of it.
The learning rate falls over the whole of the long run, as `softspoken train --steps 500` has it, so a snapshot is not what a
shorter run would have ended in.
"""

from __future__ import annotations

import shutil
import statistics
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from benchmarks.effect.evaluations import Evaluation, measure
from benchmarks.effect.settings import Settings
from benchmarks.effect.trainings import DONE_FILE, Training, may_resume, read_metrics, train, train_config
from benchmarks.records import read_json, write_json
from softspoken.rl.checkpoint import whole_checkpoints
from softspoken.rl.policy import load_policy

LOOK_EVERY = 0.5
"""Seconds; a checkpoint stays for two intervals between checkpoints, some twenty seconds at least."""
OF_THE_WAY = ("objective/kl", "objective/entropy", "objective/score", "tokens/response_mean")


def snapshots_folder(training: Training) -> Path:
    """Beside the run: a run that starts anew removes what is in its own folder."""
    return training.folder.with_name(f"{training.folder.name}-snapshots")


def train_with_snapshots(training: Training, points: list[Training]) -> None:
    if training.record is None:
        copies = snapshots_folder(training)
        if not may_resume(training.folder, training.config):
            shutil.rmtree(copies, ignore_errors=True)
        with watching(training.folder, copies):
            train(training)
    save_adapters(training, points)


@contextmanager
def watching(run: Path, copies: Path) -> Iterator[None]:
    """Inside, the weights of every checkpoint that appears in `run` are copied to `copies`; at the end, those that are there."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(LOOK_EVERY):
            copy_new(run, copies)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        copy_new(run, copies)


def copy_new(run: Path, copies: Path) -> None:
    """Each is copied beside and renamed; one that goes meanwhile was copied before."""
    for checkpoint in whole_checkpoints(run):
        target = copies / checkpoint.name / "weights.safetensors"
        if target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_name(".saving")
        try:
            shutil.copy(checkpoint / "weights.safetensors", beside)
        except FileNotFoundError:
            continue
        beside.replace(target)


def save_adapters(training: Training, points: list[Training]) -> None:
    """What `train` does with the last weights, with those of each point."""
    config = train_config(training)
    done = read_json(training.folder / DONE_FILE)
    missing = [point.system for point in points if not (point.folder / "weights.safetensors").is_file()]
    if missing:
        raise SystemExit(f"no weights of {', '.join(missing)}; remove {training.folder} and run this again")
    policy = load_policy(config)
    weights = policy.trainable()
    for point in points:
        saved = load_file(point.folder / "weights.safetensors")
        if saved.keys() != weights.keys():
            raise SystemExit(
                f"{point.folder} holds other weights than the run; remove {training.folder} and run this again"
            )
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(saved[name])
        policy.save(point.adapter, config.max_new_tokens)
        seconds = sum(
            row["time/step"] for row in read_metrics(training.folder) if row["step"] <= point.changes["steps"]
        )
        about = {"config": point.config, "seconds": round(seconds, 1), "command": training.command}
        write_json(point.folder / DONE_FILE, {**about, "commit": done["commit"], "finished": done["finished"]})


def measure_snapshots(evaluation: Evaluation, training: Training, settings: Settings) -> None:
    """The evaluation, and beside it what the run said of itself on the way to each snapshot."""
    measure(evaluation, settings)
    path = settings.results / f"{evaluation.name}.json"
    results = read_json(path)
    config = train_config(training)
    steps = [point.changes["steps"] for point in evaluation.trainings]
    results["curve"] = {
        "schedule": config.schedule,
        "steps": config.steps,
        "samples_a_step": config.batch_size * config.samples_per_prompt,
        "command": training.command,
        "on_the_way": on_the_way(read_metrics(training.folder), steps),
    }
    write_json(path, results)


def on_the_way(metrics: list[dict[str, float]], steps: list[int]) -> dict[str, dict[str, Any]]:
    """For each snapshot, the run's own metrics, as means over the steps since the one before it."""
    found = {}
    for before, step in zip([0, *steps], steps, strict=False):
        rows = [row for row in metrics if before < row["step"] <= step]
        means = {name: [row[name] for row in rows if name in row] for name in OF_THE_WAY}
        found[str(step)] = {name: round(statistics.fmean(values), 5) for name, values in means.items() if values}
    return found
