"""Queries and responses as they are handed over → what is read, scored and trained, id by id."""

from types import SimpleNamespace

import pytest
import torch

from softspoken.trl.align import (
    model_inputs,
    read_queries,
    read_responses,
    retokenized,
    with_something_to_train,
)
from softspoken.trl.config import PPOConfig
from softspoken.trl.record import Special
from softspoken.types import InputError, RunError

START, EOS, PAD, UNUSED = 2, 1, 0, 9


def policy(**changes) -> SimpleNamespace:
    forbidden = torch.zeros(10, dtype=torch.bool)
    forbidden[[PAD, UNUSED]] = True
    plain = {"start_id": START, "eos_id": EOS, "pad_id": PAD, "forced_bos_id": None, "forbidden": forbidden}
    return SimpleNamespace(device=torch.device("cpu"), **(plain | changes))


def config(**changes) -> PPOConfig:
    return PPOConfig(batch_size=4, mini_batch_size=2, **changes)


def tensors(*rows):
    return [torch.tensor(row, dtype=torch.long) for row in rows]


def read(*responses, masks=None, drawn=None, policy=policy(), **changes):  # noqa: B008
    given = None if masks is None else tensors(*masks)
    special = Special(policy.start_id, policy.eos_id, policy.pad_id)
    return read_responses(tensors(*responses), given, policy, special, config(**changes), drawn)


def test_queries_lose_their_padding_and_each_is_read_once():
    found = read_queries(tensors([0, 0, 5, 6, 1, 0], [[7, 1]], [5, 6, 1]), policy(), config())
    assert found.queries == [(5, 6, 1), (7, 1), (5, 6, 1)]
    assert found.input_ids.tolist() == [[5, 6, 1], [7, 1, 0]]
    assert found.attention_mask.tolist() == [[1, 1, 1], [1, 1, 0]]
    assert found.index.tolist() == [0, 1, 0]
    assert read_queries(tensors([0, 5, 0]), policy(), config(strip_query_padding=False)).queries == [(0, 5, 0)]


def test_of_padding_that_is_the_querys_end_as_well_one_stays():
    found = read_queries(tensors([1, 1, 5, 1, 1], [5, 6], [1, 5]), policy(pad_id=EOS), config())
    assert found.queries == [(5, 1), (5, 6), (5,)]


@pytest.mark.parametrize("empty", [[], [0, 0]])
def test_a_query_of_nothing_but_padding_is_refused(empty):
    with pytest.raises(InputError, match="query 1 is empty; leave it out of the batch"):
        read_queries(tensors([5, 1], empty), policy(), config())


def test_responses_are_read_from_after_the_start_token_through_the_first_end():
    found = read([2, 6, 7, 1, 0, 0], [6, 7, 1, 8], [[0, 2, 9, 8]], [])
    assert found.contents == [(6, 7, 1), (6, 7, 1), (9, 8), ()]
    assert found.first.tolist() == [2, 2, 2, 2]
    assert found.ids.tolist() == [[6, 7, 1], [6, 7, 1], [9, 8, 0], [0, 0, 0]]
    assert found.reads.tolist() == [[2, 6, 7], [2, 6, 7], [2, 9, 8], [2, 0, 0]]
    # 9 is an id that no token has
    assert found.scored.tolist() == [[True] * 3, [True] * 3, [False, True, False], [False] * 3]
    assert torch.equal(found.trained, found.scored)
    assert read().ids.shape == (0, 0)
    every = read([2, 6, 7, 1], [2, 6, 1], policy=policy(forbidden=torch.zeros(10, dtype=torch.bool)))
    assert every.scored.tolist() == [[True] * 3, [True, True, False]]
    assert found.rows == [0, 1, 2, 3]


def test_left_as_they_are_the_first_id_is_what_the_decoder_reads_first():
    found = read([6, 7, 1, 8], [5], [], align_responses=False, policy=policy(forced_bos_id=7))
    assert found.contents == [(7, 1, 8), (), ()]
    assert found.first.tolist() == [6, 5, 2]
    assert found.scored.tolist() == [[True] * 3, [False] * 3, [False] * 3]


