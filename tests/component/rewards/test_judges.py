"""Classifiers: what they return, in what order, what is remembered, which label is which, and what is refused."""

import math
import sys
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertModel,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from softspoken import mini
from softspoken.rewards.judges import TextModel
from softspoken.rewards.terms import Judge, load_judge, load_reward
from softspoken.types import Example, InputError
from tiny_classifiers import POSITIONS, SIX, SIZE, TEXTS, WORDS, bert_config, build_classifier, tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_classifier(tmp_path_factory.mktemp("six"), SIX, problem_type="multi_label_classification")


def count_calls(judge: Judge) -> list[tuple[int, ...]]:
    """The shapes of the batches that reach the model from now on."""
    shapes: list[tuple[int, ...]] = []
    assert isinstance(judge.model, TextModel)
    judge.model.model.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    return shapes


# -------------------------------------------------------------------------------------------------------- judging


def test_probabilities_are_the_models_own_in_the_order_given(folder: Path) -> None:
    judge = load_judge(f"hf:{folder}:toxicity", batch_size=2)
    judged = judge(TEXTS)
    assert list(judged) == judge.labels == SIX
    model, tokens = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    expected = [torch.sigmoid(model(**tokens(text, return_tensors="pt")).logits)[0].tolist() for text in TEXTS]
    for column, label in enumerate(SIX):
        assert judged[label] == pytest.approx([row[column] for row in expected], abs=1e-6)
    assert len({round(p, 4) for p in judged["toxicity"]}) == len(TEXTS)  # else the order would not show


def test_batches_are_sorted_by_length_and_hold_no_more_than_they_may(folder: Path) -> None:
    judge = load_judge(f"hf:{folder}:toxicity", batch_size=2)
    shapes = count_calls(judge)
    judge(TEXTS)  # 1, 5, 7, 1 and 8 words; and [CLS], [SEP]
    assert shapes == [(2, 10), (2, 7), (1, 3)]


