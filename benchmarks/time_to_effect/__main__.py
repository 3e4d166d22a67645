"""Seconds of training until toxicity has fallen to a fifth at the same ROUGE-L: softspoken against TRL 0.11.4.

.venv/bin/python -m benchmarks.time_to_effect          measure (about an hour on two idle cores; goes on where it was stopped),
                                                       then docs/time-to-effect.md and its picture
.venv/bin/python -m benchmarks.time_to_effect page     the page and its picture alone, from what was measured

TRL's learning rate is searched with seed 0; the best one and TRL's default then run with every seed. The machine should be
otherwise idle; other load is recorded. The picture needs Chromium (Debian: apt-get install chromium).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from benchmarks.provenance import describe_machine
from benchmarks.time_to_effect.page import RESULTS, TRL_DEFAULT, best_rate, write_page
from benchmarks.time_to_effect.runs import Run, Settings, measure, measure_base, point_of

GRID = [TRL_DEFAULT, 1e-4, 1e-3, 4e-3]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["measure", "page"], default="measure")
    parser.add_argument("--cap", type=float, default=450, help="seconds of training after which TRL is given up")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--grid", type=float, nargs="+", default=GRID, help="TRL's learning rates")
    parser.add_argument("--dialogues", type=int, default=100, help="of the validation split (250) to evaluate on")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--patience", type=float, default=10, help="minutes to wait before a run for other load to end")
    args = parser.parse_args()
    if args.what == "measure":
        settings = Settings(args.results, args.cap, args.dialogues, args.patience * 60)
        run(settings, args.seeds, args.grid)
    write_page(args.results)


def run(settings: Settings, seeds: int, grid: list[float]) -> None:
    base = point_of(measure_base(settings, describe_machine(torch.get_num_threads(), "cpu"))["point"])
    for seed in range(seeds):
        measure(Run("softspoken", seed), settings, base)
    searched = [measure(Run("legacy", 0, rate), settings, base) for rate in dict.fromkeys([TRL_DEFAULT, *grid])]
    for seed in range(1, seeds):
        for rate in dict.fromkeys([best_rate(searched, base), TRL_DEFAULT]):
            measure(Run("legacy", seed, rate), settings, base)


if __name__ == "__main__":
    main()
