"""What the libraries below torch do of their own accord, on which the speed of a step on a CPU depends."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # <malloc.h>
CPU_INFO = Path("/proc/cpuinfo")


def tune_cpu() -> None:
    """For the life of the process; to be called before the first matrix product, and on Linux alone of any effect."""
    if sys.platform == "linux":
        _keep_freed_memory()
        _take_other_kernels()


def _keep_freed_memory() -> None:
    """Tell glibc to keep what is freed for what comes next.

    It hands every large tensor back to the kernel, which has to clear its pages again for the next: a third of an update.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def _take_other_kernels() -> None:
    """Have MKL take the kernels that give the same digits however its operands lie, on AMD's processors.

    Those that it takes there by itself need up to twice as long for products of few rows: 6 % of a step. On Intel's own it
    was not measured. MKL reads the variable at its first product.
    """
    if CPU_INFO.is_file() and "AuthenticAMD" in CPU_INFO.read_text(encoding="utf-8"):
        os.environ.setdefault("MKL_CBWR", "AUTO")
