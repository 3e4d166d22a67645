"""What is lost, and what is said, when a process is killed, a disk is full, an input is nonsense, a run is long. Goes on where it stopped.

.venv/bin/python -m benchmarks.reliability                  everything (hours), then docs/reliability.md
.venv/bin/python -m benchmarks.reliability kills faults     these alone: kills, faults, fuzz, soak
.venv/bin/python -m benchmarks.reliability --short          a little of each in a minute or so; writes nothing
.venv/bin/python -m benchmarks.reliability page             docs/reliability.md alone, from what was tried
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.provenance import commit
from benchmarks.records import Record, append, read_lines
from benchmarks.reliability import children, jobs, kills

RESULTS = Path(__file__).parent / "results"
PARTS = ("kills",)
SHORT = {"kills": 1}
LONG = {"kills": 50}


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
    sys.exit(f"{wrong} went wrong" if wrong else 0)


def run(part: str, size: int, work: Path, results: Path | None) -> int:
    """How many went wrong, of those that earlier runs left."""
    file = results / f"{part}.jsonl" if results else None
    done = read_lines(file, growing=True) if file else []
    wrong = 0
    made_by = commit()
    for record in kills_left(size, work, done):
        bad = bool(record["wrong"] or record["touched"] or record["other_bytes"])
        wrong += bad
        if file:
            append(file, {**record, "commit": made_by})
        if bad or not file:
            print(part, record, flush=True)
    return wrong


def kills_left(each: int, work: Path, done: list[Record]) -> Iterator[Record]:
    had = {(one["command"], one["number"]) for one in done}
    left = [one for one in kills.trials(each) if one not in had]
    whole = {command: kills.Whole(command, work / "trial") for command in dict.fromkeys(one for one, _ in left)}
    for command, number in left:
        yield kills.trial(command, number, whole[command], work / "trial")


if __name__ == "__main__":
    main()
