"""The same digits each time for the same seed, on a GPU too."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch

from softspoken.types import RunError, first_line

WORKSPACE = ":4096:8"
"""What cuBLAS needs to be deterministic; it reads this at its first product."""


@contextlib.contextmanager
def repeatable(wanted: bool) -> Iterator[None]:
    """Inside, where `wanted`, PyTorch takes no operation that adds in an order of the GPU's choosing. Raises RunError where one has no
    other kind."""
    if not wanted:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", WORKSPACE)
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    except RuntimeError as error:
        if "deterministic" not in str(error) or isinstance(error, RunError):
            raise
        raise RunError(f"deterministic true cannot be had here ({first_line(error)[:200]}); leave it out") from error
    finally:
        torch.use_deterministic_algorithms(before)
