"""T5's loss and steps from the weights of transformers' model, made for speed on one GPU.

`Forward` has few and large kernels; `Adafactor` never waits for the device; `Learner` takes the first steps of each shape of batch
eagerly, then replays one captured CUDA graph for the step, its optimizer included. `grown` makes a larger model of a smaller one.
Needs torch and transformers alone: it runs where this package is not.
"""

import copy
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import T5Config, T5ForConditionalGeneration

PAD, END = 0, 1
BUCKETS = 32  # of relative positions
WARM_UP = 2  # eager steps of each shape before its capture

T5 = {
    "d_model": 320,
    "d_kv": 64,
    "d_ff": 640,
    "num_heads": 5,
    "num_layers": 4,
    "num_decoder_layers": 4,
    "feed_forward_proj": "gated-gelu_pytorch_tanh",  # the same function as "gated-gelu", in one kernel
    "dropout_rate": 0.0,
    "tie_word_embeddings": True,
    "decoder_start_token_id": PAD,
    "pad_token_id": PAD,
    "eos_token_id": END,
}


class Shape(NamedTuple):
    """A batch's rows, and tokens of each input and target."""

    rows: int
    given: int
    target: int


def new_model(vocabulary: int, **changes: Any) -> T5ForConditionalGeneration:
    torch.manual_seed(0)
    return T5ForConditionalGeneration(T5Config(vocab_size=vocabulary, **{**T5, **changes}))


def plain_attention(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor, scale: float) -> Tensor:
    scores = (q @ k.transpose(-1, -2)).float() * scale + attn_mask.float()
    return scores.softmax(-1).to(v.dtype) @ v


