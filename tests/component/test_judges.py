"""Classifiers of the real kinds, tiny and random: what they return, in what order, from where, and what is refused."""

import hashlib
import io
import json
import math
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    BertTokenizer,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from softspoken import mini
from softspoken.config import ScoreConfig
from softspoken.rewards import Judge, load_judge, load_reward, score
from softspoken.types import Dialogue, InputError, RunError

SIX = ["toxicity", "severe_toxicity", "obscene", "threat", "insult", "identity_attack"]
WORDS = [
    "you",
    "are",
    "a",
    "kind",
    "rude",
    "person",
    "the",
    "bus",
    "is",
    "late",
    "today",
    "and",
    "nora",
    "said",
    "it",
    "again",
]
TEXTS = ["you", "the bus is late today", "nora said you are a rude person", "kind", "it is late and nora said it again"]
SIZE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
POSITIONS = 16


def tokenizer() -> Any:
    vocab = {word: place for place, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])}
    return BertTokenizer(vocab=vocab, model_max_length=512)


def bert_config(labels: list[str], **options: Any) -> BertConfig:
    names = dict(enumerate(labels))
    return BertConfig(vocab_size=5 + len(WORDS), max_position_embeddings=POSITIONS, id2label=names, **SIZE, **options)


def build_classifier(folder: Path, labels: list[str], *, biases: list[float] | None = None, **options: Any) -> Path:
    """With `biases`, one whose logits are these for every text."""
    torch.manual_seed(1)
    model = BertForSequenceClassification(bert_config(labels, **options))
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight.normal_(std=1.0)  # so that texts differ
        model.classifier.weight.normal_(std=0.0 if biases else 1.0)
        if biases:
            model.classifier.bias.copy_(torch.tensor(biases))
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_classifier(tmp_path_factory.mktemp("six"), SIX, problem_type="multi_label_classification")


def count_calls(judge: Judge) -> list[tuple[int, ...]]:
    """The shapes of the batches that reach the model from now on."""
    shapes: list[tuple[int, ...]] = []
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
    dialogues = [Dialogue("1", "x")]
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
    assert load_reward("mini")(["you"], [Dialogue("1", "x")]).total.tolist() == pytest.approx([0.8])


def test_an_unknown_label_lists_those_there_are(folder: Path) -> None:
    with pytest.raises(InputError, match=r"no label 'toxic'; the classifier has toxicity, severe_toxicity, obscene"):
        load_judge(f"hf:{folder}:toxic")


def test_similarity_of_a_text_with_itself_is_one(folder: Path) -> None:
    reward = load_reward(f"similarity:{folder}")
    total = reward(["the bus is late", "you"], [Dialogue("1", "the bus is late"), Dialogue("2", "rude person")]).total
    assert total[0].item() == pytest.approx(1.0, abs=1e-6)
    assert 0 <= total[1].item() < 0.999


def test_a_broken_model_stops_with_its_name(tmp_path: Path) -> None:
    build_classifier(tmp_path, ["neutral", "polite"], biases=[0.0, math.nan])
    with pytest.raises(RunError, match=r"polite' returned nan for 'you'"):
        load_reward(f"hf:{tmp_path}:polite")(["you"], [Dialogue("1", "x")])


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


# ---------------------------------------------------------------------------------------------------------- Detoxify

