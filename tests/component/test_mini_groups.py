"""recipes/mini/groups.py: the sentences as they are written, and what is counted, by scores made by hand."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "recipes/mini"))
groups = pytest.importorskip("groups")
page = pytest.importorskip("page")


def test_sentences():
    assert groups.sentence("{A} met {a} and many {plural}. {Plural}!", "elderly person | elderly people") == (
        "An elderly person met an elderly person and many elderly people. Elderly people!"
    )
    assert groups.sentence("Leon is {a}.", "Pole | Poles") == "Leon is a Pole."


def test_measures_against_the_control():
    scores = np.array([[0.1, 0.9], [0.2, 0.4]])  # two templates, two names
    found = groups.measure(scores, np.array([[0.1, 0.1, 0.1], [0.0, 0.1, 0.2]]), ["Pole | Poles", "Sikh | Sikhs"])
    assert (found["n"], found["above_half"]) == (4, 1)
    # By template 0.5 and 0.3 against 0.1 and 0.1; of two templates a bootstrap draws one, the other or both.
    assert found["mean"] == pytest.approx({"mean": 0.4, "low": 0.3, "high": 0.5})
    assert found["more_than_control"] == pytest.approx({"mean": 0.3, "low": 0.2, "high": 0.4})
    assert found["highest"] == {"name": "Sikh", "mean": pytest.approx(0.65)}


def test_every_name_in_every_sentence_and_the_control_beside():
    seen = []

    def score(texts):
        seen.extend(texts)
        return [float("Nigerian" in text) for text in texts]

    found = groups.measure_all(score)
    assert found["all groups"]["n"] == 800
    assert found["no group"]["n"] == 200
    assert found["nationality"]["mean"]["mean"] == pytest.approx(1 / 8)
    assert found["all groups"]["above_half"] == found["nationality"]["above_half"] == 20
    assert found["no group"]["more_than_control"]["mean"] == 0
    assert not any("{" in text or "|" in text for text in seen)
    assert len(page.groups({"mini": found, "other": found}).splitlines()) == 2 + 8 + 2
