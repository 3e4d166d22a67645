"""One long run, and its adapter as it was on the way.

python -m benchmarks.effect.curve train RUN "STEP …" SETTINGS…       `softspoken train`, and RUN-snapshots/step-000STEP/adapter
python -m benchmarks.effect.curve keep RUN RESULTS.json "STEP …"     what the run said of itself, beside its snapshots' results

The learning rate falls over the whole of the long run, as `softspoken train --steps 500` has it, so a snapshot is not what a
shorter run would have ended in.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from typing import Any

import yaml

from benchmarks.effect.keep import read_metrics
from benchmarks.records import read_json, write_json
from benchmarks.snapshots import adapters, train

OF_THE_WAY = ("objective/kl", "objective/entropy", "objective/score", "tokens/response_mean")


def main() -> None:
    what, run, *rest = sys.argv[1:]
    if what == "train":
        steps, settings = [int(step) for step in rest[0].split()], rest[1:]
        copies = Path(f"{run}-snapshots")  # beside the run: one that starts anew removes what is in its own folder
        train(Path(run), settings, copies, lambda step, last: step in steps)
        for _ in adapters(Path(run), copies):
            pass
    else:
        keep(Path(run), Path(rest[0]), [int(step) for step in rest[1].split()])


def keep(run: Path, path: Path, steps: list[int]) -> None:
    results, saved = read_json(path), yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    config = saved["config"]
    results["curve"] = {
        "schedule": config["schedule"],
        "steps": config["steps"],
        "samples_a_step": config["batch_size"] * config["samples_per_prompt"],
        "command": saved["command"],
        "on_the_way": on_the_way(read_metrics(run), steps),
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


if __name__ == "__main__":
    main()
