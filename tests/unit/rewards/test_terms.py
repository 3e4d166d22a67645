"""Rewards without models: the weighted sum and its checks, ROUGE, length, similarity's arithmetic, the user's own."""

import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from softspoken.config.rewards import reward_weights
from softspoken.rewards.similarity import Similarity, _mean_pooled
from softspoken.rewards.terms import (
    Length,
    WeightedReward,
    default_judge,
    judge_term,
    load_judge,
    load_reward,
)
from softspoken.types import Example, InputError, RunError


def about(reference: str | None, text: str = "A: hi") -> Example:
    return Example("7", text, reference)


def constant(*values: Any) -> Any:
    return lambda responses, dialogues: list(values)


# ------------------------------------------------------------------------------------------------ the weighted sum


def test_weighted_sum_keeps_every_term() -> None:
    reward = WeightedReward({"a": constant(0.5, 1.0), "b": constant(0.25, -2.0)}, {"a": 1.0, "b": 0.2})
    scores = reward(["x", "y"], [about(None)] * 2)
    assert scores.total.tolist() == pytest.approx([0.55, 0.6])  # 0.5 + 0.2·0.25, 1 − 0.2·2
    assert scores.total.dtype == torch.float32
    assert {name: term.tolist() for name, term in scores.terms.items()} == {"a": [0.5, 1.0], "b": [0.25, -2.0]}


def test_spec_weights_reach_the_sum() -> None:
    reward = load_reward("length:1-2 + 0.5*length:4-4")
    scores = reward(["one two", "one two three four"], [about(None)] * 2)
    assert scores.terms["length:1-2"].tolist() == [1.0, 0.0]  # four words: 1 − (4 − 2)/1 < 0
    assert scores.terms["length:4-4"].tolist() == [0.0, 1.0]
    assert scores.total.tolist() == [1.0, 0.5]
    assert load_reward({"length:1-2": 2, "length:4-4": -1})(["one two"], [about(None)]).total.tolist() == [2.0]


def test_no_responses_call_no_term() -> None:
    scores = WeightedReward({"a": lambda *_: pytest.fail("called")}, {"a": 1.0})([], [])
    assert scores.total.shape == scores.terms["a"].shape == (0,)


def test_needs_one_dialogue_for_each_response() -> None:
    with pytest.raises(ValueError, match="2 responses and 1 examples"):
        WeightedReward({"a": constant(1.0, 1.0)}, {"a": 1.0})(["x", "y"], [about(None)])


@pytest.mark.parametrize(
    ("returned", "text", "says"),
    [
        ([1.0], "first one", "returned 1 scores for 2 texts"),
        ([1.0, 1.0, 1.0], "first one", "returned 3 scores for 2 texts"),
        ([1.0, math.nan], "second one", "returned nan"),
        ([1.0, math.inf], "second one", "returned inf"),
        ([-math.inf, 1.0], "first one", "returned -inf"),
        ([1.0, "high"], "second one", "returned 'high'"),
        (0.5, "first one", "returned 0.5"),
        (None, "first one", "returned None"),
        ("ab", "first one", "returned 'ab'"),
        (torch.tensor([1.0, math.nan]), "second one", "nan"),
        (torch.ones(2, 1), "first one", "one number for each text"),
        ({1.0, 2.0}, "first one", "must return a list"),
        (frozenset({1.0, 2.0}), "first one", "must return a list"),
        ({"first one": 1.0, "second one": 2.0}, "first one", "must return a list"),
        (b"ab", "first one", "must return a list"),
        (
            [1.0, 1e39],
            "second one",
            "returned 1e[+]39 for 'second one'; it must be a finite number, and one of float32",
        ),
        ([10**400, 1.0], "first one", "must be a finite number"),
        (iter([1.0, 2.0, 3.0]), "first one", "returned 3 scores for 2 texts"),
    ],
)
def test_a_wrong_return_stops_with_the_term_and_the_text(returned: Any, text: str, says: str) -> None:
    reward = WeightedReward({"fine": constant(1.0, 1.0), "mine:f": lambda *_: returned}, {"fine": 1.0, "mine:f": 1.0})
    with pytest.raises(RunError, match=says) as raised:
        reward(["first one", "second one"], [about(None)] * 2)
    assert "'mine:f'" in str(raised.value)
    assert f"'{text}'" in str(raised.value)


def test_a_term_that_raises_stops_with_its_name() -> None:
    def broken(responses: list[str], dialogues: list[Example]) -> list[float]:
        raise KeyError("colour")

    with pytest.raises(RunError, match=r"'mine:f' failed with KeyError: 'colour'.*'text one'"):
        WeightedReward({"mine:f": broken}, {"mine:f": 1.0})(["text one"], [about(None)])


