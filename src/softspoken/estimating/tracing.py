"""How many bytes a pass through a model makes, by its own code run on tensors that have a shape and no numbers.

Nothing is computed and nothing of a tensor's size is allocated: operations say what they would make (torch's FakeTensorMode), and what
of it is alive at once is added up.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Prepared = Callable[[], tuple[list[torch.Tensor], Callable[[], None]]]
"""Makes the tensors that are there before, and what is to be done with them."""


class LiveBytes(TorchDispatchMode):
    """Inside, what operations make is added up, each storage once, and taken off again when it is let go of."""

    def __init__(self, known: list[torch.Tensor]) -> None:
        """`known` is there already, and does not count."""
        super().__init__()
        self.now = self.most = 0
        self._counted: dict[int, int] = {tensor.untyped_storage()._cdata: 0 for tensor in known}

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = operation(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return made

    def _count(self, storage: Any) -> None:
        if storage._cdata not in self._counted:
            self._counted[storage._cdata] = storage.nbytes()
            self.now += storage.nbytes()
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._let_go, storage._cdata)

    def _let_go(self, storage: int) -> None:
        self.now -= self._counted.pop(storage)


class Shapes:
    """A model on the meta device, made into one whose tensors say that they lie on a CPU, where attention is not taken apart."""

    def __init__(self, model: nn.Module) -> None:
        self.mode = FakeTensorMode()
        self._weights: dict[int, tuple[nn.Parameter, nn.Parameter]] = {}
        self._others: list[torch.Tensor] = []
        for module in model.modules():
            for name, weight in module._parameters.items():
                if weight is not None:
                    module._parameters[name] = self._weight(weight)
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = self._like(buffer)
                    self._others.append(module._buffers[name])  # type: ignore[arg-type]

    def _like(self, tensor: torch.Tensor) -> FakeTensor:
        return FakeTensor(self.mode, tensor.detach().to("meta"), torch.device("cpu"))

    def _weight(self, weight: nn.Parameter) -> nn.Parameter:
        """The same for the same: embeddings may be shared."""
        if id(weight) not in self._weights:
            like = nn.Parameter(self._like(weight), requires_grad=weight.requires_grad)
            self._weights[id(weight)] = weight, like  # both, so that no other comes to have its id
        return self._weights[id(weight)][1]

    def most(self, prepared: Prepared) -> int:
        """Bytes that what `prepared` returns has alive at once when it is called, beyond the weights, the gradients of those that train,
        and what was prepared for it."""
        weights = [like for _, like in self._weights.values()]
        with self.mode:
            for weight in weights:
                if weight.requires_grad and weight.grad is None:
                    weight.grad = torch.zeros_like(weight)
            gradients = [weight.grad for weight in weights if weight.grad is not None]
            given, work = prepared()
            with LiveBytes([*weights, *gradients, *self._others, *given]) as live:
                work()
        return live.most