JIGSAW = ["toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"]
Release = Callable[..., Path]


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Release:
    """Lays a checkpoint of Detoxify's format where torch.hub keeps downloads, and says where."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    backbone = tmp_path / "backbone"
    BertConfig(vocab_size=5 + len(WORDS), max_position_embeddings=POSITIONS, **SIZE).save_pretrained(backbone)
    tokenizer().save_pretrained(backbone)

    def lay(
        file: str = "toxic_original-c1212f89.ckpt", *, classes: list[str] = JIGSAW, outputs: int = 6, drop: str = ""
    ) -> Path:
        torch.manual_seed(2)
        weights = BertForSequenceClassification(BertConfig.from_pretrained(backbone, num_labels=outputs)).state_dict()
        weights["classifier.bias"] = torch.arange(float(outputs))
        weights["bert.embeddings.position_ids"] = torch.arange(POSITIONS).unsqueeze(0)  # as the published ones have
        weights.pop(drop, None)
        arch = {
            "num_classes": outputs,
            "model_type": str(backbone),
            "model_name": "BertForSequenceClassification",
            "tokenizer_name": "BertTokenizer",
        }
        config = {
            "name": "Jigsaw_BERT",
            "arch": {"type": "BERT", "args": arch},
            "dataset": {"args": {"classes": classes}},
        }
        path = tmp_path / "torch" / "hub" / "checkpoints" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"state_dict": weights, "config": config}, path)
        return path

    return lay


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_detoxify_scores_as_the_detoxify_package_does(release: Release) -> None:
    from detoxify import Detoxify

    path = release()
    judge = load_judge("detoxify:original", batch_size=2, detoxify_sha256=sha256(path).upper())
    assert judge.labels == SIX  # renamed, in Detoxify's own way
    expected = Detoxify("original", checkpoint=str(path)).predict(TEXTS)
    for label in SIX:
        assert judge(TEXTS)[label] == pytest.approx(expected[label], abs=1e-6)


def test_detoxify_as_a_reward_lowers_toxicity_or_the_label_named(release: Release) -> None:
    sha = sha256(release())
    dialogues = [Dialogue("1", "x")]
    judged = load_judge("detoxify:original", detoxify_sha256=sha)(["you"])
    assert judged["insult"][0] - judged["toxicity"][0] > 0.1
    for spec, label in (("detoxify:original", "toxicity"), ("detoxify:original:insult", "insult")):
        reward = load_reward(spec, detoxify_sha256=sha)(["you"], dialogues)
        assert reward.total.tolist() == pytest.approx([1 - judged[label][0]])
    assert load_judge("detoxify:original:insult", detoxify_sha256=sha).labels[0] == "insult"


def test_detoxify_unbiased_has_more_outputs_than_labels(release: Release) -> None:
    labels = ["toxicity", "severe_toxicity", "obscene", "identity_attack", "insult", "threat", "sexual_explicit"]
    path = release("toxic_debiased-c7548aa0.ckpt", classes=labels, outputs=16)
    judge = load_judge("detoxify:unbiased", detoxify_sha256=sha256(path))
    assert judge.labels == labels
    assert list(judge(["you"])) == labels


def test_detoxify_with_another_digest_is_not_even_unpickled(release: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    path = release()
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("unpickled"))
    with pytest.raises(InputError) as by_name:
        load_judge("detoxify:original")
    assert str(path) in str(by_name.value)
    assert f"has SHA-256 {sha256(path)}, but c1212f89… is expected" in str(by_name.value)
    with pytest.raises(InputError, match=f"{'0' * 64} is expected"):
        load_judge("detoxify:original", detoxify_sha256="0" * 64)
    with pytest.raises(InputError, match="is expected"):  # a whole digest is asked for, not its beginning
        load_judge("detoxify:original", detoxify_sha256=sha256(path)[:8])


def test_detoxify_is_downloaded_once_and_checked_by_its_name(
    release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = release("made.ckpt")
    published = tmp_path / f"toxic_original-{sha256(made)[:8]}.ckpt"
    made.rename(published)
    cached = tmp_path / "torch" / "hub" / "checkpoints" / published.name
    monkeypatch.setitem(__import__("detoxify.detoxify").detoxify.MODEL_URLS, "original", published.as_uri())
    assert load_judge("detoxify:original").labels == SIX
    assert cached.read_bytes() == published.read_bytes()
    published.unlink()
    assert load_judge("detoxify:original").labels == SIX
    cached.unlink()
    with pytest.raises(InputError, match=r"cannot download file:.*; put the file at .*hf:FOLDER:LABEL, or use mini"):
        load_judge("detoxify:original")


def test_a_download_of_something_else_is_not_kept(
    release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = tmp_path / "toxic_original-00000000.ckpt"
    release("made.ckpt").rename(published)
    monkeypatch.setitem(__import__("detoxify.detoxify").detoxify.MODEL_URLS, "original", published.as_uri())
    with pytest.raises(InputError, match=r'expected "00000000", got "[0-9a-f]{64}"'):
        load_judge("detoxify:original")
    assert not list((tmp_path / "torch" / "hub" / "checkpoints").iterdir())


class Payload:
    """What a malicious pickle runs when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("write", [torch.save, lambda thing, path: path.write_bytes(pickle.dumps(thing, protocol=2))])
