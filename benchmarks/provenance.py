"""What a result says of where it came from."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
CODE = [".", ":(exclude)benchmarks/*/results/*", ":(exclude)docs"]


def commit() -> str:
    """Of the checkout, with -dirty where it holds changes that are not committed, other than what benchmarks write."""
    if shutil.which("git") is None:
        return "unknown"
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", *CODE], cwd=ROOT, capture_output=True)
    return (found.stdout.strip() or "unknown") + ("-dirty" if changed.returncode == 1 else "")


def describe_machine(threads: int, device: str) -> dict[str, Any]:
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no GPU here (or this build of torch has no CUDA); run this where there is one")
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    processor = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    memory = next(int(line.split()[1]) for line in Path("/proc/meminfo").read_text().splitlines())
    gpu = torch.cuda.get_device_name() if device == "cuda" else None
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    widest = next((name for name in ("amx_tile", "avx512f", "avx2") if name in flags), "none of AVX2, AVX-512, AMX")
    return {
        "cpu": processor,
        "cores": os.cpu_count(),
        "threads": threads,
        "vector": widest,
        "memory_gib": round(memory / 2**20),
        "gpu": gpu,
        "torch": torch.__version__,
        "blas": "MKL" if torch.backends.mkl.is_available() else "other",
    }


if __name__ == "__main__":
    print(commit())
