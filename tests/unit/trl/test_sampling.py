"""What TRL's generation settings come down to: which are neutral, what softspoken's own loop can do, what the others cost."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import tensor

from softspoken.trl.align import Prompts
from softspoken.trl.record import Record
from softspoken.trl.sampling import (
    DEFAULTS,
    NEUTRAL,
    NO_MATTER,
    biases,
    distance,
    max_new_tokens,
    own_loop_can,
    resolve_settings,
    respond,
    transformers_settings,
)

EVERY = 24
"""Tokens of the vocabulary."""
START, EOS, PAD = 2, 1, 0


def generation(**settings):
    """A generation config, as it tells what differs from its defaults."""
    ids = {"decoder_start_token_id": START, "eos_token_id": EOS, "pad_token_id": PAD, "suppress_tokens": None}
    return SimpleNamespace(to_diff_dict=lambda: dict(settings), **(ids | settings))


def policy(own=None, **changes):
    forbidden = torch.zeros(changes.pop("size", EVERY), dtype=torch.bool)
    plain = {"start_id": START, "eos_id": EOS, "pad_id": PAD, "end_ids": tensor([EOS]), "forced_bos_id": None}
    seq2seq = SimpleNamespace(generation_config=own or generation())
    return SimpleNamespace(
        **(plain | {"forbidden": forbidden, "seq2seq": seq2seq, "device": torch.device("cpu")} | changes)
    )


@pytest.mark.parametrize(
    ("name", "neutral", "biased"),
    [
        ("num_beams", [1], [2]),
        ("temperature", [1.0], [0.9, 2.0]),
        ("top_k", [0, -1], [1, 5]),
        ("top_p", [1.0, 2.0], [0.99]),
        ("min_p", [0.0], [0.1]),
        ("typical_p", [1.0], [0.99]),
        ("top_h", [], [0.5]),
        ("epsilon_cutoff", [0.0], [0.1]),
        ("eta_cutoff", [0.0], [0.1]),
        ("repetition_penalty", [1.0], [1.2]),
        ("encoder_repetition_penalty", [1.0], [1.2]),
        ("no_repeat_ngram_size", [0], [1]),
        ("encoder_no_repeat_ngram_size", [0], [1]),
        ("min_length", [1, 0, -1], [2]),
        ("min_new_tokens", [0], [1]),
        ("suppress_tokens", [[]], [[3]]),
        ("begin_suppress_tokens", [[]], [[3]]),
        ("bad_words_ids", [[]], [[[3]]]),
        ("force_words_ids", [[]], [[[3]]]),
        ("sequence_bias", [{}], [{(3,): 1.0}]),
        ("forced_eos_token_id", [], [1]),
        ("exponential_decay_length_penalty", [], [(1, 1.0)]),
        ("penalty_alpha", [0.0], [0.5]),
        ("guidance_scale", [1], [1.5]),
        ("logits_processor", [[]], [[len]]),
        ("prefix_allowed_tokens_fn", [], [len]),
        ("constraints", [[]], [[len]]),
    ],
)
def test_which_values_draw_from_another_distribution(name, neutral, biased):
    for value in [*neutral, None]:
        assert biases({"do_sample": True, name: value}, EVERY) == {}
    for value in biased:
        assert biases({"do_sample": True, name: value}, EVERY) == {name: value}


def test_top_k_of_the_whole_vocabulary_leaves_nothing_out_and_greedy_decoding_has_no_draw_to_shape():
    assert biases({"do_sample": True, "top_k": EVERY}, EVERY) == {}
    assert biases({"do_sample": True, "top_k": EVERY - 1}, EVERY) == {"top_k": EVERY - 1}
    assert biases({"do_sample": True}, 1) == {}
    shaped = {"temperature": 2.0, "top_k": 3, "top_p": 0.5, "min_p": 0.5, "typical_p": 0.5, "eta_cutoff": 0.5}
    greedy = {"do_sample": False, "no_repeat_ngram_size": 2}
    assert biases({**greedy, **shaped}, EVERY) == greedy


def test_the_call_goes_before_its_generation_config_before_the_models_before_the_defaults():
    own = generation(top_k=7, top_p=0.9, temperature=0.8, transformers_version="5", min_p=None)
    passed = generation(top_p=0.5, temperature=0.7)
    given = {"generation_config": passed, "temperature": 0.6, "min_length": None}
    expected = {**DEFAULTS, "top_k": 7, "top_p": 0.5, "temperature": 0.6, "min_length": None}
    assert resolve_settings(policy(own), given) == expected
    assert resolve_settings(policy(own), {"top_k": 0})["temperature"] == 0.8


PURE = {"do_sample": True, "num_return_sequences": 1}


@pytest.mark.parametrize(
    ("able", "settings", "given", "changes"),
    [
        (True, {}, {}, {}),
        (True, {}, dict.fromkeys([*NEUTRAL, *NO_MATTER, "generation_config"]), {}),
        (False, {"top_k": 3}, {}, {}),
        (False, {"num_return_sequences": 2}, {}, {}),
        (False, {}, {}, {"end_ids": tensor([1, 5])}),
        (False, {"forced_bos_token_id": 5}, {}, {}),
        (True, {"forced_bos_token_id": 5}, {}, {"forced_bos_id": 5}),
        (False, {}, {"stopping_criteria": []}, {}),
        *[(True, {}, {"eos_token_id": eos}, {}) for eos in (EOS, -1, EVERY, 100_000, [EOS, -1], tensor(EOS))],
        *[(False, {}, {"eos_token_id": eos}, {}) for eos in (0, 5, EVERY - 1, [EOS, 5])],
        (False, {"top_k": 3}, {"eos_token_id": EOS}, {}),
    ],
)
def test_what_softspokens_own_loop_can_do(able, settings, given, changes):
    assert own_loop_can(policy(**changes), PURE | settings, given) == able


@pytest.mark.parametrize(
    ("limit", "settings"),
    [
        (7, {"max_new_tokens": 7, "max_length": 3}),
        (19, {"max_length": 20}),
        (1, {"max_length": 1}),
        (4, {"max_new_tokens": None, "max_length": 5}),
    ],
)
def test_the_start_token_counts_in_max_length_alone(limit, settings):
    assert max_new_tokens(settings) == limit


def test_settings_are_handed_on_as_transformers_5_takes_them():
    given = {
        "top_k": 0.0,
        "min_length": -1,
        "max_new_tokens": 6.0,
        "max_length": 9,
        "top_p": 1.0,
        "eos_token_id": -1,
        "remove_padding": True,
        "pad_to_multiple_of": 8,
    }
    found = transformers_settings(policy(), given, None)
    assert found == {"top_k": 0, "min_length": 0, "max_new_tokens": 6, "max_length": 9, "top_p": 1.0}
    assert type(found["max_new_tokens"]) is int
    for eos in (0, 5, [5, 6]):
        assert transformers_settings(policy(), {"eos_token_id": eos}, None) == {"eos_token_id": eos}
    unused = tensor([True, False, True])
    assert transformers_settings(policy(), {}, unused) == {"suppress_tokens": [0, 2]}
    assert transformers_settings(policy(), {"suppress_tokens": [5, 2]}, unused) == {"suppress_tokens": [0, 2, 5]}
    own = policy(generation(suppress_tokens=[4]))
    assert transformers_settings(own, {}, unused) == {"suppress_tokens": [0, 2, 4]}


@pytest.mark.parametrize("wrapped", [False, True])
def test_what_transformers_generates_is_remembered_and_ends_at_its_end(wrapped):
    sequences, asked = tensor([[START, 6, EOS, PAD], [START, 7, 8, EOS]]), {}
    inner = SimpleNamespace(generation_config=generation(), config=None)

    def generate(**given):
        asked.update(given)
        return SimpleNamespace(sequences=sequences) if wrapped else sequences

    inner.generate = generate
    forbidden = torch.arange(EVERY) == 3
    made = policy(seq2seq=inner, forbidden=forbidden)
    prompts = Prompts([(5,), (5,)], tensor([[4, 4], [5, 0]]), tensor([[1, 1], [1, 0]]), tensor([1, 1]))
    for whole, given, lengths in (
        (False, {}, [3, 4]),
        (True, {}, [4, 4]),
        (False, {"remove_padding": False}, [4, 4]),
        (False, {"remove_padding": True}, [3, 4]),
    ):
        record, settings = Record(), {"num_beams": 2, **given}
        config = SimpleNamespace(mask_unused_ids=True)
        found = respond(made, prompts, record, settings, config, whole=whole)
        assert [len(row) for row in found] == lengths
        assert found[0].tolist() == sequences[0, : lengths[0]].tolist()
        assert record.settings == {(6, EOS): settings, (7, 8, EOS): settings}
    assert asked["input_ids"].tolist() == [[5, 0], [5, 0]]
    assert asked["attention_mask"].tolist() == [[1, 0], [1, 0]]
    assert asked["suppress_tokens"] == [3]
    asked.clear()
    respond(made, prompts, Record(), {"num_beams": 2}, SimpleNamespace(mask_unused_ids=False), whole=True)
    assert "suppress_tokens" not in asked


KL_OF_SQUARES = 2 / 6 * math.log(4 / 6) + 4 / 6 * math.log(4 / 3)
"""Of 1/4, 1/4, 1/2 squared: 1/6, 1/6, 2/3."""
KL_OF_A_REPETITION = (math.log(4 / 13) + 4 * math.log(16 / 13) + 8 * math.log(16 / 13)) / 13
"""The first of 1/4, 1/4, 1/2 squared alone: 1/13, 4/13, 8/13."""
LN2, THIRD = math.log(2), math.log(4 / 3)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [0, 0, 0]),
        ({"temperature": 0.5}, [KL_OF_SQUARES] * 3),
        ({"repetition_penalty": 2.0}, [KL_OF_A_REPETITION]),
        ({"top_k": 1}, [LN2] * 3),
        ({"top_p": 0.4}, [LN2] * 3),
        ({"min_p": 0.9}, [LN2] * 3),
        ({"min_length": 3}, [THIRD, THIRD, 0]),  # without the end, a quarter; the start token counts
        ({"min_new_tokens": 2}, [THIRD, THIRD, 0]),
        ({"do_sample": False}, [2 * LN2, LN2, 2 * LN2]),
    ],
)
def test_what_a_setting_costs_in_nats_where_a_quarter_a_quarter_and_a_half_are_trained(settings, expected):
    """The end is token 1, the start is token 0."""
    logits = torch.log(tensor([0.25, 0.25, 0.5])).expand(1, 3, 3)
    before = logits.clone()
    ids = tensor([[0, 2, 1]])
    found = distance(policy(start_id=0, size=3), logits, ids, {**DEFAULTS, "do_sample": True, "top_k": 0, **settings})
    assert found[0, : len(expected)].tolist() == pytest.approx(expected, abs=1e-6)
    assert torch.equal(logits, before)


def test_typical_sampling_and_ids_that_never_come_out():
    """Entropy 0.898; the second, of 1.204 nats, is nearest to it. A fourth token cannot come out."""
    logits = torch.log(tensor([[[0.1, 0.3, 0.6, 0.0]]]))
    settings = {**DEFAULTS, "do_sample": True, "top_k": 0}
    made = policy(size=4)
    typical = distance(made, logits, tensor([[1]]), {**settings, "typical_p": 0.2})
    assert typical.item() == pytest.approx(-math.log(0.3), abs=1e-6)
    assert distance(made, logits, tensor([[1]]), settings).item() == pytest.approx(0, abs=1e-6)
