"""Queries and responses as notebooks hand them over → what the decoder reads, what is scored, and what is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from softspoken.rl.policy import Policy
from softspoken.trl.config import PPOConfig
from softspoken.trl.record import Ids, Record, Special
from softspoken.types import InputError, RunError


@dataclass(frozen=True)
class Prompts:
    """N queries, each of which occurs once in `input_ids`, however often it is asked."""

    queries: list[Ids]
    """N of them, without padding."""
    input_ids: Tensor
    """[B, P] int64, padded on the right."""
    attention_mask: Tensor
    """[B, P] int64, 1 for a token, 0 for padding."""
    index: Tensor
    """[N] int64: which row of input_ids a query is."""


@dataclass(frozen=True)
class Responses:
    """N responses of at most T tokens after the first that the decoder reads."""

    first: Tensor
    """[N] int64: what the decoder reads first, its start token."""
    ids: Tensor
    """[N, T] int64: what it put out, padded on the right."""
    scored: Tensor
    """[N, T] bool: tokens that have a log-probability."""
    trained: Tensor
    """[N, T] bool: those of them that are part of the update."""
    contents: list[Ids]
    rows: list[int]
    """Which of the responses that were handed over these are."""

    @property
    def reads(self) -> Tensor:
        """[N, T] int64: the decoder's input, which `ids` is the output for."""
        return torch.cat([self.first.unsqueeze(1), self.ids[:, :-1]], dim=1)


def read_queries(queries: list[Tensor], policy: Policy, config: PPOConfig) -> Prompts:
    rows = [query.reshape(-1).tolist() for query in queries]
    if config.strip_query_padding:
        rows = [_strip(row, policy.pad_id, keep_one=policy.pad_id == policy.eos_id) for row in rows]
    for number, row in enumerate(rows):
        if not row:
            raise InputError(f"query {number} is empty; leave it out of the batch")
    distinct = list(dict.fromkeys(tuple(row) for row in rows))
    place = {query: number for number, query in enumerate(distinct)}
    return Prompts(
        queries=[tuple(row) for row in rows],
        input_ids=_pad(distinct, policy.pad_id, policy.device),
        attention_mask=_pad([(1,) * len(row) for row in distinct], 0, policy.device),
        index=torch.tensor([place[tuple(row)] for row in rows], device=policy.device),
    )


def read_responses(
    responses: list[Tensor],
    masks: list[Tensor] | None,
    policy: Policy,
    special: Special,
    config: PPOConfig,
    drawn: Record | None = None,
) -> Responses:
    """`drawn` knows which tokens generate was told to put out: those were no choice."""
    firsts, contents, chosen = [], [], []
    for number, response in enumerate(responses):
        given = response.reshape(-1).tolist()
        begin, end = special.span(given) if config.align_responses else (min(1, len(given)), len(given))
        firsts.append(policy.start_id if config.align_responses or not given else given[0])
        contents.append(tuple(given[begin:end]))
        chosen.append(_chosen(None if masks is None else masks[number], number, len(given), begin, end))
    ids = _pad(contents, policy.pad_id, policy.device)
    inside = _pad([(1,) * len(content) for content in contents], 0, policy.device).bool()
    # An id that cannot be drawn has no log-probability; one that was forced (BART's first) was no choice.
    scored = inside & ~policy.forbidden[ids]
    if policy.forced_bos_id is not None and config.align_responses and ids.shape[1]:
        scored[:, 0] &= ids[:, 0] != policy.forced_bos_id
    for row, content in enumerate(contents):
        for place in drawn.forced_places(content) if drawn else ():
            scored[row, place] = False
    trained = scored & _pad(chosen, 0, policy.device).bool()
    if not config.train_first_token:
        trained[:, :1] = False
    return Responses(
        first=torch.tensor(firsts, device=policy.device),
        ids=ids,
        scored=scored,
        trained=trained,
        contents=contents,
        rows=list(range(len(responses))),
    )


