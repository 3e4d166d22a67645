"""ROUGE of every script, over several references; on English what rouge-score has."""

from itertools import pairwise

import pytest
from rouge_score.rouge_scorer import RougeScorer

from softspoken.config.specs import ROUGES
from softspoken.data.reading import load_examples
from softspoken.evaluation.metrics import reference_metrics
from softspoken.rewards.rouge import rouge
from softspoken.rewards.terms import load_reward
from softspoken.types import Example


@pytest.mark.parametrize(
    "text", ["हिन्दी में लिखा हुआ", "我爱自然语言处理", "مرحبا بالعالم كله", "Мама мыла раму", "Ich höre Äpfel"]
)
def test_a_text_is_like_itself_and_unlike_another(text: str) -> None:
    assert rouge([text], text) == pytest.approx(dict.fromkeys(ROUGES, 1.0))
    assert rouge([text], "Felix is on the bus") == dict.fromkeys(ROUGES, 0.0)


def test_of_a_script_without_spaces_characters_are_compared() -> None:
    found = rouge(["我爱你"], "我恨你")  # 2 of 3 each; no pair in common
    assert found == pytest.approx({"rouge1": 2 / 3, "rouge2": 0, "rougeL": 2 / 3, "rougeLsum": 2 / 3})


def test_on_english_nothing_has_changed() -> None:
    plain = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    texts = [example.reference or "" for example in load_examples("mini", "validation", limit=60)]
    for reference, response in pairwise(texts):
        expected = {kind: score.fmeasure for kind, score in plain.score(reference, response).items()}
        assert rouge([reference], response, list(expected)) == expected


def test_reward_and_evaluation_split_sentences_alike() -> None:
    pair = Example("2", "Nora: hi", "Nora walks. Felix sleeps")
    turned = "Felix sleeps. Nora walks"
    assert load_reward("rouge:rougeLsum")([turned], [pair]).total.tolist() == pytest.approx([1.0])
    assert load_reward("rouge:rougeL")([turned], [pair]).total.tolist() == pytest.approx([0.5])
    assert reference_metrics(turned, pair, two_references=False)["rougeLsum"] == pytest.approx(100)


def test_the_best_of_several_references_counts_for_each_kind() -> None:
    several = Example("1", "x", "Felix sleeps", further_references=("Nora walks home", "Mila is here"))
    assert rouge(["Felix sleeps", "Nora walks home"], "Nora walks home") == dict.fromkeys(ROUGES, 1.0)
    assert load_reward("rouge:rouge1")(["Nora walks"], [several]).total.tolist() == pytest.approx([0.8])  # 2/2, 2/3
    metrics = reference_metrics("Mila is here", several, two_references=False)
    assert (metrics["rougeL"], metrics["chrf"]) == pytest.approx((100, 100))
    assert metrics["length_ratio"] == pytest.approx(3 / (8 / 3))
