"""This process among those that run one command (design, section 11): its share of the work, and what they tell one another.

`torchrun --nproc_per_node 2 -m softspoken train …` and `accelerate launch -m softspoken train …` start several and say so in their
environment; a process that nobody started that way is alone, and all of this costs it nothing.

Everything is exchanged as numbers and JSON. What one process must wait for, all call in the same order.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from softspoken.types import InputError, RunError, first_line

if TYPE_CHECKING:  # a command that ends in a sentence about its flags does not load torch
    import torch
    from torch import Tensor

Item = TypeVar("Item")

PATIENCE = timedelta(minutes=30)
"""How long a process waits for another, which may be evaluating a long text or reading a large model, before it gives up."""


class OtherProcessGone(RunError):
    """What went wrong is for the other process to say."""


def rank() -> int:
    """0 for the first, which alone writes, logs and shows the bar."""
    return _number("RANK", 0)


def size() -> int:
    return _number("WORLD_SIZE", 1)


def first() -> bool:
    return rank() == 0


def _number(name: str, alone: int) -> int:
    value = os.environ.get(name, "")
    return int(value) if value.isdigit() and _number_of_processes() > 1 else alone


def _number_of_processes() -> int:
    """By both names that launchers set: one of them alone is somebody else's variable."""
    value = os.environ.get("WORLD_SIZE", "")
    return int(value) if value.isdigit() and os.environ.get("RANK", "").isdigit() else 1


@contextmanager
def joined(device: str) -> Iterator[None]:
    """Inside, the processes can talk: over NCCL where they compute on GPUs (`device` says so, or is auto), else over gloo.

    Where somebody (accelerate, a script) has joined them already, that is used and left as it is. Raises RunError where another
    process is not there in time, or went away.
    """
    if size() == 1:
        yield
        return
    import torch
    import torch.distributed as dist

    if dist.is_initialized():
        yield
        return
    cuda = device in ("auto", "cuda") and torch.cuda.is_available()
    if cuda:
        local = _number("LOCAL_RANK", 0)
        if local >= torch.cuda.device_count():
            raise InputError(
                f"{local + 1} processes were started on a machine with {torch.cuda.device_count()} GPUs; start one for each, or "
                "give --device cpu"
            )
        torch.cuda.set_device(local)
    with _saying_who_is_gone():
        dist.init_process_group("nccl" if cuda else "gloo", timeout=PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


@contextmanager
def _saying_who_is_gone() -> Iterator[None]:
    """What a library says when another process has ended is many lines about sockets."""
    import torch.distributed as dist

    try:
        yield
    except (dist.DistError, RuntimeError) as error:
        raise OtherProcessGone(
            f"another of the {size()} processes has ended, or did not answer within {PATIENCE.seconds // 60} minutes "
            f"({first_line(error)})"
        ) from error


# --------------------------------------------------------------------------------------------------- whose is what


def share(count: int) -> slice:
    """This process's part of `count` things that lie side by side; parts differ by one at most, and may be empty."""
    whole, rest = divmod(count, size())
    start = rank() * whole + min(rank(), rest)
    return slice(start, start + whole + (rank() < rest))


def turns(items: Sequence[Item]) -> Sequence[Item]:
    """This process's of them, where each takes one in turn."""
    return items[rank() :: size()]


# ------------------------------------------------------------------------------------------------- what they tell


def in_turn(own: Sequence[Item], count: int) -> list[Item]:
    """All `count` things of which each process made its `turns`, in order. What it made must be JSON."""
    made = gather(list(own))
    return [made[place % size()][place // size()] for place in range(count)]


def gather(own: Any) -> list[Any]:
    """What each process has to say, by rank; JSON, whose numbers keep their digits."""
    if size() == 1:
        return [own]
    import torch

    data = torch.frombuffer(bytearray(json.dumps(own).encode()), dtype=torch.uint8)
    return [json.loads(bytes(part.tolist())) for part in _each(data)]


def from_first(own: Any) -> Any:
    """What the first process has to say."""
    return gather(own if first() else None)[0]


def gather_rows(own: Tensor, fill: float = 0) -> Tensor:
    """The rows [n, …] of all processes below one another, each filled up at its end to the longest's width with `fill`."""
    if size() == 1:
        return own
    import torch
    import torch.nn.functional as F

    shapes = gather(list(own.shape))
    trailing = [max(lengths) for lengths in zip(*(shape[1:] for shape in shapes), strict=True)]
    wider = [pad for have, want in zip(own.shape[:0:-1], trailing[::-1], strict=True) for pad in (0, want - have)]
    kind = torch.uint8 if own.dtype == torch.bool else own.dtype
    parts = _each(F.pad(own.to(kind), wider, value=fill).reshape(-1))
    rows = [part.reshape(shape[0], *trailing) for part, shape in zip(parts, shapes, strict=True)]
    return torch.cat(rows).to(own.dtype).to(own.device)


def _each(own: Tensor) -> list[Tensor]:
    """The one-dimensional tensors of all processes, whatever their lengths."""
    import torch
    import torch.distributed as dist

    place = _place()
    with _saying_who_is_gone():
        lengths = [torch.zeros(1, dtype=torch.long, device=place) for _ in range(size())]
        dist.all_gather(lengths, torch.tensor([len(own)], device=place))
        longest = max(int(length) for length in lengths)
        padded = torch.zeros(longest, dtype=own.dtype, device=place)
        padded[: len(own)] = own.to(place)
        parts = [torch.empty_like(padded) for _ in lengths]
        dist.all_gather(parts, padded)
    return [part[: int(length)] for part, length in zip(parts, lengths, strict=True)]


def _place() -> torch.device:
    """Where tensors must lie to be exchanged."""
    import torch
    import torch.distributed as dist

    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")


def add_up(tensors: Sequence[Tensor]) -> None:
    """Each becomes the sum of all processes', in place and with the same digits everywhere; float32, in one exchange."""
    if size() == 1 or not tensors:
        return
    import torch
    import torch.distributed as dist

    whole = torch.cat([tensor.reshape(-1).float() for tensor in tensors]).to(_place())
    with _saying_who_is_gone():
        dist.all_reduce(whole)
    for tensor, part in zip(tensors, whole.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.reshape(tensor.shape))


def broadcast(tensors: Sequence[Tensor]) -> None:
    """Each becomes, in place, what it is in the first process."""
    if size() == 1:
        return
    import torch
    import torch.distributed as dist

    with _saying_who_is_gone(), torch.no_grad():
        for tensor in tensors:
            there = tensor.detach().to(_place()).contiguous()
            dist.broadcast(there, src=0)
            tensor.copy_(there)


def largest(own: float) -> float:
    return float(max(gather(own)))
