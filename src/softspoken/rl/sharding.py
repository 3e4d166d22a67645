"""A base whose layers lie in parts across the processes: torch's `fully_shard` (FSDP2), layer by layer (design section 11).

A layer's weights are gathered when it is called, forwards and backwards, and let go of after; so all processes must call the same layers in
the same order, as often as the one with the most to do. Embeddings, head, adapter and value head are whole in each: the first are
shared between encoder, decoder and head, which one group of FSDP cannot be, and the others are small.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from softspoken.models.families import text_parts
from softspoken.models.trained import layers_of
from softspoken.runtime import processes

Piece = TypeVar("Piece")


def shard_layers(seq2seq: Any, base: set[nn.Parameter], device: torch.device) -> None:
    """Lay the weights of `base` that are in layers in parts across the processes, on `device`, a layer at a time; the others stay whole.

    Encoder and decoder are each a root, since the policy calls them and not the model.
    """
    mesh = init_device_mesh(device.type, (processes.size(),))
    added = {weight for weight in seq2seq.parameters() if weight not in base}
    for name in text_parts(seq2seq).values():
        part = seq2seq.get_submodule(name)
        layers = layers_of(part)
        inside = {weight for layer in layers for weight in layer.parameters()}
        for layer in layers:
            fully_shard(layer, mesh=mesh, ignored_params=added)
        fully_shard(
            part, mesh=mesh, ignored_params={weight for weight in part.parameters() if weight not in inside} | added
        )
    seq2seq.to(device)


def in_step(own: Sequence[Piece], *, sharded: bool) -> Iterator[Piece | None]:
    """This process's pieces, and then None for as long as another has more of them, where all must do alike."""
    most = int(processes.largest(len(own))) if sharded else len(own)
    yield from own
    for _ in range(most - len(own)):
        yield None


def any_of_all(own: bool, *, sharded: bool) -> bool:
    return bool(processes.largest(own)) if sharded else own
