"""What is remembered of responses, and how long."""

from types import SimpleNamespace

import pytest
import torch

from softspoken.trl import record
from softspoken.trl.record import Record, Scored, Special, weights_version

START, EOS, PAD = 2, 1, 0


def model(generation=None, **config):
    blank = {"decoder_start_token_id": None, "eos_token_id": None, "pad_token_id": None}
    return SimpleNamespace(
        generation_config=SimpleNamespace(**(blank | (generation or {}))), config=SimpleNamespace(**(blank | config))
    )


IDS = {"decoder_start_token_id": START, "eos_token_id": EOS, "pad_token_id": PAD}


def test_the_ids_that_frame_a_response_are_the_generations_or_else_the_models():
    other = {"decoder_start_token_id": 7, "eos_token_id": 8, "pad_token_id": 9}
    assert Special.of(model(IDS, **other)) == Special(2, 1, 0)
    assert Special.of(model(**other)) == Special(7, 8, 9)
    assert Special.of(model({**IDS, "eos_token_id": [5, 6]})).eos == 5
    assert Special.of(model(dict.fromkeys(IDS, 0), **other)) == Special(0, 0, 0)


@pytest.mark.parametrize(
    ("ids", "content"),
    [
        ([2, 6, 7, 1, 0, 0], (6, 7, 1)),
        ([0, 0, 2, 6, 1, 7], (6, 1)),  # padding on the left, text after the end
        ([6, 7, 0], (6, 7)),
        ([2, 0, 6], (0, 6)),
        ([1, 6], (1,)),
        ([0, 0], ()),
        ([2], ()),
        ([2, 0], ()),
        ([], ()),
    ],
)
def test_a_response_is_what_the_decoder_put_out_through_its_first_end(ids, content):
    assert Special(START, EOS, PAD).content(ids) == content


def test_padding_that_is_the_end_as_well_is_an_end():
    assert Special(START, EOS, EOS).content([1, 6]) == (1,)
    assert Special(0, 5, 0).content([0, 0, 6]) == (6,)  # T5's start token is its padding
    assert Special(0, 5, 0).content([0, 0]) == ()


def drawn(*rows, generation=None, **settings):
    found = Record()
    found.add(model({**IDS, **(generation or {})}), torch.tensor(rows), settings)
    return found


def test_settings_are_remembered_by_what_was_drawn():
    assert drawn([2, 6, 1, 0], [2, 7, 8, 1], top_k=3).settings == {(6, 1): {"top_k": 3}, (7, 8, 1): {"top_k": 3}}


@pytest.mark.parametrize("how", ["call", "call's generation_config", "model"])
def test_a_first_token_that_was_forced_is_remembered_by_its_place(how):
    forced = {"forced_bos_token_id": 7}
    given = {
        "call": {"settings": forced},
        "call's generation_config": {"settings": {"generation_config": SimpleNamespace(**forced)}},
        "model": {"generation": forced},
    }[how]
    found = drawn([2, 7, 6, 1], [2, 6, 7, 1], generation=given.get("generation"), **given.get("settings", {}))
    assert found.forced == {(7, 6, 1): [0]}
    assert found.forced_places((7, 6, 1)) == [0]
    assert found.forced_places((7,)) == [0]  # a beginning of what was drawn
    assert found.forced_places((6, 7)) == []
    assert found.forced_places(()) == []


@pytest.mark.parametrize("limit", [{"max_new_tokens": 3}, {"max_length": 4}])
def test_an_end_that_was_forced_at_the_limit_is_remembered_by_its_place(limit):
    found = drawn([2, 6, 7, 1], [2, 6, 1, 0], [2, 6, 7, 8], forced_eos_token_id=1, **limit)
    assert found.forced == {(6, 7, 1): [2]}
    assert found.forced_places((6, 7)) == []
    both = drawn([2, 7, 6, 1], forced_bos_token_id=7, forced_eos_token_id=1, **limit)
    assert both.forced == {(7, 6, 1): [0, 2]}


def test_transformers_own_limit_is_twenty_with_the_start_token():
    long = [2, *[6] * 18, 1]
    assert drawn(long, forced_eos_token_id=1).forced == {tuple(long[1:]): [18]}
    assert drawn([*long[:-1], 6, 1], forced_eos_token_id=1).forced == {}


def test_what_comes_out_again_unforced_is_forced_no_more():
    found = drawn([2, 7, 1], forced_bos_token_id=7)
    found.put((7, 1), {})
    assert (found.forced, found.settings) == ({}, {(7, 1): {}})


def scored(*values, weights=4):
    return Scored(torch.tensor(values), torch.tensor(values) * 10, weights)


def test_what_was_recorded_is_recalled_for_these_weights_alone():
    found = Record()
    found.put((6, 1), {}, (5,), scored(-0.5, -1.0))
    found.put((7,), {}, (5,), scored(-2.0))
    found.put((8,), {}, (5,))
    blank = torch.zeros(2, 3)
    logprobs, values = found.recall([((5,), (7,)), ((5,), (6, 1))], 4, blank)
    assert logprobs.tolist() == [[-2.0, 0.0, 0.0], [-0.5, -1.0, 0.0]]
    assert values.tolist() == [[-20.0, 0.0, 0.0], [-5.0, -10.0, 0.0]]
    assert not blank.any()
    assert found.recall([((5,), (7,)), ((5,), (6, 1))], 5, blank) is None
    for other in ((5,), (8,)), ((6,), (7,)):  # not scored; to another query
        assert found.recall([((5,), (7,)), other], 4, blank) is None
    found.clear()
    assert (found.settings, found.scored) == ({}, {})


def test_the_oldest_are_forgotten(monkeypatch):
    monkeypatch.setattr(record, "KEPT", 2)
    found = Record()
    for each in range(4):
        found.put((each,), {}, (5,), scored(-1.0))
        found.forced[each,] = [0]
    assert list(found.settings) == [(2,), (3,)]
    assert list(found.scored) == [((5,), (2,)), ((5,), (3,))]
    found.put((4,), {})
    assert list(found.forced) == [(2,), (3,)]


def test_clearing_forgets_what_was_forced_too():
    found = drawn([2, 7, 1], forced_bos_token_id=7)
    found.clear()
    assert found.forced == {}


def test_the_weights_version_moves_with_any_of_them():
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    before = weights_version(weights)
    with torch.no_grad():
        weights[1].add_(1)
    assert weights_version(weights) == before + 1