class Forward:
    """T5 from the weights of transformers' model, with fewer and larger kernels: queries, keys and values in one product, one
    normalization kernel. The residual is float32, the products are in `dtype`."""

    def __init__(self, model: T5ForConditionalGeneration, dtype: torch.dtype) -> None:
        self.model, self.dtype = model, dtype
        self.heads, self.size = model.config.num_heads, model.config.d_kv
        self.attention: Callable[..., Tensor] = F.scaled_dot_product_attention
        self.dropout = 0.0
        self.buckets: dict[tuple[int, bool], Tensor] = {}

    def norm(self, x: Tensor, layer: Any) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), layer.weight, 1e-6).to(self.dtype)

    def drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout) if self.dropout else x

    def linear(self, x: Tensor, *weights: Tensor) -> Tensor:
        return F.linear(x, (weights[0] if len(weights) == 1 else torch.cat(weights)).to(self.dtype))

    def split(self, x: Tensor, count: int) -> list[Tensor]:
        """[N, L, count * H * D] → count times [N, H, L, D]"""
        x = x.view(*x.shape[:2], count, self.heads, self.size).permute(2, 0, 3, 1, 4)
        return list(x.unbind(0))

    def merged(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], -1)

    def position_bias(self, stack: Any, length: int, causal: bool) -> Tensor:
        """[1, H, L, L]. A product with a one-hot table, whose gradient is a product too."""
        attention = stack.block[0].layer[0].SelfAttention
        if (length, causal) not in self.buckets:
            place = torch.arange(length, device=attention.q.weight.device)
            bucket = attention._relative_position_bucket(
                place[None, :] - place[:, None], bidirectional=not causal, num_buckets=BUCKETS, max_distance=128
            )
            self.buckets[length, causal] = F.one_hot(bucket.reshape(-1), BUCKETS).to(self.dtype)
        bias = self.buckets[length, causal] @ attention.relative_attention_bias.weight.to(self.dtype)
        return bias.view(length, length, self.heads).permute(2, 0, 1).contiguous().unsqueeze(0)

    def self_attention(self, x: Tensor, layer: Any, bias: Tensor) -> Tensor:
        a = layer.SelfAttention
        normed = self.norm(x, layer.layer_norm)
        q, k, v = self.split(self.linear(normed, a.q.weight, a.k.weight, a.v.weight), 3)
        return x + self.drop(self.linear(self.merged(self.attention(q, k, v, attn_mask=bias, scale=1.0)), a.o.weight))

    def feed_forward(self, x: Tensor, layer: Any) -> Tensor:
        f = layer.DenseReluDense
        gate, up = self.linear(self.norm(x, layer.layer_norm), f.wi_0.weight, f.wi_1.weight).chunk(2, dim=-1)
        return x + self.drop(self.linear(F.gelu(gate, approximate="tanh") * up, f.wo.weight))

    def encoded(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """The encoder's states [N, L, d], and [N, 1, 1, L] to be added to attention's scores."""
        model = self.model
        hidden = (inputs == PAD)[:, None, None, :]
        unseen = torch.zeros(hidden.shape, dtype=self.dtype, device=inputs.device).masked_fill(hidden, -1e4)
        bias = self.position_bias(model.encoder, inputs.shape[1], causal=False) + unseen
        x = self.drop(F.embedding(inputs, model.shared.weight))
        for block in model.encoder.block:
            x = self.self_attention(x, block.layer[0], bias)
            x = self.feed_forward(x, block.layer[1])
        return self.drop(self.norm(x, model.encoder.final_layer_norm)), unseen

    def memories(self, states: Tensor) -> list[Tensor]:
        """Keys and values for the decoder's layers, in turn, each [N, H, L, D]."""
        crossed = []
        for block in self.model.decoder.block:
            crossed += [block.layer[1].EncDecAttention.k.weight, block.layer[1].EncDecAttention.v.weight]
        return self.split(self.linear(states, *crossed), len(crossed))

    def scores(self, x: Tensor) -> Tensor:
        """[..., d] → logits [..., V] in `dtype`."""
        x = self.drop(self.norm(x, self.model.decoder.final_layer_norm)) * self.model.config.d_model**-0.5
        return self.linear(x, self.model.shared.weight)

    def logits(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """[N, T, V]"""
        model, length = self.model, targets.shape[1]
        shifted = torch.cat([torch.zeros_like(targets[:, :1]), targets[:, :-1]], dim=1)
        states, unseen = self.encoded(inputs)
        later = torch.ones(length, length, dtype=torch.bool, device=inputs.device).triu(1)
        bias = self.position_bias(model.decoder, length, causal=True).masked_fill(later, -1e4)
        bias = bias.expand(len(inputs), -1, -1, -1)
        cross_bias = unseen.expand(-1, self.heads, length, -1)
        memories = self.memories(states)
        x = self.drop(F.embedding(shifted, model.shared.weight))
        for number, block in enumerate(model.decoder.block):
            x = self.self_attention(x, block.layer[0], bias)
            a = block.layer[1].EncDecAttention
            [q] = self.split(self.linear(self.norm(x, block.layer[1].layer_norm), a.q.weight), 1)
            k, v = memories[2 * number : 2 * number + 2]
            found = self.attention(q, k, v, attn_mask=cross_bias, scale=1.0)
            x = x + self.drop(self.linear(self.merged(found), a.o.weight))
            x = self.feed_forward(x, block.layer[2])
        return self.scores(x)

    def loss(self, inputs: Tensor, targets: Tensor, teacher: "Forward | None" = None, share: float = 0.0) -> Tensor:
        """Mean negative log-likelihood of the targets, `share` of it that of what the teacher would say in each place."""
        logits, labels = self.logits(inputs, targets).flatten(0, 1).float(), targets.flatten()
        hard = F.cross_entropy(logits, labels, ignore_index=PAD)
        if teacher is None:
            return hard
        with torch.no_grad():
            told = teacher.logits(inputs, targets).flatten(0, 1).float().softmax(-1)
            counts = (labels != PAD).float()
        soft = (F.cross_entropy(logits, told, reduction="none") * counts).sum() / counts.sum()
        return (1 - share) * hard + share * soft


class Adafactor:
    """Shazeer and Stern 2018 without momentum, updates relative to a weight's size: transformers' Adafactor with
    scale_parameter=True and relative_step=False, weights of one shape at once and never waiting for the device.

    A gradient that is not finite changes nothing; `skipped` counts those. The rate is a tensor: a graph reads it anew."""

    def __init__(self, weights: list[Tensor]) -> None:
        shapes: dict[tuple[int, ...], list[Tensor]] = {}
        for weight in weights:
            shapes.setdefault(tuple(weight.shape), []).append(weight)
        self.groups = list(shapes.values())
        self.squares: list[list[Tensor]] = []
        for (first, *_), count in ((group, len(group)) for group in self.groups):
            rows_and_columns = [first.shape[:-1], (*first.shape[:-2], first.shape[-1])]
            sizes = rows_and_columns if first.dim() > 1 else [first.shape]
            self.squares.append([torch.zeros(count, *size, device=first.device) for size in sizes])
        device = weights[0].device
        self.steps, self.skipped, self.norm = (torch.zeros((), device=device) for _ in range(3))

    def state(self) -> list[Tensor]:
        return [self.steps, self.skipped, self.norm, *(square for pair in self.squares for square in pair)]

    @torch.no_grad()
    def step(self, rate: Tensor) -> None:
        self.steps += 1
        share = self.steps**-0.8
        gradients = [torch.stack([weight.grad for weight in group]) for group in self.groups]  # type: ignore[misc]
        size = sum(g.square().sum() for g in gradients).sqrt()  # type: ignore[union-attr]
        finite = torch.isfinite(size).float()
        self.norm.copy_(size)
        self.skipped += 1 - finite
        for group, gradient, squares in zip(self.groups, gradients, self.squares, strict=True):
            weights = torch.stack(group)  # type: ignore[arg-type]
            axes = tuple(range(1, weights.dim()))
            gradient = torch.nan_to_num(gradient, 0.0, 0.0, 0.0) * finite
            square = gradient.square() + 1e-30
            if len(squares) == 2:
                by_row, by_column = squares
                by_row.lerp_(square.mean(-1), share * finite)
                by_column.lerp_(square.mean(-2), share * finite)
                scale = (by_row / by_row.mean(-1, keepdim=True)).rsqrt()[..., None] * by_column.rsqrt()[..., None, :]
            else:
                squares[0].lerp_(square, share * finite)
                scale = squares[0].rsqrt()
            update = torch.nan_to_num(gradient * scale, 0.0, 0.0, 0.0)
            update /= update.square().mean(axes, keepdim=True).sqrt().clamp(min=1.0)
            update *= rate * weights.square().mean(axes, keepdim=True).sqrt().clamp(min=1e-3)
            torch._foreach_sub_(group, list(update.unbind(0)))
        for group in self.groups:
            for weight in group:
                weight.grad = None


# ------------------------------------------------------------------------------------------------------- steps


class Learner:
    """Trains one model, batch by batch. A batch is int16 ids: rows * given inputs, then rows * target targets."""

    def __init__(self, forward: Forward, capture: bool, teacher: Forward | None = None, share: float = 0.0) -> None:
        self.forward, self.teacher, self.share = forward, teacher, share
        self.device = forward.model.shared.weight.device
        self.weights = list(forward.model.parameters())
        self.optimizer = Adafactor(self.weights)
        self.rate, self.last, self.total = (torch.zeros((), device=self.device) for _ in range(3))
        self.capture, self.broken = capture and self.device.type == "cuda", ""
        self.buffers: dict[Shape, Tensor] = {}
        self.taken: dict[Shape, int] = {}
        self.eagerly: dict[Shape, Tensor] = {}
        self.graphs: dict[Shape, Any] = {}
        self.pool = torch.cuda.graph_pool_handle() if self.capture else None

    def step(self, batch: Tensor, shape: Shape, rate: float) -> None:
        if shape not in self.buffers:
            self.buffers[shape], self.taken[shape] = torch.empty_like(batch, device=self.device), 0
        self.buffers[shape].copy_(batch)
        self.rate.fill_(rate)
        if shape in self.graphs:
            self.graphs[shape].replay()
        elif self.capture and self.taken[shape] >= WARM_UP:
            self.captured(shape)
        else:
            self.body(shape)
            self.eagerly[shape] = self.last.clone()
        self.taken[shape] += 1

    def body(self, shape: Shape) -> None:
        """All on the device and in place, so that it can be captured."""
        ids = self.buffers[shape].long()
        inputs, targets = ids[: shape.rows * shape.given], ids[shape.rows * shape.given :]
        inputs, targets = inputs.view(shape.rows, shape.given), targets.view(shape.rows, shape.target)
        loss = self.forward.loss(inputs, targets, self.teacher, self.share)
        loss.backward()
        self.optimizer.step(self.rate)
        self.last.copy_(loss.detach())
        self.total += self.last

    def captured(self, shape: Shape) -> None:
        """The step as a graph, replayed once; eagerly, now and ever after, where it cannot be captured or says something else."""
        before = self.eagerly[shape].item()
        try:
            graph = torch.cuda.CUDAGraph()
            # On the stream on which the steps so far ran, as autograd wants it; thread_local: another thread fetches batches.
            with torch.cuda.graph(
                graph, pool=self.pool, stream=torch.cuda.current_stream(), capture_error_mode="thread_local"
            ):
                self.body(shape)
        except RuntimeError as error:
            self.give_up(f"{type(error).__name__} {error}")
            mend(self.device)
            self.body(shape)
            return
        graph.replay()
        after = self.last.item()
        if not math.isfinite(after) or not 0.5 < after / before < 2:  # of another batch, and with other dropout
            self.give_up(f"a replayed loss of {after} after {before}")
            return
        self.graphs[shape] = graph

    def give_up(self, why: str) -> None:
        self.capture, self.broken = False, why
        self.graphs.clear()
        for weight in self.weights:
            weight.grad = None

    def snapshot(self) -> list[Tensor]:
        return [tensor.detach().clone() for tensor in (*self.weights, *self.optimizer.state())]

    @torch.no_grad()
    def restore(self, kept: list[Tensor]) -> None:
        for tensor, old in zip((*self.weights, *self.optimizer.state()), kept, strict=True):
            tensor.copy_(old)


class Unusable(BaseException):
    """The process cannot go on with this device: it must begin again."""


def mend(device: torch.device) -> None:
    """Random numbers again after a capture that failed, which leaves their generator in the belief that it is captured (PyTorch
    says "Offset increment outside graph capture"); a capture that succeeds ends that. Raises Unusable where it does not."""
    try:
        one = torch.ones(8, device=device)
        with torch.cuda.graph(torch.cuda.CUDAGraph(), stream=torch.cuda.current_stream()):
            one += 1
        F.dropout(one, 0.5).sum().item()
    except RuntimeError as error:
        raise Unusable(f"{type(error).__name__} {error}") from error


def capture_agrees(forward: Forward, batch: Tensor, shape: Shape, rate: float, tolerance: float) -> tuple[bool, str]:
    """Whether captured steps find the losses and norms of gradients that eager ones find; the weights are left as they were.
    Raises Unusable where a capture failed: what that leaves behind is not for a long run."""
    eager, captured = Learner(forward, capture=False), Learner(forward, capture=True)
    kept, found = eager.snapshot(), []
    for learner in (eager, captured):
        learner.restore(kept)
        found.append([])
        for _ in range(WARM_UP + 3):
            learner.step(batch, shape, rate)
            found[-1] += [learner.last.item(), learner.optimizer.norm.item()]
    eager.restore(kept)
    if captured.broken:
        raise Unusable(captured.broken)
    agree = all(math.isclose(a, b, rel_tol=tolerance) for a, b in zip(*found, strict=True)) and bool(captured.graphs)
    told = f"eager {[round(x, 4) for x in found[0]]}, captured {[round(x, 4) for x in found[1]]} {captured.broken}"
    return agree, f"{told}: {'graphs' if agree else 'eager'}"


# ------------------------------------------------------------------------------------------------------- growing


@torch.no_grad()
def grown(small: T5ForConditionalGeneration, layers: int, whisper: float, **changes: int) -> T5ForConditionalGeneration:
    """A wider and deeper model that says nearly what the small one says, and exactly so with a `whisper` of 0.

    New columns read new dimensions with weights of the usual size; what writes from or into something new has `whisper` of it, and a new
    layer, a copy of the one before, writes that much. The normalization sees `small.d_model` dimensions of some size among
    zeros: its weights make up for that.
    """
    old = small.config
    model = new_model(old.vocab_size, num_layers=layers, num_decoder_layers=layers, d_kv=old.d_kv, **changes).to(
        small.device
    )
    wide = model.config.d_model
    shrink = math.sqrt(old.d_model / wide)
    generator = torch.Generator(device="cpu").manual_seed(0)

    def fill(into: Tensor, source: Tensor, factor: float = 1.0, new: float = 1.0) -> None:
        """`source`, times `factor`, in the corner of `into`; beyond it noise of the source's size times `new`."""
        noise = torch.randn(into.shape, generator=generator).to(into) * source.std() * new
        noise[tuple(slice(size) for size in source.shape)] = source * factor
        into.copy_(noise)

    def fill_norm(into: Any, source: Any, factor: float) -> None:
        into.weight.fill_(float(source.weight.mean()) * factor)
        into.weight[: old.d_model] = source.weight * factor

    def fill_attention(into: Any, source: Any, loud: float) -> None:
        for name in ("q", "k", "v"):
            fill(getattr(into, name).weight, getattr(source, name).weight)
        fill(into.o.weight, source.o.weight * loud, new=whisper)
        if hasattr(source, "relative_attention_bias") and hasattr(into, "relative_attention_bias"):
            fill(into.relative_attention_bias.weight, source.relative_attention_bias.weight)

    def fill_block(into: Any, source: Any, loud: float) -> None:
        for new, known in zip(into.layer, source.layer, strict=True):
            fill_norm(new.layer_norm, known.layer_norm, shrink)
            for name in ("SelfAttention", "EncDecAttention"):
                if hasattr(known, name):
                    fill_attention(getattr(new, name), getattr(known, name), loud)
            if hasattr(known, "DenseReluDense"):
                f, g = new.DenseReluDense, known.DenseReluDense
                fill(f.wi_0.weight, g.wi_0.weight)
                fill(f.wi_1.weight, g.wi_1.weight)
                fill(f.wo.weight, g.wo.weight * loud, new=whisper)

    fill(model.shared.weight, small.shared.weight, new=whisper)
    for into, source in ((model.encoder, small.encoder), (model.decoder, small.decoder)):
        count = len(source.block)
        sources = [place * count // layers for place in range(layers)]
        for place, of in enumerate(sources):
            again = place > 0 and sources[place - 1] == of
            fill_block(into.block[place], source.block[of], whisper if again else 1.0)
    fill_norm(model.encoder.final_layer_norm, small.encoder.final_layer_norm, shrink)
    # The logits are scaled by d_model ** -0.5, which undoes the shrinking.
    fill_norm(model.decoder.final_layer_norm, small.decoder.final_layer_norm, 1.0)
    return model


def twin(model: T5ForConditionalGeneration) -> T5ForConditionalGeneration:
    return copy.deepcopy(model)
