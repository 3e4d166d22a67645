"""Dialogues in, padded batches of similar length out, in an order that the seed decides."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import torch

from softspoken.data.prompts import PromptFormat, encode_prompts
from softspoken.types import Example, InputError, PromptBatch


def training_order(lengths: list[int], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """One pass over the data as batches of similar length, in an order that depends on `seed` and `epoch` alone.

    The rows are shuffled, cut into windows of eight batches, sorted by length inside each, and the batches shuffled. The last
    batch may be smaller.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    shuffled = torch.randperm(len(lengths), generator=generator).tolist()
    window = 8 * batch_size
    batches = []
    for start in range(0, len(shuffled), window):
        rows = sorted(shuffled[start : start + window], key=lambda row: lengths[row])
        batches += [rows[first : first + batch_size] for first in range(0, len(rows), batch_size)]
    return [batches[place] for place in torch.randperm(len(batches), generator=generator).tolist()]


def require_a_batch(examples: list[Example], batch_size: int) -> None:
    """Raises InputError where there are fewer texts than a batch holds."""
    if batch_size > len(examples):
        raise InputError(
            f"batch_size {batch_size} is larger than the dataset ({len(examples)} texts); lower it or give more data"
        )


def prompt_batches(
    examples: list[Example],
    tokenizer: Any,
    prompt_format: PromptFormat,
    *,
    batch_size: int,
    seed: int,
    first_step: int,
    steps: int,
) -> Generator[PromptBatch, None, None]:
    """Batches for the steps first_step … steps−1, pass after pass over the data; the same whether or not earlier ones were drawn."""
    require_a_batch(examples, batch_size)
    lengths = [len(example.text) for example in examples]
    per_epoch = math.ceil(len(examples) / batch_size)
    epoch, order = -1, []
    for step in range(first_step, steps):
        if step // per_epoch != epoch:
            epoch = step // per_epoch
            order = training_order(lengths, batch_size, seed, epoch)
        rows = order[step % per_epoch]
        yield encode_prompts([examples[row] for row in rows], tokenizer, prompt_format)


def fresh_examples(
    examples: list[Example], seen: list[Example], count: int, generator: torch.Generator
) -> list[Example]:
    """At most `count` of the examples, drawn by `generator`, none of them one of `seen`."""
    known = {id(example) for example in seen}  # an example's own id need not be its alone
    order = torch.randperm(len(examples), generator=generator).tolist()
    return [examples[row] for row in order if id(examples[row]) not in known][:count]


def one_ahead(batches: Iterator[PromptBatch], device: torch.device) -> Generator[PromptBatch, None, None]:
    """The same batches on `device`, each drawn by a thread of its own while the one before it is used.

    What drawing one raises comes out where that one would have. Closing this generator ends the thread.
    """

    def draw() -> PromptBatch | None:
        batch = next(batches, None)
        return None if batch is None else on_device(batch, device)

    with ThreadPoolExecutor(max_workers=1) as thread:
        coming = thread.submit(draw)
        while (batch := coming.result()) is not None:
            coming = thread.submit(draw)
            yield batch


def on_device(prompts: PromptBatch, device: torch.device) -> PromptBatch:
    return replace(prompts, input_ids=prompts.input_ids.to(device), attention_mask=prompts.attention_mask.to(device))


def padding_share(batch: PromptBatch) -> float:
    """The share of positions that are padding, in [0, 1]."""
    return 1.0 - batch.attention_mask.float().mean().item()
