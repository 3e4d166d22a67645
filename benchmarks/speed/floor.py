"""The floor of a step: the floating-point operations it needs, over the rate at which this machine multiplies matrices.

    python -m benchmarks.speed.floor flan-t5-small [cuda bfloat16]      prints the rate, in operations a second

Counted are the matrix products of the frozen model on tokens that are not padding, two operations to a multiply-add. Left
out are the adapter's own products (rank 16: less than 2 %), softmax, norms, the optimizer and all traffic with memory: no
program reaches the floor, and the one-token products of sampling are far from it on any machine.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass

from benchmarks.speed.cells import Cell, prompt_lengths


@dataclass(frozen=True)
class Shape:
    """A T5 with a gated feed-forward layer; as many decoder as encoder layers."""

    d_model: int
    d_kv: int
    d_ff: int
    layers: int
    heads: int
    vocabulary: int = 32_128

    @property
    def inner(self) -> int:
        return self.heads * self.d_kv


SHAPES = {  # as published in the models' config.json
    "flan-t5-small": Shape(d_model=512, d_kv=64, d_ff=1024, layers=8, heads=6),
    "flan-t5-base": Shape(d_model=768, d_kv=64, d_ff=2048, layers=12, heads=12),
    "flan-t5-large": Shape(d_model=1024, d_kv=64, d_ff=2816, layers=24, heads=16),
    "tiny": Shape(d_model=64, d_kv=16, d_ff=128, layers=2, heads=4),
}


def step_flops(shape: Shape, prompts: list[int], new_tokens: int, epochs: int, scope: str) -> int:
    """What one step cannot do without, summed over its prompts (given by their lengths, one summary each).

    Adapter everywhere: sampling and the reference each encode the prompt with other weights, and every epoch encodes it
    again with those of the moment and goes back through it. In the decoder only: it is encoded once, and so are the keys
    and values that the decoder reads of it.
    """
    total = 0
    for prompt in prompts:
        encode = encoder(shape, prompt) + cross_memory(shape, prompt)
        decode = decoder(shape, prompt, new_tokens)
        back = decoder_backward(shape, prompt, new_tokens, through_memory=scope == "all")
        total += encode + 2 * decode + epochs * (decode + back)  # sampling, the reference, the epochs
        if scope == "all":
            total += encode  # by the reference
            total += epochs * (encode + encoder_backward(shape, prompt) + cross_memory(shape, prompt))
    return total


def encoder(shape: Shape, prompt: int) -> int:
    """q, k, v, o; scores and mixing of the attention; the two feed-forward products in and the one out."""
    return shape.layers * (
        8 * prompt * shape.d_model * shape.inner
        + 4 * prompt * prompt * shape.inner
        + 6 * prompt * shape.d_model * shape.d_ff
    )


def encoder_backward(shape: Shape, prompt: int) -> int:
    """A frozen product costs as much backward as forward (the gradient of its input alone), one of two activations twice
    that. Below the first layer's q, k, v nothing is trained, so they pass nothing on and its keys need no gradient."""
    attention = shape.layers * 4 * prompt * prompt * shape.inner
    below = 6 * prompt * shape.d_model * shape.inner + 2 * prompt * prompt * shape.inner
    return encoder(shape, prompt) + attention - below


def cross_memory(shape: Shape, prompt: int) -> int:
    """Keys and values of the prompt for every decoder layer; backward it costs the same."""
    return shape.layers * 4 * prompt * shape.d_model * shape.inner


def decoder(shape: Shape, prompt: int, tokens: int) -> int:
    """Self-attention (a token sees itself and those before it), cross-attention without its keys and values, feed-forward,
    vocabulary; the same whether token by token or all at once."""
    layer = (
        8 * tokens * shape.d_model * shape.inner
        + _self_attention(shape, tokens)
        + 4 * tokens * shape.d_model * shape.inner
        + 4 * tokens * prompt * shape.inner
        + 6 * tokens * shape.d_model * shape.d_ff
    )
    return shape.layers * layer + 2 * tokens * shape.d_model * shape.vocabulary


def decoder_backward(shape: Shape, prompt: int, tokens: int, *, through_memory: bool) -> int:
    """As for the encoder. Where the memory is frozen, three of the cross-attention's four gradient products remain: its
    keys need none, its values do, for the adapter on them."""
    cross = 4 * tokens * prompt * shape.inner
    attention = shape.layers * (_self_attention(shape, tokens) + (cross if through_memory else cross // 2))
    below = 6 * tokens * shape.d_model * shape.inner + _self_attention(shape, tokens) // 2
    return decoder(shape, prompt, tokens) + attention - below


def _self_attention(shape: Shape, tokens: int) -> int:
    return 4 * shape.inner * tokens * (tokens + 1) // 2


def parameters(shape: Shape) -> int:
    """Weights of the model, norms and position biases aside; input embedding and vocabulary are two matrices."""
    feed_forward = 3 * shape.d_model * shape.d_ff
    layer = 12 * shape.d_model * shape.inner + 2 * feed_forward  # four projections in the encoder, eight in the decoder
    return shape.layers * layer + 2 * shape.vocabulary * shape.d_model


def cell_flops(cell: Cell) -> int:
    return step_flops(SHAPES[cell.model], prompt_lengths(cell), cell.new_tokens, cell.epochs, cell.scope)


def matmul_rate(shape: Shape, device: str, dtype: str, rows: int = 1024, repeats: int = 4, products: int = 3) -> float:
    """Operations a second of torch.mm on this model's attention, feed-forward and vocabulary products: of `products` in a
    row, the best of some."""
    import torch

    operations, seconds = 0, 0.0
    for width in (shape.inner, shape.d_ff, shape.vocabulary):
        left = torch.randn(rows, shape.d_model).to(device, getattr(torch, dtype))
        right = torch.randn(shape.d_model, width).to(device, getattr(torch, dtype))
        times = []
        for _ in range(repeats + 1):  # the first is slower
            if device == "cuda":
                torch.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(products):
                torch.mm(left, right)
            if device == "cuda":
                torch.cuda.synchronize()
            times.append((time.perf_counter() - start) / products)
        operations += 2 * rows * shape.d_model * width
        seconds += min(times)
    return operations / seconds


if __name__ == "__main__":
    from softspoken.models.cpu import tune_cpu

    tune_cpu()  # the floor is counted at the rate that our own steps can have
    model, *where = sys.argv[1:]
    print(json.dumps(matmul_rate(SHAPES[model], *(where or ("cpu", "float32")))))
