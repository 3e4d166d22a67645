"""softspoken against TRL 0.11.4 on the same work. One command; it goes on where it was stopped.

.venv/bin/python -m benchmarks.speed                  everything on the CPU (hours), then docs/speed.md
.venv/bin/python -m benchmarks.speed --short          flan-t5-small, batch 16: under 10 minutes on two cores
.venv/bin/python -m benchmarks.speed --device cuda    flan-t5-base, batch 64, on a GPU, then docs/speed.md
.venv/bin/python -m benchmarks.speed --scaling        cost against batch, lengths, epochs and model: about an hour on two cores
.venv/bin/python -m benchmarks.speed page             docs/speed.md and its picture alone, from what was measured
"""

from __future__ import annotations

import argparse
import os

from benchmarks.provenance import describe_machine
from benchmarks.records import read_lines
from benchmarks.speed import cells, page, sweeps
from benchmarks.speed.cells import Group, missing
from benchmarks.speed.figures import Results
from benchmarks.speed.rounds import Settings, measure, record_machine
from benchmarks.workers import make_legacy_environment


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["measure", "page"], default="measure")
    parser.add_argument("--short", action="store_true", help="the main comparison alone")
    parser.add_argument("--scaling", action="store_true", help="how softspoken's cost grows, without TRL")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument(
        "--name", help="of the results file; by default cpu, cuda, short or scaling. Another name starts afresh"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="by default one for each core")
    parser.add_argument(
        "--patience", type=float, default=10, help="minutes to wait before a step for other load to end"
    )
    args = parser.parse_args()
    if args.what == "measure":
        plans = {"short": cells.short, "scaling": sweeps.groups, "cpu": cells.full, "cuda": cells.cuda}
        plan = "short" if args.short else "scaling" if args.scaling else args.device
        settings = Settings(page.RESULTS / f"{args.name or plan}.jsonl", args.threads, args.patience * 60)
        run(plans[plan](), settings)
    if args.what == "page" or not (args.short or args.name):
        page.write_page()


def run(groups: list[Group], settings: Settings) -> None:
    if any(cell.side == "legacy" for group in groups for cell in group.cells):
        make_legacy_environment()
    record_machine(settings, describe_machine(settings.threads, groups[0].cells[0].device))
    for group in groups:
        measure(group, settings)
    print(page.page(Results(read_lines(settings.results)), [], ""))
    left = sum(len(missing(group, read_lines(settings.results))) for group in groups)
    if left:
        raise SystemExit(f"{left} samples are still missing (other load); run the same command again")


if __name__ == "__main__":
    main()
