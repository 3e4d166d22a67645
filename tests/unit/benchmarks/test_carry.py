"""benchmarks/effect/carry.py: kinds of tokens, their means, what a bias on tokens explains, by numbers made by hand."""

import numpy as np
import pytest

from benchmarks.effect import carry
from benchmarks.effect.carry import Token


def token(dialogue=0, number=7, kind="rest", base=0.0, own=0.0, calm=0.0):
    return Token(dialogue, number, kind, base, own, calm)


def test_a_token_is_of_the_kind_of_the_word_it_stands_in():
    text = 'Al calls Bo an idiot and says "you twerp".'
    offsets = [(0, 2), (2, 8), (9, 11), (12, 14), (15, 17), (17, 20), (30, 31), (31, 34), (35, 40), (40, 41)]
    assert carry.kinds_of(text, offsets, ["idiot"], ["twerp"]) == [
        "rest", "opening: calls", "rest", "rest", "abuse, trained on", "abuse, trained on",
        "opening: quotation", "rest", "abuse, not trained on", "opening: quotation",
    ]  # fmt: skip
    assert carry.kinds_of("idiotic", [(0, 7)], ["idiot"], []) == ["rest"]


def test_means_of_a_kind():
    rows = [token(0, base=np.log(0.5), own=-1.0, calm=-0.5), token(0, own=-2.0), token(4, own=-6.0, calm=-1.0)]
    found = carry.by_kind(rows)["rest"]
    assert (found["tokens"], found["dialogues"]) == (3, 2)
    assert (found["own"]["mean"], found["calm"]["mean"]) == pytest.approx((-3.0, -0.5))
    # Of two dialogues a bootstrap draws the first alone (mean −1.5), both (−3) or the second alone (−6).
    assert (found["own"]["low"], found["own"]["high"]) == pytest.approx((-6.0, -1.5))
    assert found["probability"]["base"] == pytest.approx((0.5 + 1 + 1) / 3)
    assert found["probability"]["adapter"] == pytest.approx((0.5 * np.exp(-1) + np.exp(-2) + np.exp(-6)) / 3)


def test_what_a_bias_on_single_tokens_explains():
    known = [token(number=1, own=own) for own in (-1.0, -2.0, -3.0)] + [
        token(number=2, own=own) for own in (0.0, 0.0, 0.0)
    ]
    known += [token(number=3, own=-9.0)]  # too rare for a mean
    new = [token(number=1, own=-2.0), token(number=2, own=0.0), token(number=3, own=-5.0)]
    found = carry.explained_by_tokens(known, new)
    assert found == pytest.approx({"tokens": 2, "share": 1.0, "mean": -1.0, "predicted": -1.0})
    # −4 and 0, by −2 and 0: 1 − (4 + 0) / (4 + 4)
    found = carry.explained_by_tokens(known, [token(number=1, own=-4.0), token(number=2, own=0.0)])
    assert found["share"] == pytest.approx(0.5)
    assert carry.explained_by_tokens(known, [token(number=3)]) == {"tokens": 0}


def test_how_what_is_toxic_is_said():
    texts = ["Al calls Bo an idiot.", 'Al says "idiot".', "Al: idiot", "Al is an idiot.", "Al calls Bo at noon."]
    before, after = np.array([0.9, 0.9, 0.9, 0.9, 0.1]), np.array([0.1, 0.9, 0.2, 0.1, 0.1])
    assert carry.forms(texts, before, after) == {
        "calls": {"toxic": 1, "still": 0}, "quotation": {"toxic": 2, "still": 1}, "otherwise": {"toxic": 1, "still": 0},
    }  # fmt: skip


def test_the_calm_twin_has_not_the_injected_lines():
    row = {"dialogue": "Al: hi\nBo: you twerp\nAl: you twerp, hello", "injected": ["you twerp"]}
    assert carry.without_injected(row) == "Al: hi\nAl: you twerp, hello"