def test_the_users_mask_is_for_each_token_or_in_trls_count_without_the_first_two():
    found = read([2, 6, 7, 8, 1], [2, 6, 7, 8, 1], masks=[[0, 1, 0, 1, 1], [1, 0, 5]])
    assert found.trained.tolist() == [[True, False, True, True], [False, True, False, True]]
    assert found.scored.all()
    assert read([6, 7, 8, 1], masks=[[1, 1]]).trained.tolist() == [[False, False, True, True]]
    with pytest.raises(InputError, match="response mask 0 has 4 entries and its response 5 tokens; give one entry"):
        read([2, 6, 7, 8, 1], masks=[[1, 1, 1, 1]])


def test_what_was_forced_is_neither_scored_nor_trained():
    forcing = policy(forced_bos_id=7)
    assert read([2, 7, 7, 1], [2, 6, 7, 1], policy=forcing).scored.tolist() == [[False, True, True], [True] * 3]
    assert read([2], policy=forcing).scored.shape == (1, 0)
    drawn = SimpleNamespace(forced_places=lambda content: [0, 2] if content[0] == 6 else [])
    assert read([2, 6, 7, 1], [2, 7, 6, 1], drawn=drawn).trained.tolist() == [[False, True, False], [True] * 3]


def test_the_first_token_may_be_left_out_of_the_update():
    found = read([2, 6, 7, 1], [2, 6, 1], train_first_token=False)
    assert found.trained.tolist() == [[False, True, True], [False, True, False]]
    assert found.scored[:, 0].all()


def test_responses_with_nothing_to_train_are_left_out_row_by_row():
    prompts = read_queries(tensors([5, 1], [6, 1], [7, 1]), policy(), config())
    some, few = with_something_to_train(prompts, read([2, 5, 1], [2], [2, 6, 7, 1]))
    assert (few.rows, few.contents) == ([0, 2], [(5, 1), (6, 7, 1)])
    assert few.ids.tolist() == [[5, 1, 0], [6, 7, 1]]
    assert few.trained.tolist() == few.scored.tolist() == [[True, True, False], [True] * 3]
    assert (some.queries, some.index.tolist()) == ([(5, 1), (7, 1)], [0, 2])
    assert few.first.tolist() == [2, 2]
    with pytest.raises(RunError, match="all 2 responses of this step are empty"):
        with_something_to_train(prompts, read([2], [9]))


def test_the_models_inputs_begin_with_the_start_token():
    prompts = read_queries(tensors([5, 1], [6, 6, 1], [5, 1]), policy(), config())
    found = model_inputs(prompts, read([2, 5, 1], [2], [2, 6, 7, 1]))
    assert {name: rows.tolist() for name, rows in found.items()} == {
        "input_ids": [[5, 1, 0], [6, 6, 1], [5, 1, 0]],
        "attention_mask": [[1, 1, 0], [1, 1, 1], [1, 1, 0]],
        "decoder_input_ids": [[2, 5, 1, 0], [2, 0, 0, 0], [2, 6, 7, 1]],
        "decoder_attention_mask": [[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1]],
    }


class Words:
    """A tokenizer of numbers, 5 to 8, with its end; 8 is a special token."""

    def decode(self, ids, *, skip_special_tokens):
        return " ".join(str(each) for each in ids if each > 2 and not (each == 8 and skip_special_tokens))

    def __call__(self, text, add_special_tokens=True):
        return SimpleNamespace(input_ids=[int(word) for word in text.split()] + [EOS] * add_special_tokens)


def again(responses, contents, settings=()):
    record = SimpleNamespace(settings=dict.fromkeys(settings))
    return retokenized(contents, tensors(*responses), record, Words(), Special(START, EOS, PAD))


def test_with_a_record_what_was_not_drawn_is_counted_but_not_the_beginning_of_what_was():
    drawn = [(6, 7, 1), (5, 5)]
    assert again([[]] * 5, [(6, 7, 1), (6, 7), (5, 1), (7,), (6, 7, 1, 5)], drawn) == 3


def test_without_one_the_tokenizers_own_ids_without_a_start_token_give_it_away():
    assert again([[6, 7, 1], [6, 7]], [(6, 7, 1), (6, 7)]) == 2
    assert again([[2, 6, 7, 1]], [(6, 7, 1)]) == 0  # it has its start token
    assert again([[6], [], [6, 8, 1]], [(6,), (), (6, 8, 1)]) == 0  # too little to tell; and no text gives 8
