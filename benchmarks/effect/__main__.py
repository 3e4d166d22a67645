"""Does it work, against what, by which choices, at what cost? One command; it goes on where it was stopped.

.venv/bin/python -m benchmarks.effect            everything (hours on two cores), then docs/results.md
.venv/bin/python -m benchmarks.effect works      PPO, three seeds, beside the cheap alternatives, on four sets
.venv/bin/python -m benchmarks.effect trl        the same training through TRL 0.11.4
.venv/bin/python -m benchmarks.effect choices    a table for each choice in the recipe
.venv/bin/python -m benchmarks.effect curve      ten times the budget
.venv/bin/python -m benchmarks.effect page       docs/results.md alone, from what was measured
.venv/bin/python -m benchmarks.effect --short    a trial of it all in a few minutes; its numbers mean nothing
"""

from __future__ import annotations

import argparse
import logging
import os
from dataclasses import replace
from pathlib import Path

from benchmarks.effect import page
from benchmarks.effect.jobs import run_all
from benchmarks.effect.parts import PARTS
from benchmarks.effect.settings import Settings, short
from benchmarks.provenance import ROOT
from softspoken.types import InputError, RunError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = [*PARTS, "page"]
    parser.add_argument("what", nargs="*", metavar="PART", help=f"{', '.join(parts)}; by default all of them")
    parser.add_argument(
        "--short", action="store_true", help="two steps, a few dialogues; all of it under .work/effect-short"
    )
    parser.add_argument("--limit", type=int, help="dialogues of each evaluation of --short (24)")
    parser.add_argument("--data", type=Path, default=Settings.data, help="the folder with samsum/, heated/, …")
    args = parser.parse_args()
    if args.limit and not args.short:
        parser.error("--limit goes with --short: what is measured for the page has its full size")
    if unknown := [part for part in args.what if part not in parts]:
        parser.error(f"no part {unknown[0]!r}; there are {', '.join(parts)}")
    os.chdir(ROOT)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    settings = replace(short(args.limit) if args.short else Settings(), data=args.data)
    for part in args.what or PARTS:
        if part != "page":
            print(f"\n{part}: {(PARTS[part].__doc__ or '').strip()}")
            try:
                run_all(PARTS[part](settings))
            except (InputError, RunError) as error:
                raise SystemExit(f"{part}: {error}") from error
    page.write_page(settings)


if __name__ == "__main__":
    main()
