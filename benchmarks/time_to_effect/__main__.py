"""Seconds of training until toxicity has fallen to a fifth at the same ROUGE-L: softspoken against TRL 0.11.4.

.venv/bin/python -m benchmarks.time_to_effect          measure (about an hour on two idle cores; goes on where it was stopped),
                                                       then docs/time-to-effect.md and its picture
.venv/bin/python -m benchmarks.time_to_effect page     the page and its picture alone, from what was measured

TRL runs with its default learning rate and with the one that came furthest of those tried. The machine should be otherwise idle;
other load is recorded. The picture needs Chromium (Debian: apt-get install chromium).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from benchmarks.provenance import describe_machine
from benchmarks.time_to_effect.page import RATES, RESULTS, write_page
from benchmarks.time_to_effect.runs import Run, Settings, measure, measure_base, point_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["measure", "page"], default="measure")
    parser.add_argument("--cap", type=float, default=450, help="seconds of training after which TRL is given up")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--dialogues", type=int, default=100, help="of the validation split (250) to evaluate on")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--patience", type=float, default=10, help="minutes to wait before a run for other load to end")
    args = parser.parse_args()
    if args.what == "measure":
        settings = Settings(args.results, args.cap, args.dialogues, args.patience * 60)
        base = point_of(measure_base(settings, describe_machine(torch.get_num_threads(), "cpu"))["point"])
        for rate in (None, *RATES):
            for seed in range(args.seeds):
                measure(Run("legacy" if rate else "softspoken", seed, rate), settings, base)
    write_page(args.results)


if __name__ == "__main__":
    main()