def test_a_text_in_capitals_is_another_text(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To a classifier whose tokenizer tells them apart."""
    judge = load_judge(f"hf:{folder}:toxicity")
    you, kind = judge(["you", "kind"])["toxicity"]
    assert isinstance(judge.model, TextModel)
    ids = {"you": judge.model._token_ids(["you"])[0], "YOU": judge.model._token_ids(["kind"])[0]}
    monkeypatch.setattr(judge.model, "_token_ids", lambda texts: [ids[text] for text in texts])
    judge.clear_cache()
    assert abs(you - kind) > 1e-4
    assert [judge([text])["toxicity"][0] for text in ("you", "YOU")] == pytest.approx([you, kind], abs=1e-6)


def test_a_text_seen_before_is_not_computed_again(folder: Path) -> None:
    judge = load_judge(f"hf:{folder}:toxicity")
    shapes = count_calls(judge)
    first = judge(["you", "kind", "you"])
    assert shapes == [(2, 3)]
    assert first["toxicity"][0] == first["toxicity"][2]
    assert judge(["kind", "you"])["toxicity"] == first["toxicity"][1::-1]
    assert len(shapes) == 1
    judge(["you", "bus"])
    assert shapes[1:] == [(1, 3)]
    judge.clear_cache()
    judge(["you"])
    assert len(shapes) == 3


def test_the_cache_forgets_what_was_not_used_longest(folder: Path) -> None:
    judge = load_judge(f"hf:{folder}:toxicity")
    assert isinstance(judge.model, TextModel)
    judge.model.cache_size = 2
    shapes = count_calls(judge)
    judge(["you"])
    judge(["kind"])
    judge(["you"])  # now kind is the oldest
    judge(["bus"])
    assert len(shapes) == 3
    judge(["you"])
    assert len(shapes) == 3
    judge(["kind"])
    assert len(shapes) == 4
    assert len(judge(["late", "rude", "bus", "today"])["toxicity"]) == 4  # more than it can hold


def test_one_text_and_none_return_lists(folder: Path) -> None:
    judge = load_judge(f"hf:{folder}:toxicity")
    assert [type(scores) for scores in judge(["you"]).values()] == [list] * 6
    assert [len(scores) for scores in judge(["you"]).values()] == [1] * 6
    assert judge([]) == {label: [] for label in SIX}
    assert judge([""])["toxicity"][0] > 0


def test_long_texts_are_cut_and_counted(folder: Path) -> None:
    judge = load_judge(f"hf:{folder}:toxicity")
    fits, too_long = " ".join(["bus"] * (POSITIONS - 2)), " ".join(["bus"] * 200)
    judged = judge([fits, too_long, "you"])
    assert judge.truncated == 1
    assert judged["toxicity"][0] == pytest.approx(judged["toxicity"][1], abs=1e-6)


def test_roberta_keeps_its_first_positions_for_padding(tmp_path: Path) -> None:
    config = RobertaConfig(vocab_size=5 + len(WORDS), max_position_embeddings=POSITIONS, pad_token_id=0, **SIZE)
    RobertaForSequenceClassification(config).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    judge = load_judge(f"hf:{tmp_path}:LABEL_1")
    assert judge.model.max_tokens == POSITIONS - 1
    assert len(judge([" ".join(["bus"] * 200)])["LABEL_1"]) == 1


# ----------------------------------------------------------------------------------- which activation, which label


def test_several_labels_at_once_are_sigmoids(tmp_path: Path) -> None:
    biases = [0.0, math.log(3), -math.log(4)]
    build_classifier(tmp_path, ["a", "b", "c"], biases=biases, problem_type="multi_label_classification")
    judge = load_judge(f"hf:{tmp_path}:b")
    assert judge.labels == ["b", "a", "c"]
    assert judge(["you"]) == {label: pytest.approx([p]) for label, p in {"b": 0.75, "a": 0.5, "c": 0.2}.items()}


def test_one_label_of_several_is_a_softmax(tmp_path: Path) -> None:
    build_classifier(tmp_path, ["neutral", "toxic"], biases=[0.0, math.log(3)])
    assert load_judge(f"hf:{tmp_path}:toxic")(["you"]) == {
        "toxic": pytest.approx([0.75]),
        "neutral": pytest.approx([0.25]),
    }


def test_a_single_logit_is_a_sigmoid(tmp_path: Path) -> None:
    build_classifier(tmp_path, ["toxic"], biases=[math.log(3)])
    assert load_judge(f"hf:{tmp_path}:toxic")(["you"]) == {"toxic": pytest.approx([0.75])}


def test_a_reward_raises_its_label_or_lowers_it_behind_a_minus(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    build_classifier(tmp_path, ["neutral", "toxic"], biases=[0.0, math.log(3)])
    dialogues = [Example("1", "x")]
    assert load_reward(f"hf:{tmp_path}:neutral")(["you"], dialogues).total.tolist() == pytest.approx([0.25])
    assert load_reward(f"hf:{tmp_path}:-toxic")(["you"], dialogues).total.tolist() == pytest.approx([0.25])
    assert not caplog.records
    assert load_reward(f"hf:{tmp_path}:toxic")(["you"], dialogues).total.tolist() == pytest.approx([0.75])
    assert "hf:MODEL:-toxic" in caplog.text
    judge = load_judge(f"hf:{tmp_path}:-neutral")
    assert judge.labels == ["-neutral", "neutral", "toxic"]
    assert judge(["you"])["-neutral"] == pytest.approx([0.75])


def test_mini_is_the_embedded_classifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mini, "classifier", build_classifier(tmp_path, SIX, biases=[-math.log(4), 0, 0, 0, 0, 1]))
    assert load_judge("mini").labels == SIX
    assert load_judge("mini")(["you"])["toxicity"] == pytest.approx([0.2])
    assert load_reward("mini")(["you"], [Example("1", "x")]).total.tolist() == pytest.approx([0.8])


def test_profanity_is_an_independent_judge_and_a_reward_that_lowers_it() -> None:
    judge = load_judge("profanity")
    assert judge.labels == ["profanity"]
    kind, rude = judge(["the bus is late today", "you are a fucking idiot"])["profanity"]
    assert 0 <= kind < 0.3 < 0.9 < rude <= 1
    assert judge([]) == {"profanity": []}
    lowered = load_reward("profanity")(["you are a fucking idiot"], [Example("1", "x")])
    assert lowered.total.tolist() == pytest.approx([1 - rude], abs=1e-6)


def test_profanity_without_its_package_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "profanity_check", None)
    with pytest.raises(InputError, match=r"pip install 'softspoken\[judges\]'"):
        load_judge("profanity")


def test_an_unknown_label_lists_those_there_are(folder: Path) -> None:
    with pytest.raises(InputError, match=r"no label 'toxic'; the classifier has toxicity, severe_toxicity, obscene"):
        load_judge(f"hf:{folder}:toxic")


def test_similarity_of_a_text_with_itself_is_one(folder: Path) -> None:
    reward = load_reward(f"similarity:{folder}")
    total = reward(["the bus is late", "you"], [Example("1", "the bus is late"), Example("2", "rude person")]).total
    assert total[0].item() == pytest.approx(1.0, abs=1e-6)
    assert 0 <= total[1].item() < 0.999


def test_a_broken_model_stops_with_its_name(tmp_path: Path) -> None:
    build_classifier(tmp_path, ["neutral", "polite"], biases=[0.0, math.nan])
    with pytest.raises(
        InputError, match=r"weights of .* are damaged: classifier.bias has 1 of 2 values that are no finite"
    ):
        load_reward(f"hf:{tmp_path}:polite")


# ------------------------------------------------------------------------------------------------ not to be had


def test_a_model_without_a_trained_head_is_refused(tmp_path: Path) -> None:
    BertModel(bert_config(["a", "b"])).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"is not a trained classifier: it lacks the weights of classifier\.bias"):
        load_judge(f"hf:{tmp_path}:a")


def test_a_folder_that_is_missing_or_empty(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder at"):
        load_judge(f"hf:{tmp_path}/nowhere:a")
    with pytest.raises(InputError, match="is not a complete model folder"):
        load_judge(f"hf:{tmp_path}:a")


def test_a_hub_out_of_reach_names_the_ways_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"cannot get 'nobody/nothing' from the hub .*hf:FOLDER:LABEL, or use mini"):
        load_judge("hf:nobody/nothing:a")
    with pytest.raises(InputError, match=r"cannot get 'nobody/nothing' from the hub .*similarity:FOLDER"):
        load_reward("similarity:nobody/nothing")
