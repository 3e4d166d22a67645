"""Batches that cover the data, in an order the seed decides."""

import itertools
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from softspoken.data.batches import one_ahead, prompt_batches, training_order
from softspoken.data.prompts import PromptFormat
from softspoken.types import Example, InputError, PromptBatch


def some(count: int) -> list[Example]:
    return [Example(str(number), "Leon: hi" + " there" * (number * 7 % 13)) for number in range(count)]


def batches(
    tokenizer: Any, count: int, batch_size: int, steps: int, first_step: int = 0, seed: int = 0
) -> list[PromptBatch]:
    return list(
        prompt_batches(
            some(count), tokenizer, PromptFormat("{dialogue}"), batch_size=batch_size, seed=seed, first_step=first_step, steps=steps
        )
    )  # fmt: skip


def ids(batch: PromptBatch) -> list[str]:
    return [dialogue.id for dialogue in batch.examples]


def test_every_row_once_an_epoch_and_a_smaller_last_batch(tokenizer: Any) -> None:
    drawn = batches(tokenizer, count=23, batch_size=2, steps=24)  # 12 batches an epoch, one of them of 1
    for epoch in (drawn[:12], drawn[12:]):
        assert sorted(len(batch.examples) for batch in epoch) == [1] + [2] * 11
        assert sorted(row for batch in epoch for row in ids(batch)) == sorted(str(number) for number in range(23))
    assert [ids(batch) for batch in drawn[:12]] != [ids(batch) for batch in drawn[12:]]


def test_who_is_beside_whom_and_which_batch_comes_first_is_another_each_epoch_and_seed() -> None:
    """Sixty-four rows, each longer than the one before, by two: four windows of eight batches."""
    epochs = [training_order(list(range(64)), 2, seed, epoch) for seed in range(3) for epoch in range(2)]
    pairs = [{tuple(sorted(batch)) for batch in batches} for batches in epochs]
    assert all(len(one & other) < 16 for one, other in itertools.combinations(pairs, 2))
    for batches in epochs:
        starts = [batch[0] for batch in batches[:8]]
        assert starts != sorted(starts)  # as a window is, before its batches are shuffled


def test_a_batch_is_its_dialogues(tokenizer: Any) -> None:
    for batch in batches(tokenizer, count=10, batch_size=4, steps=3):
        decoded = tokenizer.batch_decode(batch.input_ids, skip_special_tokens=True)
        assert [text.strip() for text in decoded] == [dialogue.text for dialogue in batch.examples]


def test_order_depends_on_the_seed_alone(tokenizer: Any) -> None:
    torch.manual_seed(1)
    first = [ids(batch) for batch in batches(tokenizer, 23, 4, 8)]
    torch.manual_seed(2)
    assert [ids(batch) for batch in batches(tokenizer, 23, 4, 8)] == first
    assert [ids(batch) for batch in batches(tokenizer, 23, 4, 8, seed=1)] != first


@pytest.mark.parametrize("first_step", [1, 5, 6, 13])
def test_a_resumed_run_gets_the_batches_it_would_have_got(first_step: int, tokenizer: Any) -> None:
    whole = batches(tokenizer, 23, 4, 15)  # 6 batches an epoch
    resumed = batches(tokenizer, 23, 4, 15, first_step=first_step)
    assert [ids(batch) for batch in resumed] == [ids(batch) for batch in whole[first_step:]]
    assert all(torch.equal(a.input_ids, b.input_ids) for a, b in zip(resumed, whole[first_step:], strict=True))


def numbered_batch(number: int) -> PromptBatch:
    ids = torch.full((2, 3), number)
    return PromptBatch([Example(str(number), "a: b")] * 2, ids, torch.ones_like(ids), truncated=number)


def test_one_ahead_gives_the_same_batches_each_drawn_while_the_one_before_is_used() -> None:
    drawn = [threading.Event() for _ in range(4)]

    def source() -> Iterator[PromptBatch]:
        for number in range(4):
            drawn[number].set()
            yield numbered_batch(number)

    threads = {*threading.enumerate()}
    numbers = []
    for number, batch in enumerate(one_ahead(source(), torch.device("meta"))):
        numbers.append(
            (batch.examples[0].id, batch.truncated, batch.input_ids.device.type, batch.attention_mask.is_meta)
        )
        assert number == 3 or drawn[number + 1].wait(timeout=300)
        assert not any(event.is_set() for event in drawn[number + 2 :])
    assert numbers == [(str(number), number, "meta", True) for number in range(4)]
    assert {*threading.enumerate()} <= threads


def test_one_ahead_raises_where_the_batch_would_be_used_and_leaves_no_thread() -> None:
    def source() -> Iterator[PromptBatch]:
        yield numbered_batch(0)
        raise InputError("row 2 is no dialogue")

    threads = {*threading.enumerate()}
    batches = one_ahead(source(), torch.device("cpu"))
    assert next(batches).truncated == 0
    with pytest.raises(InputError, match="row 2"):
        next(batches)
    assert {*threading.enumerate()} <= threads
    batches = one_ahead(iter([numbered_batch(0), numbered_batch(1)]), torch.device("cpu"))
    next(batches)
    batches.close()
    assert {*threading.enumerate()} <= threads


def test_batches_are_of_similar_length() -> None:
    lengths = [(number * 37) % 100 for number in range(160)]
    order = training_order(lengths, batch_size=10, seed=0, epoch=0)
    spread = sum(max(lengths[row] for row in batch) - min(lengths[row] for row in batch) for batch in order) / len(
        order
    )
    assert spread < 20  # at random it is 82
    firsts = [lengths[batch[0]] for batch in order]
    assert firsts != sorted(firsts)  # but short ones do not all come first


def test_a_batch_larger_than_the_data(tokenizer: Any) -> None:
    assert len(batches(tokenizer, count=3, batch_size=3, steps=2)) == 2
    with pytest.raises(InputError, match=r"batch_size 4 is larger than the dataset \(3 texts\)"):
        batches(tokenizer, count=3, batch_size=4, steps=1)
