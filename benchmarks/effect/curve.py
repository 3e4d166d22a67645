"""One long run, and its adapter as it was on the way.

The learning rate falls over the whole of the long run, as `softspoken train --steps 500` has it, so a snapshot is not what a
shorter run would have ended in.
"""

from __future__ import annotations

import shutil
import statistics
from pathlib import Path
from typing import Any

from benchmarks.effect.evaluations import Evaluation, measure
from benchmarks.effect.settings import Settings
from benchmarks.effect.trainings import DONE_FILE, Training, may_resume, read_metrics, train, train_config
from benchmarks.records import read_json, write_json
from benchmarks.snapshots import save_adapter, watching
from softspoken.rl.policy import load_policy

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


def save_adapters(training: Training, points: list[Training]) -> None:
    config, done, metrics = train_config(training), training.record or {}, read_metrics(training.folder)
    policy = load_policy(config)
    for point in points:
        save_adapter(policy, point.folder, point.adapter, config.max_new_tokens)
        seconds = sum(row["time/step"] for row in metrics if row["step"] <= point.changes["steps"])
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
