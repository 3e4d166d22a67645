"""How the cost of a step grows: with batch, dialogue, summary, epochs and model; and that it does not with steps done.

    .venv/bin/python -m benchmarks.speed.scaling            measure (about an hour on two cores; goes on where it was stopped),
                                                            then docs/scaling.png and docs/speed.md
    .venv/bin/python -m benchmarks.speed.scaling picture    docs/scaling.png alone, from what was measured

Written to benchmarks/speed/results/scaling.jsonl. The picture needs Chromium (Debian: apt-get install chromium).
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.pages import draw
from benchmarks.provenance import ROOT, describe_machine
from benchmarks.records import append, read_lines, write_lines
from benchmarks.speed.cells import FIRST_WORD, WORDS
from benchmarks.speed.models import model_folder
from benchmarks.speed.page import RESULTS, write_page
from benchmarks.speed.rounds import WORK, Settings, measure, record_machine
from benchmarks.speed.scaling_page import figure, long_run_rows, long_run_words
from benchmarks.speed.sweeps import LONG_RUN, groups
from benchmarks.speed.timing import memory_bytes
from benchmarks.workers import environment

PICTURE = ROOT / "docs" / "scaling.png"
EVERY = 20
"""Steps of the long run between two looks at its memory."""


def run_long(steps: int, threads: int) -> list[dict[str, float]]:
    """`softspoken train` on a tiny model, and the memory that its process holds along the way."""
    run, dataset = WORK / "long", WORK / "long.jsonl"
    write_dialogues(dataset)
    command = [sys.executable, "-m", "softspoken", "train", "--model", str(model_folder(WORK / "models", "tiny"))]
    command += ["--dataset", str(dataset), "--reward", "length:3-8", "--steps", str(steps), "--batch_size", "4"]
    command += ["--max_new_tokens", "16", "--eval_limit", "0", "--output", str(run), "--overwrite", "true"]
    rows: list[dict[str, float]] = []
    with (WORK / "long.log").open("w") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment(threads), stdout=log, stderr=log)
        (run / "metrics.jsonl").unlink(missing_ok=True)  # an earlier run's
        while process.poll() is None:
            time.sleep(0.2)
            seconds = [record["time/step"] for record in read_lines(run / "metrics.jsonl", growing=True)]
            if len(seconds) >= EVERY + (rows[-1]["step"] if rows else 0):
                latest = statistics.median(seconds[-EVERY:])
                if held := memory_bytes(process.pid, "VmRSS"):
                    rows.append({"step": len(seconds), "bytes": held, "seconds": latest})
    if process.returncode:
        raise SystemExit(f"the long run failed; see {log.name}")
    return rows


def write_dialogues(path: Path) -> None:
    """Synthetic ones, of 8 to 120 tokens."""
    draws = random.Random(0)
    words = [[f"w{draws.randrange(FIRST_WORD, WORDS)}" for _ in range(draws.randint(8, 120))] for _ in range(400)]
    write_lines(path, [{"id": str(number), "dialogue": " ".join(said)} for number, said in enumerate(words)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["measure", "picture"], default="measure")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="by default one for each core")
    parser.add_argument(
        "--patience", type=float, default=10, help="minutes to wait before a step for other load to end"
    )
    args = parser.parse_args()
    results = RESULTS / "scaling.jsonl"
    if args.what == "measure":
        settings = Settings(results, args.threads, args.patience * 60)
        record_machine(settings, describe_machine(args.threads, "cpu"))
        if not long_run_rows(read_lines(results)):
            rows = run_long(LONG_RUN, args.threads)
            append(results, {"kind": "long_run", "rows": rows})
            print(f"{LONG_RUN} steps: {long_run_words(rows)}")
        for group in groups():
            measure(group, settings)
        write_page()
    draw(figure(read_lines(results)), PICTURE, WORK)


if __name__ == "__main__":
    main()
