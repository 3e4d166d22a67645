"""recipes/mini/groups.py: the sentences as they are written, and what is counted, by scores made by hand."""

import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertForSequenceClassification

sys.path.insert(0, str(Path(__file__).parents[2] / "recipes/mini"))
groups = pytest.importorskip("groups")
page = pytest.importorskip("page")
classifier = pytest.importorskip("classifier")
data = pytest.importorskip("classifier_data")


def test_sentences():
    assert groups.with_person("{A} met {a} and many {plural}. {Plural}!", "elderly person | elderly people") == (
        "An elderly person met an elderly person and many elderly people. Elderly people!"
    )
    assert groups.with_person("Leon is {a}.", "Pole | Poles") == "Leon is a Pole."


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
    assert found["all not trained on"]["n"] == 10 * 20
    assert found["all groups"]["n"] == 800
    assert found["no group"]["n"] == 200
    assert found["nationality"]["mean"]["mean"] == pytest.approx(1 / 8)
    assert found["all groups"]["above_half"] == found["nationality"]["above_half"] == 20
    assert found["no group"]["more_than_control"]["mean"] == 0
    assert not any("{" in text or "|" in text for text in seen)
    assert len(page.groups({"mini": found, "other": found}).splitlines()) == 2 + 8 + 3


def test_a_word_becomes_a_piece_with_its_embedding(tmp_path):
    """The pieces that were there keep their numbers and their weights."""
    old = [*classifier.SPECIAL, "ni", "##ger", "##ian", "a"]
    (tmp_path / "vocab.txt").write_text("\n".join([*old, "greek", "nigerian"]), "utf-8")
    embeddings = torch.arange(11 * 4, dtype=torch.float32).reshape(11, 4)
    save_file({"embeddings.word_embeddings.weight": embeddings}, tmp_path / "model.safetensors")
    config = BertConfig(
        vocab_size=9, hidden_size=4, num_hidden_layers=1, num_attention_heads=1, intermediate_size=4, num_labels=6
    )
    model = BertForSequenceClassification(config)
    before = model.get_input_embeddings().weight.detach().clone()
    tokenizer = classifier.fast_tokenizer(old)
    assert tokenizer.tokenize("A Nigerian") == ["a", "ni", "##ger", "##ian"]
    model, tokenizer = classifier.widen(model, tokenizer, tmp_path, ["Nigerian", "unknown"])
    assert tokenizer.tokenize("A Nigerian") == ["a", "nigerian"]
    after = model.get_input_embeddings().weight
    assert torch.equal(after[:9], before)
    assert torch.equal(after[9:], embeddings[10:])
    assert model.config.vocab_size == 10


def test_a_name_says_nothing_either_way():
    made = data.people_examples(random.Random(0))
    names = [name.split(" | ")[0] for name in data.load_people()["names"]]
    assert len(made) == 2800
    assert sum(example.labels[0] for example in made) == 800
    reports = made[1600:]
    assert sum(any(f"the {name}" in example.text for name in names) for example in reports) > 0.7 * len(reports)
    test_sentences = groups.yaml.safe_load(groups.LISTS.read_text("utf-8"))["templates"]
    assert not set(test_sentences) & set(data.load_people()["sentences"])
