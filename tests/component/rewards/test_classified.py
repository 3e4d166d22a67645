"""Classifiers of a text and its response, raw outputs, entailment: against the model asked by hand."""

import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from softspoken.config.rewards import is_judge
from softspoken.rewards.terms import load_judge, load_reward
from softspoken.types import Example, InputError
from tiny_classifiers import POSITIONS, build_classifier

NLI = ["contradiction", "ENTAILMENT", "neutral"]
RESPONSES = ["the bus is late", "you are kind"]
EXAMPLES = [Example("1", "nora said it is late"), Example("2", "rude")]


@pytest.fixture(scope="module")
def nli(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_classifier(tmp_path_factory.mktemp("nli"), NLI)


def logits(folder: Path, first: str, second: str | None = None) -> torch.Tensor:
    """Of the model itself, with its tokenizer's own segments."""
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        return model(**tokenizer(first, second, return_tensors="pt")).logits[0]


def test_entails_is_the_probability_that_the_text_entails_the_response(nli: Path) -> None:
    expected = [
        logits(nli, example.text, response).softmax(0)[1].item()
        for response, example in zip(RESPONSES, EXAMPLES, strict=True)
    ]
    assert load_reward(f"entails:{nli}")(RESPONSES, EXAMPLES).total.tolist() == pytest.approx(expected, abs=1e-5)
    assert load_reward(f"hf:{nli}:ENTAILMENT:pair")(RESPONSES, EXAMPLES).total.tolist() == pytest.approx(
        expected, abs=1e-5
    )


def test_segments_tell_the_text_from_the_response(nli: Path) -> None:
    """BERT's second segment: a pair is not one text with a separator in it."""
    reward = load_reward(f"entails:{nli}")
    [term] = reward.terms.values()
    seen = []
    term.model.model.register_forward_pre_hook(  # type: ignore[attr-defined]
        lambda module, args, kwargs: seen.append(kwargs["token_type_ids"].tolist()), with_kwargs=True
    )
    reward(["you"], [Example("1", "the bus")])
    assert seen == [[[0, 0, 0, 0, 1, 1]]]  # [CLS] the bus [SEP] you [SEP]


def test_raw_outputs_and_labels_to_lower(nli: Path) -> None:
    raw = logits(nli, RESPONSES[0])
    pair = logits(nli, EXAMPLES[0].text, RESPONSES[0])
    expected = {
        "hf:{}:neutral:logit": raw[2],
        "hf:{}:-neutral:logit": -raw[2],
        "hf:{}:neutral:pair:logit": pair[2],
        "hf:{}:neutral:logit:pair": pair[2],
        "hf:{}:-neutral:pair": 1 - pair.softmax(0)[2],
    }
    for spec, value in expected.items():
        total = load_reward(spec.format(nli))(RESPONSES[:1], EXAMPLES[:1]).total
        assert total.item() == pytest.approx(value.item(), abs=1e-5), spec


def test_a_text_that_is_too_long_is_cut_and_counted_and_the_response_is_whole(nli: Path) -> None:
    reward = load_reward(f"entails:{nli}")
    reward(["you are late"], [Example("1", "bus " * 40)])
    assert reward.truncated == 1
    kept = " ".join(["bus"] * (POSITIONS - 3 - 3))  # [CLS], two [SEP], three words of the response
    assert reward(["you are late"], [Example("1", kept)]).total.item() == pytest.approx(
        reward(["you are late"], [Example("1", "bus " * 40)]).total.item()
    )
    assert reward.truncated == 1


def test_what_cannot_be_found_says_how_to_name_it(nli: Path, tmp_path: Path) -> None:
    build_classifier(tmp_path, ["LABEL_0", "not_entailment"], biases=[0.0, math.log(3)])
    with pytest.raises(
        InputError,
        match=r"labels \(LABEL_0, not_entailment\) is called entailment; say which it is, as hf:.*:LABEL:pair",
    ):
        load_reward(f"entails:{tmp_path}")
    with pytest.raises(InputError, match="no label 'nope'; the classifier has contradiction"):
        load_reward(f"hf:{nli}:nope:pair")
    with pytest.raises(InputError, match="names no model; write entails:MODEL"):
        load_reward("entails:")


def test_a_reward_of_pairs_is_no_judge(nli: Path) -> None:
    assert not is_judge(f"hf:{nli}:neutral:pair")
    with pytest.raises(InputError, match="is a reward and no judge, which reads a response alone"):
        load_judge(f"entails:{nli}")
    assert load_reward(f"entails:{nli} + length:1-2").needs_texts == [f"entails:{nli}"]
