"""Sampling on a GPU, and what captures: a step of the decoder and all that follows it is one captured CUDA graph, replayed for every token.

A small decoder's kernels end sooner than Python launches the next one; a replay launches all of them at once. A graph
reads and writes the same memory each time, so the cache, the prompts and the record lie in buffers of fixed shapes.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache, StaticLayer

from softspoken.models.families import CACHE
from softspoken.rl import numerics
from softspoken.rl.policy import Policy
from softspoken.types import Memory, Sampled

FAMILIES = ("t5", "mt5")
"""Their position bias takes the position from the cache, where it may be a tensor, and they take masks as they are given."""
WIDTH = 64
"""Prompt widths are rounded up to multiples of this, so that few graphs serve them all."""
CHECK_EVERY = 8
"""Tokens between two looks at whether every row has ended: each look waits for the GPU."""
WARM_UP = 3
"""Steps before a capture, in which libraries allocate what they keep."""
KEPT_SHARE = 8
"""One part in so many of the GPU's memory may lie in buffers and graphs between steps, about; rows are sampled in pieces that
keep within it, and beyond it the buffers unused for longest go."""
ELSEWHERE = 4 * 2**30
"""The same in bytes, where there is no GPU to ask."""


class CaptureError(RuntimeError):
    """A step could not be captured, for another reason than a lack of memory."""


def applies_to(policy: Policy) -> bool:
    return (
        policy.seq2seq.config.model_type in FAMILIES
        and bool(policy.cross_projections)  # else its keys and values cannot be known beforehand
        and policy.forced_bos_id is None
        and not len(policy.forbidden_first)  # a graph knows no first position
    )


def kept_bytes(device: torch.device) -> int:
    """How much memory may lie in buffers and graphs between steps."""
    return torch.cuda.get_device_properties(device).total_memory // KEPT_SHARE if device.type == "cuda" else ELSEWHERE


def width_of(memory: Memory) -> int:
    """Prompt tokens that a graph for these prompts has room for."""
    return wide_enough(memory.attention_mask.shape[1])


def wide_enough(tokens: int) -> int:
    """The least width of a graph in which a prompt of so many tokens has room."""
    return -(-tokens // WIDTH) * WIDTH


def row_bytes(policy: Policy, memory: Memory, limit: int) -> int:
    """Bytes a row of buffers takes, nearly: the cache of both attentions (every row has its own copy of its prompt's keys and
    values) and, in the graph's own memory, a few tensors of logits."""
    each = sum(part[0, :, 0].numel() * part.element_size() for layer in memory.cross for part in layer)
    return (width_of(memory) + limit) * each + 4 * 4 * len(policy.forbidden)


@torch.no_grad()
def sample(
    policy: Policy, memory: Memory, prompt_index: Tensor, uniforms: Tensor, temperature: float, *, capture: bool = True
) -> Sampled:
    """The same as rollout's `sample_rows`, with the adapter that trains switched on. `capture=False` runs on any device.

    Rows that have ended are decoded on, into padding, until all have. Raises CaptureError where a step cannot be captured,
    torch.OutOfMemoryError where memory runs out.
    """
    buffers = _buffers_for(policy, memory, uniforms.shape, temperature, capture)
    buffers.begin(memory, prompt_index, uniforms)
    for token in range(uniforms.shape[1]):
        if token and token % CHECK_EVERY == 0 and not buffers.running.any():
            break
        if buffers.graph is None:
            buffers.step()
        else:
            buffers.graph.replay()
    length = int(buffers.mask.any(dim=0).sum())
    ids, mask, logprobs, values = (record[:, :length].clone() for record in buffers.records)
    return ids, mask, logprobs, values


def _buffers_for(policy: Policy, memory: Memory, shape: torch.Size, temperature: float, capture: bool) -> _Buffers:
    """What the policy keeps for this bucket, or new.

    Optimizers and checkpoints change weights in place, so a graph captured once goes on sampling from the policy as it
    is now. Were a weight replaced, the graph would read the old one: then it is captured again. (The adapter's being on
    is captured too; the reference pass, which switches it off, never replays a graph.)
    """
    width = width_of(memory)
    weights = [weight.data_ptr() for weight in policy.weights]
    key = (*shape, width, temperature, capture)
    kept: dict[tuple[object, ...], _Buffers] = policy.sampling_buffers
    buffers = kept.pop(key, None)
    if buffers is None or buffers.weights != weights:
        buffers = None  # let go of before others take its place
        size = shape[0] * row_bytes(policy, memory, shape[1])
        while kept and size + sum(other.bytes for other in kept.values()) > kept_bytes(policy.device):
            del kept[next(iter(kept))]
        buffers = _Buffers(policy, memory, shape, width, temperature)
        buffers.weights, buffers.bytes = weights, size
        if capture:
            buffers.capture()
    kept[key] = buffers  # the last used comes last
    return buffers