def select(prompts: Prompts, batch: Responses, rows: Tensor) -> tuple[Prompts, Responses]:
    """Some rows of both; all the encoder's input stays."""
    some = Prompts(
        [prompts.queries[row] for row in rows.tolist()], prompts.input_ids, prompts.attention_mask, prompts.index[rows]
    )
    few = Responses(
        first=batch.first[rows],
        ids=batch.ids[rows],
        scored=batch.scored[rows],
        trained=batch.trained[rows],
        contents=[batch.contents[row] for row in rows.tolist()],
        rows=[batch.rows[row] for row in rows.tolist()],
    )
    return some, few


def model_inputs(prompts: Prompts, batch: Responses) -> dict[str, Tensor]:
    """As the model's forward takes them: one row of each for a response; the decoder's begin with its start token."""
    read = torch.cat([batch.first.unsqueeze(1), batch.ids], dim=1)
    lengths = torch.tensor([[1 + len(content)] for content in batch.contents], device=read.device)
    return {
        "input_ids": prompts.input_ids[prompts.index],
        "attention_mask": prompts.attention_mask[prompts.index],
        "decoder_input_ids": read,
        "decoder_attention_mask": (torch.arange(read.shape[1], device=read.device) < lengths).long(),
    }


def with_something_to_train(prompts: Prompts, batch: Responses) -> tuple[Prompts, Responses]:
    """Without the responses that have no token in the update: an empty one, above all."""
    rows = batch.trained.any(dim=1).nonzero().squeeze(1)
    if not len(rows):
        raise RunError(
            f"all {len(batch.rows)} responses of this step are empty, so there is nothing to learn from; look at the policy's "
            "samples and at the scores that made them so"
        )
    return select(prompts, batch, rows)


def retokenized(contents: list[Ids], responses: list[Tensor], record: Record, tokenizer: Any, special: Special) -> int:
    """How many responses are not the tokens that were drawn, as happens when the text is decoded and tokenized again.

    Where nothing that was drawn is on record, those count that lack the start token and are what the tokenizer makes of
    their text.
    """
    if record.settings:
        drawn = set(record.settings)
        return sum(not _is_part(content, drawn) for content in contents)
    count = 0
    for content, response in zip(contents, responses, strict=True):
        ids = response.reshape(-1).tolist()
        if ids and ids[0] != special.start and len(content) > 1:
            text = tokenizer.decode(list(content), skip_special_tokens=True)
            count += list(content) in (tokenizer(text).input_ids, tokenizer(text, add_special_tokens=False).input_ids)
    return count


def _is_part(content: Ids, known: set[Ids]) -> bool:
    """Whether it was drawn, or is the beginning of what was; an EOS that was not drawn is no part of it."""
    return content in known or any(drawn[: len(content)] == content for drawn in known)


def _strip(ids: list[int], pad: int, *, keep_one: bool) -> list[int]:
    """Without padding; where that is the query's own end as well, one of it stays at the right."""
    begin, end = 0, len(ids)
    while begin < end and ids[begin] == pad:
        begin += 1
    while end > begin and ids[end - 1] == pad:
        end -= 1
    return ids[begin : end + (keep_one and end < len(ids))]


def _chosen(mask: Tensor | None, number: int, length: int, begin: int, end: int) -> Ids:
    """The user's mask for the tokens from `begin` to `end` of a response of `length`; all of them where there is none."""
    if mask is None:
        return (1,) * (end - begin)
    given = [int(bool(value)) for value in mask.reshape(-1).tolist()]
    if len(given) == length:
        return tuple(given[begin:end])
    if len(given) == length - 2:  # what TRL took for encoder–decoders: without the start token and the first after it
        given = [0, 0, *given]
        return tuple(given[begin:end])
    raise InputError(
        f"response mask {number} has {len(given)} entries and its response {length} tokens; give one entry for each token"
    )


def _pad(rows: list[Ids], filler: int, device: torch.device) -> Tensor:
    width = max((len(row) for row in rows), default=0)
    padded = [list(row) + [filler] * (width - len(row)) for row in rows]
    return torch.tensor(padded, dtype=torch.long, device=device).reshape(len(rows), width)
