"""What the libraries below torch do of their own accord, and how weights lie in memory: the speed of a step on a CPU."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.backends import mkl, mkldnn

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
        mallopt(M_TRIM_THRESHOLD, -1)  # never; the largest number it takes would hand back what is free beyond 2 GiB


def _take_other_kernels() -> None:
    """Have MKL take the kernels that give the same digits however its operands lie, on AMD's processors.

    Those that it takes there by itself need up to twice as long for products of few rows: 6 % of a step. On Intel's own it
    was not measured. MKL reads the variable at its first product.
    """
    if CPU_INFO.is_file() and "AuthenticAMD" in CPU_INFO.read_text(encoding="utf-8"):
        os.environ.setdefault("MKL_CBWR", "AUTO")


def lay_out_columns(module: nn.Module) -> None:
    """Have the weights of every linear layer in it lie column by column; values and results stay the same.

    So MKL multiplies the 16 rows of a sampling step up to twice as fast (flan-t5-small, an Intel Xeon), many rows as fast as before.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            part.weight.data = part.weight.data.t().contiguous().t()


def can_pack(layer: nn.Module) -> bool:
    """Whether PackedProjection is for it: linear, without bias, frozen, in float32, on a CPU for which torch has MKL and oneDNN."""
    if not isinstance(layer, nn.Linear) or layer.bias is not None or layer.weight.requires_grad:
        return False
    here = layer.weight.device.type == "cpu" and mkl.is_available() and mkldnn.is_available()
    return here and layer.weight.dtype == torch.float32


class PackedProjection:
    """states @ weight.T of a frozen linear layer, by oneDNN, from a second copy of it that lies as its kernel reads it.

    MKL arranges the whole vocabulary's matrix anew in each product, which takes longer than the product of a few rows.
    Once the layer's weight is another than was copied, the layer itself is used.
    """

    def __init__(self, layer: nn.Linear) -> None:
        self.layer = layer
        self.weight = layer.weight.detach()
        self.version = self.weight._version
        self.packed = torch.ops.mkldnn._reorder_linear_weight(self.weight, 16)

    def __call__(self, states: Tensor) -> Tensor:
        """states: [..., D] float32 → [..., V] float32, with a gradient for the states."""
        weight = self.layer.weight
        if weight.data_ptr() != self.weight.data_ptr() or weight._version != self.version:
            return self.layer(states)
        return _PackedProduct.apply(states, self.weight, self.packed)


class _PackedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, packed: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return torch.ops.mkldnn._linear_pointwise(states, packed, None, "none", [], "")

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return gradient @ weight, None, None
