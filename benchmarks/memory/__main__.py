"""What `softspoken estimate` says a training takes, beside what its process grew by.

    python -m benchmarks.memory            some minutes on a CPU, each setting in a process of its own; writes results/cpu.json

docs/scale.md has the table; tests/component/estimating holds it to the results.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.memory.worker import Cell
from benchmarks.provenance import ROOT, commit, describe_machine
from benchmarks.workers import environment
from softspoken.estimating.memory import estimate

RESULTS = Path(__file__).parent / "results" / "cpu.json"
CELLS = [
    *(
        Cell("flan-t5-small", settings)
        for settings in (
            {},
            {"adapter_scope": "all"},
            {"adapter_scope": "all", "gradient_checkpointing": True},
            {"trained": "full"},
            {"fast": False},
        )
    ),
    *(
        Cell("flan-t5-base", settings)
        for settings in (
            {},
            {"adapter_scope": "all"},
            {"adapter_scope": "all", "gradient_checkpointing": True},
            {"trained": "full"},
        )
    ),
    *(Cell("bart-base", settings) for settings in ({}, {"adapter_scope": "all"}, {"trained": "full"})),
]


def main() -> None:
    rows = []
    for cell in CELLS:
        asked = [sys.executable, "-m", "benchmarks.memory.worker", json.dumps(asdict(cell))]
        said = subprocess.run(asked, cwd=ROOT, env=environment(1), stdout=subprocess.PIPE, text=True, check=True).stdout
        found = json.loads(said.splitlines()[-1])
        estimated = round(estimate(cell.estimating(), cell.model).total / 1e6)
        rows.append({**asdict(cell), **found, "estimated": estimated})
        print(json.dumps(rows[-1]), flush=True)
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(
            json.dumps({"commit": commit(), "machine": describe_machine(1, "cpu"), "rows": rows}, indent=1) + "\n"
        )


def page_rows(rows: list[dict[str, Any]]) -> list[str]:
    """The lines of docs/scale.md's table."""
    return [
        f"| {row['model']} | {', '.join(f'{name} {value}' for name, value in row['settings'].items()) or 'as by default'} "
        f"| {row['measured'] / 1000:.2f} | {row['estimated'] / 1000:.2f} | {row['estimated'] / row['measured'] - 1:+.0%} |"
        for row in rows
    ]


if __name__ == "__main__":
    main()
