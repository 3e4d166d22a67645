"""Rollouts in parts and together: each row keeps its own numbers, and padding is padding."""

from dataclasses import replace

import torch

from made_rollout import made_rollout
from softspoken.rl.joining import joined, of_prompts
from softspoken.types import Memory, Scores


def told_apart(lengths, index, width, first):
    """A rollout whose every row, prompt and key has a number of its own, from `first` on; prompts are `width` tokens wide."""
    rollout = made_rollout(lengths, index=index)
    rows, prompts = len(lengths), max(index) + 1
    number = torch.arange(prompts, dtype=torch.float) + first
    keys = number[:, None, None, None].expand(prompts, 1, width, 2)
    return replace(
        rollout,
        prompts=replace(
            rollout.prompts,
            input_ids=(number.long()[:, None]).expand(prompts, width),
            attention_mask=torch.ones((prompts, width), dtype=torch.long),
            truncated=1,
        ),
        responses=[f"{first + row}" for row in range(rows)],
        old_logprobs=-(torch.arange(rows)[:, None] + first) * rollout.response_mask.float(),
        memory=Memory(
            number[:, None, None].expand(prompts, width, 3), torch.ones((prompts, width)), [(keys, -keys)] * 2
        ),
        mismatch=first / 1000,
    ), Scores(torch.arange(rows) + float(first), {"mini": torch.arange(rows) * 2.0})


def test_some_prompts_take_their_samples_along():
    rollout, scores = of_prompts(*told_apart([1, 2, 3, 1, 2], [0, 0, 1, 2, 2], 4, 10), torch.tensor([0, 2]))
    assert [example.id for example in rollout.prompts.examples] == ["0", "2"]
    assert rollout.prompts.input_ids.tolist() == [[10] * 4, [12] * 4]
    assert rollout.prompt_index.tolist() == [0, 0, 1, 1]
    assert rollout.responses == ["10", "11", "13", "14"]
    assert rollout.old_logprobs[:, 0].tolist() == [-10, -11, -13, -14]
    assert rollout.response_mask.sum(dim=1).tolist() == [1, 2, 1, 2]
    assert rollout.memory.states[:, 0, 0].tolist() == [10, 12]
    assert [keys[:, 0, 0, 0].tolist() for keys, _ in rollout.memory.cross] == [[10, 12]] * 2
    assert scores.total.tolist() == [10, 11, 13, 14]
    assert scores.terms["mini"].tolist() == [0, 2, 6, 8]


def test_two_rollouts_are_one_and_the_narrower_is_padded():
    one, other = told_apart([1, 2], [0, 0], 2, 10), told_apart([4, 1], [0, 1], 3, 20)
    rollout, scores = joined(one, other, pad_id=7)
    assert [example.id for example in rollout.prompts.examples] == ["0", "0", "1"]
    assert rollout.prompt_index.tolist() == [0, 0, 1, 2]
    assert rollout.prompts.input_ids.tolist() == [[10, 10, 7], [20, 20, 20], [21, 21, 21]]
    assert rollout.prompts.attention_mask.tolist() == [[1, 1, 0], [1, 1, 1], [1, 1, 1]]
    assert rollout.prompts.truncated == 2
    assert rollout.responses == ["10", "11", "20", "21"]
    assert rollout.response_mask.sum(dim=1).tolist() == [1, 2, 4, 1]
    assert rollout.response_ids[1].tolist() == [10, 11, 7, 7]
    assert rollout.old_logprobs[:, 0].tolist() == [-10, -11, -20, -21]
    assert rollout.old_values.shape == rollout.ref_logprobs.shape == (4, 4)
    assert rollout.mismatch == 0.02
    assert rollout.memory.states[:, :, 0].tolist() == [[10, 10, 0], [20, 20, 20], [21, 21, 21]]
    assert rollout.memory.attention_mask.tolist() == [[1, 1, 0], [1, 1, 1], [1, 1, 1]]
    keys, values = rollout.memory.cross[1]
    assert keys[:, 0, :, 1].tolist() == [[10, 10, 0], [20, 20, 20], [21, 21, 21]]
    assert values[2, 0, 0, 0] == -21
    assert scores.total.tolist() == [10, 11, 20, 21]
    assert scores.terms["mini"].tolist() == [0, 2, 0, 2]


def test_without_a_memory_or_values_there_is_none_together():
    one, other = told_apart([1], [0], 2, 10), told_apart([1], [0], 2, 20)
    bare = (replace(one[0], memory=None, old_values=None, mismatch=None), one[1])
    rollout, _ = joined(bare, (replace(other[0], mismatch=None), other[1]), 0)
    assert (rollout.memory, rollout.old_values, rollout.mismatch) == (None, None, None)
