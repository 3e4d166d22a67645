"""Scoring and updating on a GPU: the passes over a micro-batch are captured CUDA graphs, one for each shape, replayed with other numbers.

A pass over a few rows, forward and back, is thousands of small kernels; a GPU is done with them sooner than Python launches them. So a
micro-batch is copied into buffers of fixed shapes, widths rounded up, and all of its pass is launched at once. The first passes in a
shape run as they are written and count, and warm up what a capture needs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from softspoken.config import TrainConfig
from softspoken.rl import graphs, numerics
from softspoken.rl.policy import Policy
from softspoken.types import Experience, Memory, PromptBatch, Rollout, Scores

log = logging.getLogger(__name__)
Work = Callable[[Experience, Tensor, Tensor], dict[str, Tensor]]
"""What a pass does with an experience that is buffers, the numbers of all its rows [n], and what its loss is divided by, a scalar; and
what it leaves. No shape in it, and no branch, may depend on what the buffers hold."""

TOKENS = 16
"""Widths of responses are rounded up to multiples of this; of prompts, to `graphs.WIDTH`."""
PROMPTS = 4
"""Counts of prompts to multiples of this."""
WARM_UP = 2
"""Passes in a shape before it is captured."""
MOST = 48
"""Shapes that are kept, in `graphs.kept_bytes` of buffers."""


@dataclass(frozen=True)
class Shape:
    rows: int
    prompts: int
    width: int
    """Tokens of a prompt."""
    length: int
    """Tokens of a response."""
    remembered: bool
    """Whether a memory has what was read of the prompts; else they are encoded in the pass."""


def applies_to(policy: Policy, config: TrainConfig) -> bool:
    """Whether passes may be captured: for the models whose sampling is, and where a pass is the same whatever the numbers."""
    # A graph keeps the coefficient that it was captured with.
    changing = config.kl_in == "loss" and config.kl_controller != "fixed"
    return (
        config.fast
        and policy.can_capture
        and policy.can_replay
        and not policy.recomputes
        and not policy.sharded
        and config.algorithm != "dpo"  # an empty pair has a loss
        and not changing
        and graphs.applies_to(policy)
    )


def run(
    policy: Policy,
    experience: Experience,
    rows: Tensor,
    config: TrainConfig,
    work: Work,
    most: int,
    whole: Tensor | None = None,
) -> dict[str, Tensor]:
    """What `work` leaves of `rows` [n], on the CPU, of an experience: theirs come first in every tensor that has rows, and are to be read
    before the next run. `most`: rows that there may be; `whole`: a scalar that the work is given.

    Where a pass cannot be captured it runs as it is, from then on, with one warning. Raises torch.OutOfMemoryError.
    """
    shape = shape_of(policy, experience.rollout, rows, most)
    kept: dict[Any, Pass] = policy.passes
    # What trains may lie elsewhere for the reference, whose weights are then others, or be switched off.
    key = (whole is not None, shape, policy.in_reference, _weights(policy))
    made = kept.pop(key, None)
    moved = made is not None and config.kl_in == "loss" and made.kl_coef != experience.kl_coef
    if made is None or made.config != config or moved:
        made = Pass(policy, shape, experience, config, work)
    kept[key] = made  # the last used comes last
    _keep_within(kept, graphs.kept_bytes(policy.device))
    made.fill(experience, rows, whole)
    try:
        return made.run(capture=policy.can_replay)
    except graphs.CaptureError as error:
        policy.can_replay = False
        kept.clear()
        log.warning("scoring and updates go on without captured graphs, slower: %s", str(error).splitlines()[0])
        return made.run(capture=False)


def _keep_within(kept: dict[Any, Pass], most_bytes: int) -> None:
    """Those unused for longest go, but for the last: beside a reward's model there is else no room for it."""
    while len(kept) > MOST or (len(kept) > 1 and sum(made.bytes for made in kept.values()) > most_bytes):
        del kept[next(iter(kept))]


