"""What rows that are being decoded read of their prompts. The samples of one prompt read one copy of it.

In the cross-attention they stand as the positions of one query, [prompts, samples, D], where everywhere else they are rows of one
position, [N, 1, D]: a step over a long prompt takes as long as memory takes to hand its keys and values over, so several
samples cost little more than one.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from softspoken.rl.policy import Policy
from softspoken.types import Memory


class Reading:
    """Encoder states, mask and cache of N rows, for `Policy.decode_step`; inside `with`, where rows are to share a prompt.

    `together`: rows of one prompt share its copy, with the keys and values that the memory has of it; else each has its
    own, and the model computes keys and values itself.
    """

    def __init__(self, policy: Policy, memory: Memory, prompt_index: Tensor, *, together: bool) -> None:
        prompts, self.place = prompt_index, torch.arange(len(prompt_index), device=prompt_index.device)
        distinct, place = prompt_index.unique(return_inverse=True)
        if together and memory.cross and len(distinct) < len(prompt_index):
            prompts, self.place = distinct, place
        self.states, self.mask = memory.states[prompts], memory.attention_mask[prompts]
        self.cache = policy.new_cache(policy.cross_of(memory, prompts) if together else ())
        self._attentions = policy.cross_attention if len(prompts) < len(prompt_index) else []
        self._hooks: list[Any] = []
        self._seat_rows()

    def keep(self, rows: Tensor) -> None:
        """From now on only these rows [n] int64 are decoded."""
        self.cache.self_attention_cache.batch_select_indices(rows)
        prompts, self.place = self.place[rows].unique(return_inverse=True)
        if len(prompts) < len(self.states):
            self.cache.cross_attention_cache.batch_select_indices(prompts)
            self.states, self.mask = self.states[prompts], self.mask[prompts]
        self._seat_rows()

    def _seat_rows(self) -> None:
        """Each row's seat: its prompt's number times the most samples of a prompt, plus its number among those."""
        counts = self.place.bincount()
        order = self.place.argsort(stable=True)
        number = torch.empty_like(order)
        number[order] = torch.arange(len(order), device=order.device) - (counts.cumsum(0) - counts)[self.place[order]]
        self._samples = int(counts.max())
        self._seats = self.place * self._samples + number

    def __enter__(self) -> Reading:
        for attention in self._attentions:
            self._hooks += [
                attention.register_forward_pre_hook(self._side_by_side, with_kwargs=True),
                attention.register_forward_hook(self._apart_again),
            ]
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def _side_by_side(self, _: Any, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
        rows = given[0] if given else named["hidden_states"]
        seats = rows.new_zeros((len(self.states) * self._samples, rows.shape[-1]))
        seats = seats.index_copy(0, self._seats, rows[:, 0]).unflatten(0, (-1, self._samples))
        for name in ("mask", "attention_mask"):  # [prompts, 1, 1, P]; LED and MVP insist on a row for each position
            if isinstance(mask := named.get(name), Tensor) and mask.ndim == 4:
                named = {**named, name: mask.expand(-1, -1, self._samples, -1)}
        return ((seats, *given[1:]), named) if given else (given, {**named, "hidden_states": seats})

    def _apart_again(self, _: Any, given: Any, found: tuple[Any, ...]) -> tuple[Any, ...]:
        return (found[0].flatten(0, 1)[self._seats].unsqueeze(1), *found[1:])