class _Buffers:
    """The tensors that a step reads and writes, for N rows, P prompt tokens and T new tokens, and the graph of a step."""

    def __init__(self, policy: Policy, memory: Memory, shape: torch.Size, width: int, temperature: float) -> None:
        (rows, limit), device = shape, policy.device
        self.policy, self.temperature = policy, temperature
        self.graph: torch.cuda.CUDAGraph | None = None
        self.weights: list[int] = []
        self.bytes = 0
        self.uniforms = torch.zeros(shape, device=device)
        self.position = torch.zeros(1, dtype=torch.long, device=device)
        self.places = torch.arange(limit, device=device)
        self.token = torch.full((rows,), policy.start_id, device=device)
        self.running = torch.ones(rows, dtype=torch.bool, device=device)
        self.ids = torch.full((rows, limit), policy.pad_id, device=device)
        self.mask = torch.zeros((rows, limit), dtype=torch.bool, device=device)
        self.records = (self.ids, self.mask, torch.zeros_like(self.uniforms), torch.zeros_like(self.uniforms))
        # Masks are of floats, which are added, in every version and attention; a bool one is turned into one at each use,
        # with a number that comes from the CPU, and that cannot be captured.
        dtype = memory.states.dtype
        self.hidden = torch.finfo(dtype).min
        self.prompt_mask = torch.zeros((rows, 1, 1, width), dtype=dtype, device=device)
        self.unread = torch.zeros((rows, 1, memory.states.shape[-1]), dtype=dtype, device=device)
        own, cross = [], DynamicCache()
        for layer, (keys, _) in enumerate(memory.cross):
            _, heads, _, depth = keys.shape
            blank = keys.new_zeros((rows, heads, width, depth))
            cross.update(blank, blank, layer)  # copies
            static = StaticLayer(max_cache_len=limit)
            # Before it has buffers it says that it holds 0 tokens, as a number, which a capture would freeze; then as a
            # tensor. One a layer, not StaticCache: that takes its layers from num_layers, which is the encoder's.
            static.lazy_initialization(blank[:, :, :1], blank[:, :, :1])
            own.append(static)
        self.cache = EncoderDecoderCache(Cache(layers=own), cross)

    def begin(self, memory: Memory, prompt_index: Tensor, uniforms: Tensor) -> None:
        """Other prompts and uniforms, nothing generated yet. Beyond these prompts old ones are left, under the mask."""
        policy, width = self.policy, memory.attention_mask.shape[1]
        ids, mask, logprobs, values = self.records
        ids.fill_(policy.pad_id)
        for blank in (mask, logprobs, values):
            blank.zero_()
        self.token.fill_(policy.start_id)
        self.running.fill_(True)
        self.uniforms.copy_(uniforms)
        self.prompt_mask.fill_(self.hidden)
        self.prompt_mask[:, 0, 0, :width].masked_fill_(memory.attention_mask[prompt_index] > 0, 0.0)
        self._rewind()
        for mine, (keys, values) in zip(
            self.cache.cross_attention_cache.layers, policy.cross_of(memory, prompt_index), strict=True
        ):
            mine.keys[:, :, :width] = keys
            mine.values[:, :, :width] = values

    def step(self) -> None:
        """One token for every row; all on the device, in place. No torch.where with a number: that is copied from the CPU."""
        policy, at = self.policy, self.position
        seen = torch.zeros_like(self.places, dtype=self.prompt_mask.dtype).masked_fill(self.places > at, self.hidden)
        states = policy.seq2seq.get_decoder()(
            input_ids=self.token.unsqueeze(1),
            attention_mask=seen[None, None, None],  # masks of four dimensions are used as they are
            encoder_hidden_states=self.unread,  # its keys and values are in the cache, but None would skip the attention
            encoder_attention_mask=self.prompt_mask,
            use_cache=True,
            **{CACHE: self.cache},
        ).last_hidden_state[:, 0]
        logits = policy.logits(states, self.temperature)
        drawn, logprobs = numerics.sample(logits, self.uniforms.index_select(1, at).squeeze(1))
        ended = ~self.running
        self.token.copy_(drawn.masked_fill(ended, policy.pad_id))
        logprobs = logprobs.masked_fill(ended, 0.0)
        now = (self.token, self.running, logprobs, policy.values(states).masked_fill(ended, 0.0))
        for record, column in zip(self.records, now, strict=True):
            record.index_copy_(1, at, column.unsqueeze(1))
        self.running.logical_and_(~policy.ends(self.token))
        at.add_(1)

    def capture(self) -> None:
        """Record a step as a graph. What it writes is overwritten when sampling begins."""
        with beside(self.policy.device):
            for _ in range(WARM_UP):
                self._rewind()  # there may be room for one token only
                self.step()
        self.graph = captured(self.policy.device, self.step)

    def _rewind(self) -> None:
        self.position.zero_()
        for layer in self.cache.self_attention_cache.layers:
            layer.reset()


# ------------------------------------------------------------------------------------------------------ capturing


@contextlib.contextmanager
def beside(device: torch.device) -> Iterator[None]:
    """Inside, on the stream that captures, after what was asked for before; what is asked for afterwards waits for it. Nothing on a CPU."""
    if device.type != "cuda":
        yield
        return
    stream = _side_stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    try:
        with torch.cuda.stream(stream):
            yield
    finally:  # where memory ran out as well: what was asked for goes on, in buffers that are let go next
        torch.cuda.current_stream(device).wait_stream(stream)


def captured(device: torch.device, work: Callable[[], None], pool: Any = None) -> torch.cuda.CUDAGraph:
    """`work` as a graph, not run. It must have run before, `beside`. Raises CaptureError, torch.OutOfMemoryError."""
    graph = torch.cuda.CUDAGraph()
    try:
        # The outer context is left however a capture ends: `torch.cuda.graph` leaves its stream current where it fails.
        with torch.cuda.device(device), torch.cuda.stream(torch.cuda.current_stream(device)):
            # thread_local: the thread that prefetches prompts may go on meanwhile.
            mode = "thread_local"
            with torch.cuda.graph(graph, pool=pool, stream=_side_stream(device), capture_error_mode=mode):
                work()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        # Inside a capture the lack of memory comes as another class than outside (PyTorch issue 187795).
        if "out of memory" in str(error):
            raise torch.OutOfMemoryError(str(error)) from error
        raise CaptureError(str(error)) from error
    return graph


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all captures: cuBLAS keeps memory for every stream that it has worked on."""
    return torch.cuda.Stream(device)
