"""recipes/mini/pretrain.py: its loss is transformers', its optimizer is transformers' Adafactor, its tasks are what they say."""

import copy
import random
import sys
from pathlib import Path

import pytest
import torch
from transformers import Adafactor

sys.path.insert(0, str(Path(__file__).parents[2] / "recipes/mini"))
pretrain = pytest.importorskip("pretrain")

NL, COLON = "n", ":"


class Texts:
    """Letters for tokens: dialogues of lines `A:words`."""

    def __init__(self):
        self.nl, self.colon = NL, COLON
        self.sentinels = [chr(0x100 + number) for number in range(32)]
        self.letters = self.starts = set("abcdefghijkl")
        self.rarity = dict.fromkeys("abcdefghijkl", 1.0)
        self.asked = {"copy": "C", "who": "W", "what": "Q", "about": "~", "ask": "?"}
        self.about = {"verbs": [[ord(">")]], "calm": [[ord("!")]]}
        self.pool = [["X", "x"]]
        self.sets = {"names": [["A", "a"], ["B", "b"]], "toxic": [["tt", '"tt"'], ["uu", '"uu"']]}


def tiny():
    return pretrain.new_model(64, d_model=16, d_kv=4, d_ff=24, num_heads=4, num_layers=2, num_decoder_layers=2)


def batch():
    pairs = [
        pretrain.encoded("".join(map(chr, range(5, 5 + n))), "".join(map(chr, range(9, 9 + n // 2))))
        for n in (6, 14, 30)
    ]
    return pretrain.on_device(pretrain.arrays(pairs), torch.device("cpu"))


def test_loss_is_transformers():
    model, made = tiny(), batch()
    labels = torch.full(made["shifted"].shape, -100)
    labels.view(-1)[made["places"]] = made["labels"]
    theirs = model(input_ids=made["inputs"].long(), attention_mask=(made["inputs"] != 0).long(), labels=labels).loss
    forward = pretrain.Forward(model, torch.float32)
    assert forward.loss(made).item() == pytest.approx(theirs.item(), abs=1e-5)
    forward.attention = pretrain.plain_attention
    assert forward.loss(made).item() == pytest.approx(theirs.item(), abs=1e-5)


def test_adafactor_is_transformers():
    mine, made = tiny(), batch()
    theirs = copy.deepcopy(mine)
    ours = pretrain.Adafactor(list(mine.parameters()))
    reference = Adafactor(theirs.parameters(), lr=1e-2, scale_parameter=True, relative_step=False, warmup_init=False)
    for _ in range(3):
        pretrain.Forward(mine, torch.float32).loss(made).backward()
        ours.step(1e-2)
        pretrain.Forward(theirs, torch.float32).loss(made).backward()
        reference.step()
        reference.zero_grad()
    for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


def test_gradient_that_is_not_finite_changes_nothing():
    model, made = tiny(), batch()
    optimizer = pretrain.Adafactor(list(model.parameters()))
    before = [weight.clone() for weight in model.parameters()]
    (pretrain.Forward(model, torch.float32).loss(made) * float("nan")).backward()
    optimizer.step(1e-2)
    assert optimizer.skipped.item() == 1
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))


def test_a_name_is_the_same_in_dialogue_and_summary():
    row = ["\ue000:hi\ue101n\ue001:\ue000", "\ue001 met\ue000", "\x00\x01"]
    assert pretrain.named(random.Random(0), Texts(), row, 0.0) == ("A:hibnB:A", "B metA")
    dialogue, summary = pretrain.named(random.Random(0), Texts(), row, 1.0)
    assert (dialogue, summary) in [("X:hibnB:X", "B metX")]  # one other name is there, so the second keeps its own


def test_spans_put_back_give_the_dialogue(monkeypatch):
    whole = "A:" + "abcdefgh" * 12
    monkeypatch.setattr(pretrain, "any_dialogue", lambda rng, texts: whole)
    given, target = pretrain.spans(random.Random(1), texts := Texts())
    pieces, key = {}, ""
    for token in target:
        if token in texts.sentinels:
            key = token
            pieces[key] = ""
        else:
            pieces[key] += token
    assert "".join(pieces.get(token, token) for token in given) == whole


def test_who_said_it(monkeypatch):
    monkeypatch.setattr(pretrain, "any_dialogue", lambda rng, texts: "A:aaaaaanB:bbbbbb")
    given, target = pretrain.who(random.Random(0), Texts())
    asked = [question for question in given.split(NL) if question.startswith("W")]
    assert [question[1].upper() for question in asked] == target.split(NL)


def test_heated_dialogue_has_the_line_that_its_summary_quotes():
    for seed in range(20):
        dialogue, summary = pretrain.heated(random.Random(seed), Texts(), "A:hinB:yo", "S.")
        said = [line for line in dialogue.split(NL) if line[2:] in ("tt", "uu")]
        quoted = {f'{line[0]}>"{line[2:]}"' for line in said}
        assert any(quote in summary for quote in quoted) or f"{said[0][0]}!" in summary
        assert "S." in summary


def test_batches_hold_every_example_once():
    rng = random.Random(0)
    pool = [pretrain.encoded("\x05" * rng.randint(1, 90), "\x06" * rng.randint(1, 30)) for _ in range(100)]
    made = list(pretrain.batches(pool, 600))
    assert sum(len(each["inputs"]) for each in made) == 100
    assert sum(len(each["labels"]) for each in made) == sum(len(target) for _, target in pool)


def test_stages_and_rate():
    assert [pretrain.stage_at(gone) for gone in (0.0, 0.3, 0.99, 1.0)] == [0, 1, 2, 2]
    assert pretrain.rate_at(0.1, 1000) == pretrain.RATE
    assert pretrain.rate_at(1.0, 1000) == 0.0
