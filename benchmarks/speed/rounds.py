"""Measuring: a process for each side, one step at a time in turn, on a machine that others leave alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks.provenance import ROOT, commit
from benchmarks.records import append, read_lines
from benchmarks.speed import load
from benchmarks.speed.cells import Cell, Group, missing
from benchmarks.speed.models import model_folder
from benchmarks.workers import LEGACY_PYTHON, Worker, environment

WORK = ROOT / ".work" / "speed"
QUIET = {"cpu": 3.0, "cuda": 0.5}
"""Seconds that the machine is left alone before a step. On a GPU, which is rented by the minute, a step takes less itself."""
GPU_WARM_UP = 4
"""Whole steps of ours on a GPU before the first that counts."""
TRIES = 3
"""Steps that may be lost to other load before a sample is left for the next run."""


@dataclass(frozen=True)
class Settings:
    results: Path
    threads: int
    patience: float = 600.0
    """Seconds to wait for other load to go away before a step."""
    say: Callable[[str], None] = print


def start_worker(cell: Cell, settings: Settings) -> Worker:
    """One side's process, which holds its model and does one step when asked."""
    python, module = (LEGACY_PYTHON, "legacy_worker") if cell.side == "legacy" else (sys.executable, "our_worker")
    given = {"cell": asdict(cell), "model": str(model_folder(WORK / "models", cell.model))}
    log = WORK / "logs" / f"{cell.key}.log"
    return Worker(python, f"benchmarks.speed.{module}", given, log, settings.threads)


def measure(group: Group, settings: Settings) -> None:
    """Take the samples that the results lack, and write each down at once."""
    todo = missing(group, read_lines(settings.results))
    workers: dict[Cell, Worker] = {}
    try:
        for cell in {
            cell: None for _, cell in todo if cell.device == "cuda"
        }:  # which is rented by the minute: all at once
            workers[cell] = start_worker(cell, settings)
        for worker in workers.values():
            settings.say(f"ready: {worker.versions}")
        for number, cell in todo:
            for _ in range(TRIES):
                record = _sample(cell, number, group, workers, settings)
                append(settings.results, record)
                settings.say(_line(cell, record))
                if record["kept"]:
                    break
    finally:
        for worker in workers.values():
            worker.stop()


def _sample(cell: Cell, number: int, group: Group, workers: dict[Cell, Worker], settings: Settings) -> dict[str, Any]:
    if cell not in workers:
        workers[cell] = start_worker(cell, settings)
    worker = workers[cell]
    if group.stay and not worker.asked:
        # A GPU prepares for the lengths that are to come; we capture one once it has been used a few times.
        brief = cell.device == "cpu"
        for once in range(1 if brief or cell.side != "softspoken" else GPU_WARM_UP):
            worker.ask(round=number + 1000 * once, brief=brief)
    rated = group.rated and cell.side == "softspoken"
    # On a GPU, which is rented by the minute, once: its rate is steady.
    rate = _rate(cell, settings) if rated and (cell.device == "cpu" or (number, cell.scope) == (0, "all")) else {}
    ours = [os.getpid(), worker.process.pid]
    load.wait_until_quiet(ours, settings.patience, QUIET[cell.device])
    watch, started = load.Watch(ours), time.time()
    result = worker.ask(round=number, brief=False)
    others = watch.share()
    if not group.stay:
        workers.pop(cell).stop()
    return {
        "kind": "sample",
        "cell": asdict(cell),
        "round": number,
        "kept": others <= load.LIMIT,
        "others": round(others, 4),
        "started": datetime.fromtimestamp(started, timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "versions": worker.versions,
        **rate,
        **result,
    }


def _rate(cell: Cell, settings: Settings) -> dict[str, float]:
    """The rate of matrix products on the cell's shapes, by which the floor of this round is counted; empty under other load.

    Not once and for all: that of a machine shared with strangers drifts by a third within an hour.
    """
    command = [sys.executable, "-m", "benchmarks.speed.floor", cell.model, cell.device, cell.dtype]
    for _ in range(TRIES):
        load.wait_until_quiet([os.getpid()], settings.patience, QUIET[cell.device])
        watch = load.Watch([os.getpid()])
        found = subprocess.run(command, cwd=ROOT, env=environment(settings.threads), check=True, stdout=subprocess.PIPE)
        if watch.share() <= load.LIMIT:
            return {"flops": json.loads(found.stdout)}
    settings.say(
        f"{cell.model} {cell.dtype}: no rate of matrix products under other load; the next sample has no floor"
    )
    return {}


def record_machine(settings: Settings, machine: dict[str, Any]) -> None:
    """Name the machine at the head of the results; results of another one are not added to."""
    records = read_lines(settings.results)
    known = next((record["machine"] for record in records if record["kind"] == "machine"), None)
    if known is None:
        append(settings.results, {"kind": "machine", "machine": machine})
    elif known != machine:
        raise SystemExit(f"{settings.results} holds results of another machine ({known}); give another --name")


def _line(cell: Cell, record: dict[str, Any]) -> str:
    phases = ", ".join(f"{name} {seconds:.2f}" for name, seconds in record["phases"].items())
    lost = "" if record["kept"] else f"; dropped: others used {record['others']:.0%} of the machine"
    return f"{cell.key} #{record['round']}: {record['seconds']:.2f} s ({phases}), {record['peak_bytes'] / 1e9:.2f} GB{lost}"
