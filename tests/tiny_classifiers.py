"""Classifiers of the real kinds, tiny and random, for tests."""

from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

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