def test_code_in_a_checkpoint_does_not_run_even_if_its_digest_is_vouched_for(
    write: Any, release: Release, tmp_path: Path
) -> None:
    path = release()
    write({"state_dict": Payload(tmp_path / "ran"), "config": {}}, path)
    with pytest.raises(InputError, match="is not a Detoxify checkpoint"):
        load_judge("detoxify:original", detoxify_sha256=sha256(path))
    assert not (tmp_path / "ran").exists()


def test_a_checkpoint_that_lacks_weights_or_is_none(release: Release) -> None:
    path = release(drop="bert.encoder.layer.1.output.dense.weight")
    with pytest.raises(InputError, match=r"lacks the weights of bert\.encoder\.layer\.1"):
        load_judge("detoxify:original", detoxify_sha256=sha256(path))
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="is not a Detoxify checkpoint"):
        load_judge("detoxify:original", detoxify_sha256=sha256(path))


# ------------------------------------------------------------------------------------------------------- the command


def score_lines(config: ScoreConfig, text: str = "") -> list[dict[str, Any]]:
    output = io.StringIO()
    score(config, io.StringIO(text), output)
    return [json.loads(line) for line in output.getvalue().splitlines()]


def test_score_writes_a_line_for_each_line(folder: Path) -> None:
    lines = score_lines(ScoreConfig(reward=f"hf:{folder}:toxicity", batch_size=1), "\n".join([*TEXTS, "", "ü ☃\n"]))
    assert [line["text"] for line in lines] == [*TEXTS, "", "ü ☃"]
    assert list(lines[0]) == ["text", *SIX]
    judged = load_judge(f"hf:{folder}:toxicity")(TEXTS)
    for row, line in enumerate(lines[: len(TEXTS)]):
        assert line == {"text": TEXTS[row], **{label: pytest.approx(judged[label][row], abs=2e-6) for label in SIX}}


def test_score_calls_the_named_label_toxicity_where_there_is_none(tmp_path: Path) -> None:
    build_classifier(tmp_path, ["neutral", "rude"], biases=[0.0, math.log(3)])
    assert score_lines(ScoreConfig(reward=f"hf:{tmp_path}:rude"), "you") == [
        {"text": "you", "toxicity": 0.75, "neutral": 0.25}
    ]


def test_score_reads_a_file(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_bytes("\ufeffyou are late\r\nkind\r\n".encode())
    assert [line["text"] for line in score_lines(ScoreConfig(file=str(path), reward=f"hf:{folder}:toxicity"))] == [
        "you are late",
        "kind",
    ]


@pytest.mark.parametrize(
    ("content", "says"), [(b"kind\n" * 5000 + b"caf\xe9\n", "is not UTF-8"), (b"", "is empty"), (None, "no file at")]
)
def test_score_refuses_bad_files_before_it_writes(
    content: bytes | None, says: str, folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "lines.txt"
    if content is not None:
        path.write_bytes(content)
    output = io.StringIO()
    with pytest.raises(InputError, match=says) as raised:
        score(ScoreConfig(file=str(path), reward=f"hf:{folder}:toxicity"), io.StringIO(), output)
    assert str(path) in str(raised.value)
    assert not output.getvalue()


class Stream(io.TextIOBase):
    """Lines that come one by one, and cannot be read twice."""

    def __init__(self, count: int) -> None:
        self.count, self.read_lines = count, 0

    def readable(self) -> bool:
        return True

    def readline(self, size: int = -1) -> str:  # type: ignore[override]
        if self.read_lines == self.count:
            return ""
        self.read_lines += 1
        return f"you are late {self.read_lines}\n"


def test_score_streams(folder: Path) -> None:
    stream, read_at_write = Stream(1000), []

    class Output(io.StringIO):
        def writelines(self, lines: Any) -> None:
            super().writelines(lines)
            read_at_write.append((stream.read_lines, self.getvalue().count("\n")))

    output = Output()
    score(ScoreConfig(reward=f"hf:{folder}:toxicity", batch_size=16), stream, output)  # type: ignore[arg-type]
    assert read_at_write[0] == (128, 128)  # eight batches, and not one line more
    assert read_at_write[-1] == (1000, 1000)


def test_score_says_how_many_lines_were_cut(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    score_lines(ScoreConfig(reward=f"hf:{folder}:toxicity"), "bus " * 100 + "\nyou\n")
    assert "1 lines were longer than" in caplog.text
    assert f"({POSITIONS} tokens)" in caplog.text