def test_a_generator_that_raises_and_a_way_out_of_python_have_their_name_too() -> None:
    def late(responses: list[str], dialogues: list[Example]) -> Any:
        yield 1.0
        raise KeyError("colour")

    def leaves(responses: list[str], dialogues: list[Example]) -> list[float]:
        sys.exit(0)

    for term, says in ((late, "KeyError: 'colour'"), (leaves, "SystemExit: 0")):
        with pytest.raises(RunError, match=f"'mine:f' failed with {says}.*'text one'"):
            WeightedReward({"mine:f": term}, {"mine:f": 1.0})(["text one"], [about(None)])


def test_a_module_that_leaves_python_is_no_reward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "leaving.py").write_text("import sys\nsys.exit(0)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=r"'leaving:f' cannot be imported \(SystemExit: 0\)"):
        load_reward("leaving:f")


def test_a_sum_that_float32_does_not_hold_is_named_with_its_terms() -> None:
    reward = WeightedReward({"a": constant(1.0, 3e38), "b": constant(1.0, 3e38)}, {"a": 1.0, "b": 1.0})
    with pytest.raises(
        RunError, match=r"'y' add up to more than float32 holds: 1 \* 3e\+38 \(a\) \+ 1 \* 3e\+38 \(b\)"
    ):
        reward(["x", "y"], [about(None)] * 2)


def test_arrays_are_as_good_as_lists() -> None:
    # pyrefly: ignore[bad-assignment]
    reward = WeightedReward({"t": lambda *_: torch.tensor([0.25, 1])}, {"t": 1.0})
    assert reward(["x", "y"], [about(None)] * 2).total.tolist() == [0.25, 1.0]


def test_generators_arrays_and_no_opinion() -> None:
    """None is left out of its row's sum; a row that none has an opinion on has no sum."""
    half: Any = lambda responses, examples: (None if text == "y" else 0.5 for text in responses)  # noqa: E731
    terms = {"half": half, "array": lambda *_: np.array([1.0, 2.0, 3.0]), "silent": lambda *_: [None] * 3}
    reward = WeightedReward(terms, {"half": 2.0, "array": 0.25, "silent": 1.0, "half * array": 1.0})
    scores = reward(["x", "y", "z"], [about(None)] * 3)
    # 2·0.5 + 0.25·1 + 0.5·1;  0.25·2;  2·0.5 + 0.25·3 + 0.5·3
    assert scores.total.tolist() == [1.75, 0.5, 3.25]
    assert scores.terms["half"].isnan().tolist() == [False, True, False]
    alone = WeightedReward({"half": half, "array": lambda *_: np.array([1.0, 2.0])}, {"half": 1.0, "array": 0.0})(
        ["x", "y"], [about(None)] * 2
    )
    assert alone.total[0] == 0.5
    assert alone.total[1].isnan()


def test_an_array_of_two_dimensions_is_no_list_of_numbers() -> None:
    with pytest.raises(RunError, match="must return a list"):
        WeightedReward({"a": lambda *_: np.ones((1, 1))}, {"a": 1.0})(["x"], [about(None)])


def test_a_term_cannot_disorder_the_texts_of_the_next() -> None:
    def sorts(responses: list[str], dialogues: list[Example]) -> list[float]:
        responses.sort()
        return [0.0] * len(responses)

    seen: list[str] = []

    def sees(responses: list[str], dialogues: list[Example]) -> list[float]:
        seen.extend(responses)
        return [0.0] * len(responses)

    WeightedReward({"a": sorts, "b": sees}, {"a": 1.0, "b": 1.0})(["z", "a"], [about(None)] * 2)
    assert seen == ["z", "a"]


# ------------------------------------------------------------------------------------------------- built-in terms


@pytest.mark.parametrize(
    ("rouge", "response", "expected"),
    [  # the reference is "The cat sat down."
        ("rouge1", "the cats sat", 6 / 7),  # cats → cat: precision 3/3, recall 3/4
        ("rouge2", "the cats sat", 4 / 5),  # precision 2/2, recall 2/3
        ("rougeL", "the cats sat", 6 / 7),
        ("rouge1", "down sat cat", 6 / 7),
        ("rougeL", "down sat cat", 2 / 7),  # one word in order: precision 1/3, recall 1/4
        ("rougeLsum", "down sat\ncat", 4 / 7),  # one word of each line: precision 2/3, recall 2/4
        ("rougeL", "", 0.0),
    ],
)
def test_rouge(rouge: str, response: str, expected: float) -> None:
    scores = load_reward(f"rouge:{rouge}")([response], [about("The cat sat down.")])
    assert scores.total.tolist() == pytest.approx([expected])


def test_rouge_without_references() -> None:
    reward = load_reward("length:1-9 + rouge:rougeL")
    assert reward.needs_references == ["rouge:rougeL"]
    with pytest.raises(InputError, match=r"rouge:rougeL needs references, and the row '7'"):
        reward(["x"], [about(None)])


@pytest.mark.parametrize(
    ("words", "expected"),
    [(0, 0.0), (2, 0.0), (3, 0.5), (4, 1.0), (10, 1.0), (11, 0.8), (14, 0.2), (15, 0.0), (40, 0.0)],
)
def test_length_falls_to_zero_over_half_the_bound(words: int, expected: float) -> None:
    assert load_reward("length:4-10")([" ".join(["w"] * words)], [about(None)]).total.item() == pytest.approx(expected)


def test_length_from_zero_words_has_no_lower_bound() -> None:
    assert Length(0, 2)(["", "one two three"], []) == [1.0, 0.0]


def test_similarity_maps_the_cosine_to_the_unit_interval() -> None:
    vectors = {"r": [1.0, 0.0], "same": [2.0, 0.0], "across": [0.0, 3.0], "against": [-1.0, 0.0], "near": [1.0, 1.0]}
    embed: Any = lambda texts: [torch.tensor(vectors[text]) for text in texts]  # noqa: E731
    dialogues = [about(None, text) for text in ("same", "across", "against", "near")]
    expected = [1.0, 0.5, 0.0, (1 + 0.5**0.5) / 2]
    assert Similarity(embed)(["r"] * 4, dialogues) == pytest.approx(expected, abs=1e-6)


def test_mean_pooling_leaves_padding_out() -> None:
    states = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [100.0, 100.0]]])
    pooled = _mean_pooled(SimpleNamespace(last_hidden_state=states), torch.tensor([[1, 1, 0]]))
    assert pooled.tolist() == [[2.0, 3.0]]


