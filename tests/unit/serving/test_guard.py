"""What the guard does to a response, with a judge whose scores are known."""

from types import SimpleNamespace

import pytest

from softspoken.serving.guard import Guard, Guarded
from softspoken.types import Response

KNOWN = {
    "calm": 0.1,
    "you fool": 0.9,
    "you dolt": 0.7,
    "fool": 0.95,
    "you": 0.0,
    "you […]": 0.2,
    "vile air": 0.8,
    "no": 0.0,
}


class Judge:
    """By heart; a text that it does not know is a mistake."""

    labels = ("toxicity", "insult")
    model = SimpleNamespace()
    name = "known"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, texts: list[str]) -> dict[str, list[float]]:
        self.asked += texts
        known = {**KNOWN, "dolt": 0.3, "vile": 0.2, "air": 0.1}
        scores = [known[text] for text in texts]
        return {"toxicity": scores, "insult": [score / 2 for score in scores]}


def guarded(texts: list[str], drawn: dict[int, list[str]], samples: int = 2) -> tuple[list[Guarded], list[list[int]]]:
    """By a guard at 0.5, and which rows were asked for again."""
    asked: list[list[int]] = []

    def again(rows: list[int]) -> list[list[Response]]:
        asked.append(rows)
        return [[Response(text, cut=True) for text in drawn[row]] for row in rows]

    guard = Guard(Judge(), 0.5, samples, refusal="no")  # type: ignore[arg-type]
    return guard([Response(text, cut=False) for text in texts], again), asked


def test_what_is_calm_passes_and_nothing_is_drawn() -> None:
    found, asked = guarded(["calm", "calm"], {})
    assert [one.decision for one in found] == ["passed", "passed"]
    assert asked == []
    assert found[0].scores == found[0].first_scores == {"toxicity": 0.1, "insult": 0.05}


def test_what_is_too_toxic_is_made_again_and_the_least_toxic_is_taken() -> None:
    found, asked = guarded(["calm", "you fool"], {1: ["you dolt", "calm"]})
    assert asked == [[1]]
    assert (found[1].decision, found[1].response) == ("retried", Response("calm", cut=True))
    assert found[1].scores["toxicity"] == 0.1
    assert found[1].first_scores["toxicity"] == 0.9
    assert found[0].decision == "passed"


def test_where_all_are_too_toxic_the_words_are_masked() -> None:
    found, _ = guarded(["you fool"], {0: ["you fool", "you fool"]})
    assert (found[0].decision, found[0].response.text) == ("masked", "you […]")
    assert found[0].scores["toxicity"] == 0.2


@pytest.mark.parametrize("first", ["vile air", "you dolt"])
def test_where_no_word_is_toxic_alone_it_is_refused(first: str) -> None:
    found, _ = guarded([first], {0: [first]})
    assert (found[0].decision, found[0].response) == ("refused", Response("no", cut=False))
    assert found[0].first_scores["toxicity"] == KNOWN[first]


def test_without_samples_nothing_is_drawn() -> None:
    found, asked = guarded(["you fool"], {}, samples=0)
    assert asked == []
    assert found[0].decision == "masked"


def test_a_score_at_the_threshold_passes() -> None:
    guard = Guard(Judge(), 0.9, 0, refusal="no")  # type: ignore[arg-type]
    assert guard([Response("you fool")], lambda rows: [])[0].decision == "passed"
