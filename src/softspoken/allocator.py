"""How the C library gives memory back, on which the speed of a step on a CPU depends."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # <malloc.h>


def keep_freed_memory() -> None:
    """Tell glibc to keep what is freed for what comes next, for the life of the process; elsewhere nothing is done.

    It hands every large tensor back to the kernel, which has to clear its pages again for the next: a third of an update.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
