"""What is lost, and what is said, when a process is killed, a disk is full, an input is nonsense, a run is long. Goes on where it stopped.

.venv/bin/python -m benchmarks.reliability                  everything (hours), then docs/reliability.md
.venv/bin/python -m benchmarks.reliability kills faults     these alone: kills, faults, fuzz, soak
.venv/bin/python -m benchmarks.reliability --short          a little of each in a minute or so; writes nothing
.venv/bin/python -m benchmarks.reliability page             docs/reliability.md alone, from what was tried
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.provenance import commit
from benchmarks.records import Record, append, read_lines, write_lines
from benchmarks.reliability import children, faults, fuzz, jobs, kills, page, soak

RESULTS = Path(__file__).parent / "results"
LONG = {"soak": 100, "kills": 56, "faults": 1, "fuzz": 100_000}
"""Of each part how much: hundredths of 2,000 steps and 100,000 texts, runs of each command that are killed, each so-many-th fault, inputs."""
SHORT = {"soak": 1, "kills": 0, "faults": 41, "fuzz": 0}
"""At 0, one run of each command is killed twice, and of each kind of input there are a few."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, "page", []], help="by default all")
    parser.add_argument("--short", action="store_true")
    asked = parser.parse_args()
    parts = [part for part in PARTS if part in (asked.parts or PARTS)]
    sizes = SHORT if asked.short else LONG
    with tempfile.TemporaryDirectory(prefix="reliability-") as work:
        if parts:
            children.import_everything()
            jobs.make_inputs(Path(work))
        wrong = sum(run(part, sizes[part], Path(work), None if asked.short else RESULTS) for part in parts)
    if not asked.short:
        page.write_page()
    sys.exit(f"{wrong} went wrong" if wrong else 0)


def run(part: str, size: int, work: Path, results: Path | None) -> int:
    """How many went wrong. What earlier runs have is left, unless it went wrong."""
    file = results / f"{part}.jsonl" if results else None
    done = [one for one in (read_lines(file) if file else []) if not _is_bad(one)]
    if file and file.is_file():
        write_lines(file, done)
    wrong, made_by = 0, commit()
    for record in PARTS[part](size, work, done):
        wrong += _is_bad(record)
        if file:
            append(file, {**record, "commit": made_by})
        if _is_bad(record) or not file:
            print(part, record, flush=True)
    return wrong


def _is_bad(record: Record) -> bool:
    return any(record.get(name) for name in ("wrong", "touched", "other_bytes"))


def kills_left(each: int, work: Path, done: list[Record]) -> Iterator[Record]:
    had = {(one["command"], one["number"]) for one in done}
    left = [one for one in kills.trials(each or 1) if one not in had]
    whole = {command: kills.Whole(command, work / "trial") for command in dict.fromkeys(one for one, _ in left)}
    for command, number in left:
        yield kills.trial(command, number, whole[command], work / "trial", kills.CHAIN if each else 2)


def fuzz_left(inputs: int, work: Path, done: list[Record]) -> Iterator[Record]:
    jobs.make_a_run(work)
    (work / "fuzz").mkdir()
    (work / "fuzz/inputs").symlink_to("../inputs")
    had = {(one["kind"], one["block"]) for one in done}
    for kind, number in fuzz.blocks(inputs):
        if (kind, number) not in had:
            yield fuzz.block(kind, number, work / "fuzz", fuzz.size_of(kind) if inputs else fuzz.FEW)


def faults_left(every: int, work: Path, done: list[Record]) -> Iterator[Record]:
    had = {(one["command"], one["phase"], one["fault"]) for one in done}
    left = faults.trials()[::every]
    random.Random(0).shuffle(left)  # so that a part of them is a part of each
    for one in left:
        if one not in had:
            yield faults.trial(*one, work / "trial")


def soak_left(share: int, work: Path, done: list[Record]) -> Iterator[Record]:
    had = {one["command"] for one in done}
    for command, size in (("train", 2_000), ("generate", 100_000)):
        if command not in had:
            yield soak.soak(command, size * share // 100, work / "trial")


PARTS: dict[str, Callable[[int, Path, list[Record]], Iterator[Record]]] = {
    "soak": soak_left,
    "kills": kills_left,
    "faults": faults_left,
    "fuzz": fuzz_left,
}


if __name__ == "__main__":
    main()