def shape_of(policy: Policy, rollout: Rollout, rows: Tensor, most: int) -> Shape:
    index = rollout.prompt_index[rows]
    longest = int(numerics.last_true(rollout.response_mask[rows]).max()) + 1
    lengths = rollout.prompts.attention_mask.sum(dim=1)[index]
    prompts = -(-len(index.unique()) // PROMPTS) * PROMPTS
    return Shape(
        # With a budget of tokens a piece may have few rows because they are long: then not one more than it has.
        rows=len(rows) if policy.tokens_per_microbatch else most,
        prompts=prompts,
        width=graphs.wide_enough(int(lengths.max())),
        length=max(1, -(-longest // TOKENS) * TOKENS),
        remembered=rollout.memory is not None,
    )


def score(policy: Policy, rollout: Rollout, config: TrainConfig) -> tuple[Tensor, Tensor]:
    """`rollout.score_rows` of all rows of buffers: every position is computed, and none of its shapes depends on what they hold."""
    prompts, index, mask = rollout.prompts, rollout.prompt_index, rollout.response_mask
    dtype, length = policy.seq2seq.dtype, mask.shape[1]
    least = torch.finfo(dtype).min
    # Masks of four dimensions and floats are used as they are; others are looked at, and that waits for the GPU.
    hidden = torch.zeros(prompts.attention_mask.shape, dtype=dtype, device=mask.device)
    hidden = hidden.masked_fill(prompts.attention_mask == 0, least)[:, None, None]
    later = torch.ones((length, length), dtype=torch.bool, device=mask.device).triu(1)
    causal = torch.zeros((length, length), dtype=dtype, device=mask.device).masked_fill(later, least)[None, None]
    if rollout.memory is not None:
        cache = policy.new_cache(policy.cross_at(rollout.memory, slice(None), index))
        states = rollout.memory.states[index]
    else:
        cache, states = None, policy.encode(prompts.input_ids, hidden)[index]
    states = policy.decode(rollout.response_ids, states, hidden[index], cache=cache, own_mask=causal)
    ids = rollout.response_ids.flatten()
    logprobs = policy.token_logprobs(states.flatten(0, 1), ids, config.temperature, chunked=config.fast)
    blank = torch.zeros(mask.shape, device=mask.device)
    values = policy.values(states, detached=config.value_head_detached)
    return torch.where(mask, logprobs.view(mask.shape), blank), torch.where(mask, values, blank)


class Pass:
    """Buffers of a shape, the work on them, and its graph."""

    def __init__(self, policy: Policy, shape: Shape, like: Experience, config: TrainConfig, work: Work) -> None:
        self.policy, self.shape, self.config, self.kl_coef, self.work = policy, shape, config, like.kl_coef, work
        self.graph: torch.cuda.CUDAGraph | None = None
        self.left: dict[str, Tensor] = {}
        self.done = 0
        self.gradients: list[int] = []
        self.own = _blank(policy, shape, like)
        self.rows = torch.arange(shape.rows, device=policy.device)
        self.whole = torch.ones((), device=policy.device)
        memory = self.own.rollout.memory
        largest = [memory.states, *chain.from_iterable(memory.cross)] if memory else []
        self.bytes = sum(part.numel() * part.element_size() for part in [*_of_rows(self.own), *largest])

    def fill(self, experience: Experience, rows: Tensor, whole: Tensor | None) -> None:
        """The numbers of these rows, and 0 in the buffers' other rows and positions."""
        given, own = experience.rollout, self.own.rollout
        prompts, place = given.prompt_index[rows].unique(return_inverse=True)
        for mine, theirs in zip(_of_rows(self.own), _of_rows(experience), strict=True):
            length = min(mine.shape[1], theirs.shape[1])
            _copy(mine, theirs[rows, :length])
        _copy(own.prompt_index, place)
        width = min(self.shape.width, given.prompts.input_ids.shape[1])
        _copy(own.prompts.input_ids, given.prompts.input_ids[prompts, :width])
        _copy(own.prompts.attention_mask, given.prompts.attention_mask[prompts, :width])
        if own.memory is not None and given.memory is not None:
            prompts = prompts - (given.own.start if given.own else 0)
            _copy(own.memory.states, given.memory.states[prompts, :width])
            for pair, theirs_pair in zip(own.memory.cross, given.memory.cross, strict=True):
                for part, their_part in zip(pair, theirs_pair, strict=True):
                    # Under the mask what lay there before does no harm.
                    part[: len(prompts), :, :width] = their_part[prompts, :, :width]
        if whole is not None:
            self.whole.copy_(whole)

    def run(self, *, capture: bool) -> dict[str, Tensor]:
        """The work on what the buffers hold. Gradients are added to those that there are; a graph knows them by their place."""
        if self.gradients != _gradients(self.policy):
            self.graph = None
        elif self.graph is None and capture and self.done >= WARM_UP:
            self.graph = graphs.captured(self.policy.device, self._leave, _pool(self.policy))
        if self.graph is not None:
            self.graph.replay()
            return self.left
        with graphs.beside(self.policy.device):
            self._leave()
        self.done, self.gradients = self.done + 1, _gradients(self.policy)
        return self.left

    def _leave(self) -> None:
        self.left = self.work(self.own, self.rows, self.whole)


def _copy(mine: Tensor, theirs: Tensor) -> None:
    mine.zero_()
    mine[tuple(slice(size) for size in theirs.shape)] = theirs


def _pool(policy: Policy) -> Any:
    """Graphs of passes never run at once, so the memory of one is that of all."""
    graph = next((made.graph for made in policy.passes.values() if made.graph is not None), None)
    return None if graph is None else graph.pool()


def _gradients(policy: Policy) -> list[int]:
    return [weight.grad.data_ptr() for weight in policy.weights if weight.grad is not None]


def _weights(policy: Policy) -> int:
    """Where a graph finds them."""
    return hash(tuple(weight.data_ptr() for weight in policy.weights))


def _blank(policy: Policy, shape: Shape, like: Experience) -> Experience:
    device, given = policy.device, like.rollout

    def of_rows(dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros((shape.rows, shape.length), dtype=dtype, device=device)

    prompts = torch.zeros((2, shape.prompts, shape.width), dtype=torch.long, device=device)
    memory = None
    if given.memory is not None:
        states = given.memory.states
        cross = [(_room(keys, shape), _room(values, shape)) for keys, values in given.memory.cross]
        memory = Memory(states.new_zeros((shape.prompts, shape.width, states.shape[-1])), prompts[1], cross)
    rollout = Rollout(
        prompts=PromptBatch([], prompts[0], prompts[1]),
        prompt_index=torch.zeros(shape.rows, dtype=torch.long, device=device),
        responses=[],
        response_ids=of_rows(torch.long),
        response_mask=of_rows(torch.bool),
        truncated=torch.zeros(shape.rows, dtype=torch.bool, device=device),
        old_logprobs=of_rows(),
        ref_logprobs=of_rows(),
        old_values=None if given.old_values is None else of_rows(),
        memory=memory,
        fixed=True,
    )
    returns = None if like.returns is None else of_rows()
    return replace(
        like, rollout=rollout, scores=Scores(of_rows()[:, 0], {}), kl=of_rows(), advantages=of_rows(), returns=returns
    )


def _room(part: Tensor, shape: Shape) -> Tensor:
    _, heads, _, depth = part.shape
    return part.new_zeros((shape.prompts, heads, shape.width, depth))


def _of_rows(experience: Experience) -> list[Tensor]:
    """What has a row for each response and a column for each of its tokens."""
    rollout = experience.rollout
    each = [rollout.response_ids, rollout.response_mask, rollout.old_logprobs, rollout.ref_logprobs, rollout.old_values]
    return [part for part in (*each, experience.kl, experience.advantages, experience.returns) if part is not None]