# -------------------------------------------------------------------------------------------------- the user's own


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the current folder, as a user of the command has it."""
    name = f"own_rewards_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(
        "NUMBER = 3\n"
        "def shout(responses, dialogues): return [float(r.isupper()) + len(d.text) for r, d in zip(responses, dialogues)]\n"
        "def lonely(responses): return [0.0 for _ in responses]\n"
        "class Made:\n"
        "    @staticmethod\n"
        "    def inside(responses, dialogues): return [7.0 for _ in responses]\n"
    )
    (tmp_path / f"{name}_broken.py").write_text("import no_such_module_anywhere\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    return name


def test_own_function_from_the_current_folder(own: str) -> None:
    scores = load_reward(f"0.5*{own}:shout")(["HI", "hi"], [about(None, "abc")] * 2)
    assert scores.total.tolist() == [2.0, 1.5]  # 0.5·(1 + 3), 0.5·(0 + 3)
    assert scores.terms[f"{own}:shout"].tolist() == [4.0, 3.0]
    assert load_reward(f"{own}:Made.inside")(["x"], [about(None)]).total.tolist() == [7.0]


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("{own}:nothing", "cannot be imported .AttributeError"),
        ("{own}_broken:f", "cannot be imported .ModuleNotFoundError: No module named 'no_such_module_anywhere'"),
        ("{own}:NUMBER", "is not a function"),
        ("{own}:lonely", "must take .responses, examples. or, as for TRL's GRPO, .completions, prompts, ..columns."),
    ],
)
def test_own_function_that_cannot_be_used(own: str, spec: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as raised:
        load_reward(spec.format(own=own))
    assert own in str(raised.value)


# ----------------------------------------------------------------------------------------------------------- specs


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("meteor", "unknown reward 'meteor'; use mini, detoxify:VARIANT, .*hf:MODEL:LABEL, .*package.module:function"),
        ("no_such_package:f", "No module named 'no_such_package'.; give package.module:function or ./file.py:function"),
        ("rouge:rouge9", "one of rouge:rouge1, rouge:rouge2, rouge:rougeL, rouge:rougeLsum"),
        ("rouge", "unknown|no such ROUGE"),
        ("length:9-3", "the shorter first"),
        ("length:0-0", "the shorter first"),
        ("length:few", "like length:5-30"),
        ("similarity:", "unknown reward"),
        ("hf:some/model", "'hf:some/model' is not a classifier; use one of .*hf:MODEL:LABEL"),
        ("detoxify", "no variant ''; use detoxify:VARIANT with one of original, unbiased"),
        ("detoxify:tiny", "no variant 'tiny'"),
    ],
)
def test_unknown_specs_say_what_there_is(spec: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        load_reward(spec)


@pytest.mark.parametrize(
    ("reward", "weight"),
    [
        ("1e*length:1-2", "'1e'"),
        ("rouge:rougeL + ..*length:1-2", "'..'"),
        ("1e999*length:1-2", "'1e999'"),
        ({"length:1-2": math.nan}, "nan"),
        ({"length:1-2": -math.inf}, "-inf"),
        ({"length:1-2": None}, "None"),
    ],
)
def test_weights_must_be_numbers(reward: Any, weight: str) -> None:
    with pytest.raises(InputError, match=f"^reward 'length:1-2' has the weight {weight}; give a finite number"):
        load_reward(reward)


def test_weights_may_be_negative_or_0_but_not_all_0() -> None:
    assert reward_weights("-.5*length:1-2 + 0*rouge:rougeL") == {"length:1-2": -0.5, "rouge:rougeL": 0.0}
    for nothing in ({}, {"length:1-2": 0}, "0*length:1-2"):
        with pytest.raises(InputError, match="at least one term with a weight other than 0"):
            load_reward(nothing)


def test_a_reward_is_not_a_judge() -> None:
    with pytest.raises(InputError, match=r"'rouge:rougeL' is not a classifier"):
        load_judge("rouge:rougeL")


@pytest.mark.parametrize(
    ("reward", "term", "judge"),
    [
        ("mini", "mini", "mini"),
        ("rouge:rougeL", None, "mini"),
        ("0.2*rouge:rougeL + detoxify:original + mini", "detoxify:original", "detoxify:original"),
        ({"length:1-2": 1.0, "detoxify:unbiased:insult": 1.0}, "detoxify:unbiased:insult", "detoxify:unbiased:insult"),
        ("hf:org/model:-toxic", "hf:org/model:-toxic", "hf:org/model:toxic"),
        ("hf:org/model:polite", "hf:org/model:polite", "hf:org/model:-polite"),
    ],
)
def test_the_judge_calls_toxicity_what_the_reward_lowers(reward: Any, term: str | None, judge: str) -> None:
    assert judge_term(reward) == term
    assert default_judge(reward) == judge


# ----------------------------------------------------------------------------------------------- products and overlaps


def test_a_product_multiplies_and_each_factor_is_logged():
    product = WeightedReward(
        {"a": lambda texts, _: [0.5, 1.0], "b": lambda texts, _: [0.5, 0.25]}, {"a * b": 2.0, "a": 1.0}
    )
    scores = product(["x", "y"], [Example("1", "t")] * 2)
    assert scores.total.tolist() == [2 * 0.25 + 0.5, 2 * 0.25 + 1.0]
    assert {name: term.tolist() for name, term in scores.terms.items()} == {
        "a": [0.5, 1.0], "b": [0.5, 0.25], "a * b": [0.25, 0.25],
    }  # fmt: skip


def test_a_product_is_written_with_a_star_and_its_judge_is_found():
    assert reward_weights("0.5*mini*chrf + length:1-5") == {"mini * chrf": 0.5, "length:1-5": 1.0}
    assert judge_term("chrf * detoxify:original") == "detoxify:original"
    loaded = load_reward("length:1-5 * chrf")
    assert list(loaded.terms) == ["length:1-5", "chrf"]
    assert loaded.needs_references == ["chrf"]


def test_chrf_and_bleu_take_the_nearest_reference():
    example = Example("1", "t", "the cat sat on a mat", further_references=("a dog runs",))
    for name in ("chrf", "bleu"):
        assert load_reward(name)(["a dog runs", "zzz"], [example] * 2).total.tolist() == pytest.approx([1.0, 0.0])
    with pytest.raises(InputError, match="row '2' has none"):
        load_reward("chrf")(["x"], [Example("2", "t")])


def test_the_plain_cosine_is_no_score_where_it_is_negative():
    embedded = {"a": [1.0, 0.0], "b": [0.6, 0.8], "c": [-1.0, 0.0]}

    def embed(texts):
        return [torch.tensor(embedded[text]) for text in texts]

    examples = [Example("1", "a")] * 3
    assert Similarity(embed, plain=True)(["a", "b", "c"], examples) == pytest.approx([1.0, 0.6, 0.0])
    assert Similarity(embed)(["a", "b", "c"], examples) == pytest.approx([1.0, 0.8, 0.0])
