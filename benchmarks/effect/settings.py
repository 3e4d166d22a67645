"""Where the measurement lies and how large it is: the whole thing, or a trial of it in a few minutes."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
REWARD_JUDGE, OTHER_JUDGE = "mini", "profanity"
"""What the reward is made of, and one that it never saw."""


@dataclass(frozen=True)
class Settings:
    """Paths are relative to the repository's root, from which everything here is run."""

    work: Path = Path(".work/effect")
    """trainings, evaluations and the made dialogues: not committed"""
    results: Path = Path("benchmarks/effect/results")
    page: Path = Path("docs/results.md")
    data: Path = Path("../shared/data")
    steps: int | None = None
    """of a training; by default the recipe's"""
    limit: int | None = None
    """dialogues of each evaluation; by default as many as it is meant to have"""
    seeds: tuple[int, ...] = (0, 1, 2)
    seeds_of_choices: tuple[int, ...] = (0, 1)
    curve_steps: int = 500
    snapshots: tuple[int, ...] = (10, 20, 30, 40, 50, 70, 100, 150, 200, 250, 300, 350, 400, 450, 500)
    snapshot_every: int = 10


def short(limit: int | None) -> Settings:
    work = Path(".work/effect-short")
    return Settings(
        work=work,
        results=work / "results",
        page=work / "results.md",
        steps=2,
        limit=limit or 24,
        seeds=(0, 1),
        seeds_of_choices=(0,),
        curve_steps=6,
        snapshots=(2, 4, 6),
        snapshot_every=2,
    )


def write_json(path: Path, content: dict[str, Any]) -> None:
    """A line for each field and, of a field that is a list of objects, for each of them: so that a change is a change of lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.saving")
    fields = ",\n".join(f"{json.dumps(name)}: {_by_line(value)}" for name, value in content.items())
    beside.write_text(f"{{\n{fields}\n}}\n", encoding="utf-8")
    beside.replace(path)


def _by_line(value: Any) -> str:
    if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        return "[\n" + ",\n".join(json.dumps(one, ensure_ascii=False) for one in value) + "\n]"
    return json.dumps(value, ensure_ascii=False)


def read_json(path: Path) -> Any:
    """None where there is no such file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def commit() -> str:
    """Of the checkout, with a + where it holds changes that are not committed."""
    head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    code = ["src", "benchmarks/effect/*.py"]
    changed = subprocess.run(["git", "status", "--porcelain", "--", *code], cwd=ROOT, capture_output=True, text=True)
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "") or "unknown"


def machine() -> dict[str, Any]:
    import torch

    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": names[0] if names else platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
    }
