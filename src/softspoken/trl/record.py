"""What was generated: so that `step` knows a response again, need not score it anew, and can say that it was tampered with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Ids = tuple[int, ...]
KEPT = 20_000
"""Responses; older ones are forgotten, for those who generate and never step."""


@dataclass(frozen=True)
class Special:
    """The ids that frame a response."""

    start: int
    eos: int
    pad: int

    @classmethod
    def of(cls, model: Any) -> Special:
        generation, config = model.generation_config, model.config
        start = generation.decoder_start_token_id
        eos = generation.eos_token_id if generation.eos_token_id is not None else config.eos_token_id
        pad = generation.pad_token_id if generation.pad_token_id is not None else config.pad_token_id
        start = start if start is not None else config.decoder_start_token_id
        return cls(start, eos[0] if isinstance(eos, list) else eos, pad)

    def span(self, ids: list[int]) -> tuple[int, int]:
        """From where to where a response is what the decoder put out: no start token, no padding, nothing after the first EOS."""
        begin, end = 0, len(ids)
        while begin < end and ids[begin] == self.pad != self.eos:
            begin += 1
        if begin < end and ids[begin] == self.start:
            begin += 1
        for place in range(begin, end):
            if ids[place] == self.eos:
                return begin, place + 1
        while end > begin and ids[end - 1] == self.pad:
            end -= 1
        return begin, end

    def content(self, ids: list[int]) -> Ids:
        begin, end = self.span(ids)
        return tuple(ids[begin:end])


@dataclass(frozen=True)
class Scored:
    """What softspoken's own sampling loop recorded of a response."""

    logprobs: Tensor
    """[T] float32"""
    values: Tensor
    """[T] float32"""
    weights: int
    """weights_version of the policy that sampled it."""


class Record:
    """Responses by their content, as Special.content gives it."""

    def __init__(self) -> None:
        self.settings: dict[Ids, dict[str, Any]] = {}
        """With which generation settings each was drawn."""
        self.scored: dict[tuple[Ids, Ids], Scored] = {}
        """By query and response."""
        self.forced: dict[Ids, list[int]] = {}
        """Where generate was told what to put out; of those responses alone in which there is such a place."""

    def add(self, model: Any, sequences: Tensor, settings: dict[str, Any]) -> None:
        """Whole sequences [N, 1 + T] of transformers' generate, with start token and padding."""
        special = Special.of(model)
        first, last = (_setting(model, settings, f"forced_{end}_token_id") for end in ("bos", "eos"))
        final = _limit(model, settings) - 1
        for ids in sequences.tolist():
            content = special.content(ids)
            self.put(content, settings)
            places = [0] if first is not None and content[:1] == (first,) else []
            if last is not None and content[final:] == (last,):
                places.append(final)
            if places:
                self.forced[content] = places

    def put(self, content: Ids, settings: dict[str, Any], query: Ids = (), scored: Scored | None = None) -> None:
        self.settings[content] = settings
        self.forced.pop(content, None)
        if scored is not None:
            self.scored[query, content] = scored
        kept: Any
        for kept in (self.settings, self.scored, self.forced):
            if len(kept) > KEPT:
                del kept[next(iter(kept))]

    def forced_places(self, content: Ids) -> list[int]:
        """Of a response, or of the beginning of one."""
        for whole, places in self.forced.items():
            if whole[: len(content)] == content:
                return [place for place in places if place < len(content)]
        return []

    def recall(self, keys: list[tuple[Ids, Ids]], weights: int, blank: Tensor) -> tuple[Tensor, Tensor] | None:
        """(log-probabilities, values), each like `blank` [N, T]; None unless all were drawn by the weights of that version."""
        logprobs, values = blank.clone(), blank.clone()
        for row, key in enumerate(keys):
            found = self.scored.get(key)
            if found is None or found.weights != weights:
                return None
            logprobs[row, : len(found.logprobs)] = found.logprobs
            values[row, : len(found.values)] = found.values
        return logprobs, values

    def clear(self) -> None:
        self.settings.clear()
        self.scored.clear()
        self.forced.clear()


def _setting(model: Any, given: dict[str, Any], name: str) -> Any:
    """As generate looks for it: in the call, in the generation_config that it was given, in the model's own."""
    places = (
        given.get(name),
        getattr(given.get("generation_config"), name, None),
        getattr(model.generation_config, name, None),
    )
    return next((place for place in places if place is not None), None)


def _limit(model: Any, given: dict[str, Any]) -> int:
    """New tokens at most; transformers' own limit is 20 with the start token."""
    new = _setting(model, given, "max_new_tokens")
    return int(new) if new is not None else int(_setting(model, given, "max_length") or 20) - 1


def weights_version(parameters: list[torch.nn.Parameter]) -> int:
    """A number that is another one after any of them was written to: by an optimizer, or by load_state_dict."""
    return sum(weight._version for weight in parameters)
