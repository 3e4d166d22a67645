"""Detoxify's checkpoints: scored as the detoxify package does, from torch.hub's place, and never trusted without a digest."""

import hashlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from softspoken.rewards.terms import load_judge, load_reward
from softspoken.types import Example, InputError
from tiny_classifiers import POSITIONS, SIX, SIZE, TEXTS, WORDS, tokenizer

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
    dialogues = [Example("1", "x")]
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
    with pytest.raises(InputError, match="give its 64 hexadecimal digits"):  # its beginning is no check against malice
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
