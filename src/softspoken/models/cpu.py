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
from torch.nn.functional import linear

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # <malloc.h>
CPU_INFO = Path("/proc/cpuinfo")
FEW_ROWS = 16
"""For which a packed weight lies best: those of a sampling step."""


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


def rounds_natively() -> bool:
    """Whether this processor multiplies bfloat16 by itself (AVX512_BF16 or AMX), which is two to four times as fast as float32."""
    return mkldnn.is_available() and bool({"avx512_bf16", "amx_bf16"} & _abilities())


def outruns_mkl() -> bool:
    """Whether oneDNN's float32 products are faster than MKL's: on AMD's processors with AVX-512, which MKL does not use there."""
    return mkldnn.is_available() and "avx512f" in _abilities() and "AuthenticAMD" in CPU_INFO.read_text("utf-8")


def _abilities() -> set[str]:
    known = CPU_INFO.read_text("utf-8") if CPU_INFO.is_file() else ""
    return set(next((line for line in known.splitlines() if line.startswith("flags")), "").split())


def can_multiply(layer: nn.Module) -> bool:
    """Whether FrozenProduct is for it: linear, frozen, in float32, on a CPU for which torch has MKL and oneDNN."""
    if not isinstance(layer, nn.Linear) or layer.weight.requires_grad or type(layer.weight.data) is not Tensor:
        return False
    here = layer.weight.device.type == "cpu" and mkl.is_available() and mkldnn.is_available()
    return here and layer.weight.dtype == torch.float32


class FrozenProduct:
    """states @ weight.T + bias of a frozen linear layer by oneDNN, of float32 and to float32, multiplied in `dtype`.

    `packed`: from a copy of the weight that lies as the kernel for few rows reads it. MKL arranges the whole matrix anew in each product,
    which takes longer than the product of a few rows. Once the layer's weight is another than was copied, the layer itself is used.
    """

    def __init__(
        self, layer: nn.Linear, dtype: torch.dtype = torch.float32, *, packed: bool = True, gradient: bool = False
    ) -> None:
        """`gradient`: by oneDNN as well; without, in float32, it is MKL's, and a small model's run has the digits that were published."""
        self.layer = layer
        self.own = layer.weight.detach()
        self.version = self.own._version
        self.weight = self.own.to(dtype)
        self.operand = torch.ops.mkldnn._reorder_linear_weight(self.weight, FEW_ROWS) if packed else self.weight
        self.by_onednn = gradient or dtype != torch.float32

    def __call__(self, states: Tensor) -> Tensor:
        """states: [..., D] float32 → [..., V] float32, with a gradient for the states."""
        weight, bias = self.layer.weight, self.layer.bias
        if weight.data_ptr() != self.own.data_ptr() or weight._version != self.version:
            return linear(states, weight, bias)
        with_gradient = torch.is_grad_enabled() and states.requires_grad
        product = _Product.apply(states, self) if with_gradient else self.product(states)
        return product if bias is None else product + bias

    def product(self, states: Tensor) -> Tensor:
        return _by_onednn(states, self.operand, self.weight.dtype)

    def gradient(self, given: Tensor) -> Tensor:
        """For the states, of the product's [..., V]."""
        return _by_onednn(given, self.weight.t(), self.weight.dtype) if self.by_onednn else given @ self.weight


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, product: FrozenProduct) -> Tensor:
        ctx.of = product
        return product.product(states)

    @staticmethod
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor, None]:
        return ctx.of.gradient(given), None


def _by_onednn(given: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """given @ weight.T, added up in float32."""
    return torch.ops.mkldnn._linear_pointwise(given.to(dtype), weight, None, "none", [], "").to(torch.float32)
