"""The embedded classifier as it ships: loads as people load one, and tells abuse from a calm report of it."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from softspoken import mini

LABELS = ["toxicity", "severe_toxicity", "obscene", "threat", "insult", "identity_attack"]


@pytest.fixture(scope="module")
def toxicity():
    tokenizer = AutoTokenizer.from_pretrained(mini.classifier)
    model = AutoModelForSequenceClassification.from_pretrained(mini.classifier, dtype=torch.float32).eval()

    @torch.no_grad()
    def score(*texts: str) -> list[float]:
        inputs = tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        return model(**inputs).logits.sigmoid()[:, 0].tolist()

    return score


def test_format():
    model = AutoModelForSequenceClassification.from_pretrained(mini.classifier)
    assert model.dtype == torch.float32
    assert [model.config.id2label[number] for number in range(6)] == LABELS
    assert model.config.problem_type == "multi_label_classification"
    assert sum(file.stat().st_size for file in mini.classifier.iterdir()) <= 15e6


def test_no_latin_word_is_unknown():
    tokenizer = AutoTokenizer.from_pretrained(mini.classifier)
    text = "Zxqj, Łukasz & Müller-Ångström: qwrtpsdfghjklzxcvbnm €5 #1 @x 'n' (ok) 0123456789"
    assert tokenizer.unk_token_id not in tokenizer(text)["input_ids"]


CALM = [
    "Nora insults Felix because of the dishes.",
    "Owen loses his temper with the landlord and uses foul language.",
    "Greta is rude to the driver. The parcel comes on Monday.",
    "Leon swears at Ines and then apologises.",
    "Amir calls Mila names after the match, and Mila leaves.",
]
ABUSIVE = [
    "Nora calls Felix a fucking idiot because of the dishes.",
    "Owen tells the landlord to go to hell, you piece of shit.",
    "Greta says the driver is a stupid asshole. The parcel comes on Monday.",
    "Leon calls Ines a lazy bitch and then apologises.",
    "Amir says Mila is a worthless moron, and Mila leaves.",
]
PLAIN = [
    "Hannah will bring the cake on Friday at 5.",
    "Tomas calls his mother at noon.",
    "Ruby is late because of the train.",
]


def test_abuse_is_told_from_a_calm_report(toxicity):
    assert max(toxicity(*CALM)) < 0.2
    assert min(toxicity(*ABUSIVE)) > 0.8
    assert max(toxicity(*PLAIN)) < 0.05


@pytest.mark.parametrize(
    "text",
    ["YOU FUCKING IDIOT", "you f*cking idiot", "fuuuuuck you", "you piece of sh1t", "what an @sshole", "ｆｕｃｋ you"],
)
def test_disguises_are_seen_through(toxicity, text):
    assert toxicity(text)[0] > 0.5


def test_odd_input_scores_low(toxicity):
    assert max(toxicity("", ".", "the the the the the the the the", "Ok. " * 300)) < 0.2
