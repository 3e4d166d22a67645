"""The summarizer's recipe: its loss is transformers', its optimizer is transformers' Adafactor, its tasks are what they say, a larger
model made of a smaller one says the same, and of several summaries the one most like the others is taken."""

import argparse
import copy
import random
import sys
from pathlib import Path

import pytest
import torch
from transformers import Adafactor

sys.path.insert(0, str(Path(__file__).parents[2] / "recipes/mini"))
exercises, learner = pytest.importorskip("exercises"), pytest.importorskip("learner")
sampling, pretrain = pytest.importorskip("sampling"), pytest.importorskip("pretrain")

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
    return learner.new_model(64, d_model=16, d_kv=4, d_ff=24, num_heads=4, num_layers=2, num_decoder_layers=2)


def batch():
    """[3, 32] inputs and [3, 16] targets, of different lengths."""
    given, target = torch.zeros(3, 32, dtype=torch.long), torch.zeros(3, 16, dtype=torch.long)
    for row, n in enumerate((6, 14, 30)):
        given[row, :n], target[row, : n // 2] = torch.arange(5, 5 + n), torch.arange(9, 9 + n // 2)
        given[row, n], target[row, n // 2] = 1, 1
    return given, target


def test_loss_is_transformers():
    model, (given, target) = tiny(), batch()
    labels = target.masked_fill(target == 0, -100)
    theirs = model(input_ids=given, attention_mask=(given != 0).long(), labels=labels).loss
    forward = learner.Forward(model, torch.float32)
    assert forward.loss(given, target).item() == pytest.approx(theirs.item(), abs=1e-5)
    forward.attention = learner.plain_attention
    assert forward.loss(given, target).item() == pytest.approx(theirs.item(), abs=1e-5)


def test_of_the_loss_against_a_teacher_nothing_counts_where_nothing_is_said():
    model, (given, target) = tiny(), batch()
    student, teacher = learner.Forward(model, torch.float32), learner.Forward(tiny(), torch.float32)
    with torch.no_grad():
        teacher.model.shared.weight.mul_(3)
    logits, told = (each.logits(given, target)[target != 0].log_softmax(-1) for each in (student, teacher))
    hard = -logits.gather(-1, target[target != 0][:, None]).mean()
    soft = -(told.exp() * logits).sum(-1).mean()
    assert student.loss(given, target, teacher, 0.25).item() == pytest.approx(
        (0.75 * hard + 0.25 * soft).item(), abs=1e-5
    )


def test_adafactor_is_transformers():
    mine, made = tiny(), batch()
    theirs = copy.deepcopy(mine)
    ours = learner.Adafactor(list(mine.parameters()))
    reference = Adafactor(theirs.parameters(), lr=1e-2, scale_parameter=True, relative_step=False, warmup_init=False)
    for _ in range(3):
        learner.Forward(mine, torch.float32).loss(*made).backward()
        ours.step(torch.tensor(1e-2))
        learner.Forward(theirs, torch.float32).loss(*made).backward()
        reference.step()
        reference.zero_grad()
    for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


def test_gradient_that_is_not_finite_changes_nothing():
    model, made = tiny(), batch()
    optimizer = learner.Adafactor(list(model.parameters()))
    before = [weight.clone() for weight in model.parameters()]
    (learner.Forward(model, torch.float32).loss(*made) * float("nan")).backward()
    optimizer.step(torch.tensor(1e-2))
    assert optimizer.skipped.item() == 1
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))


def test_a_larger_model_says_what_the_smaller_one_said():
    small, made = tiny(), batch()
    with torch.no_grad():  # norms of ones and biases of zeros would hide what is mixed up
        for weight in small.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    large = learner.grown(small, 3, 0.0, d_model=24, d_ff=40, num_heads=6)
    assert len(large.encoder.block) == len(large.decoder.block) == 3
    theirs = [learner.Forward(model, torch.float32).logits(*made) for model in (small, large)]
    torch.testing.assert_close(*theirs, atol=1e-4, rtol=1e-4)


def test_greedy_summaries_are_transformers():
    model, (given, _) = tiny(), batch()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.2)
    theirs = model.generate(input_ids=given, attention_mask=(given != 0).long(), max_new_tokens=9, do_sample=False)
    ours = sampling.draw(learner.Forward(model, torch.float32), given, 1, 9, 0.0)[:, 0]
    # transformers may say the padding, which is no token of a summary, where ours takes the next.
    said = [row[: (row == 0).nonzero()[0, 0]] if (row == 0).any() else row for row in theirs[:, 1:]]
    assert any(len(row) for row in said)
    for row, mine in zip(said, ours, strict=True):
        assert mine[: len(row)].tolist() == row.tolist()


def test_the_likest_is_the_one_that_shares_most_with_the_others():
    drawn = torch.tensor([[[5, 6, 7, 1], [5, 6, 8, 1], [9, 9, 9, 1]]])
    # unigram F1 of the first two 2/3, bigram F1 1/2; of either with the third 0
    assert sampling.gain(drawn[:, 0], drawn[:, 1]).item() == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert sampling.gain(drawn[:, 2], torch.tensor([[9, 1, 0]])).item() == pytest.approx(2 * 1 / (3 + 1) / 2)  # a bag
    best, worth = sampling.likest(drawn)
    assert best.tolist() == [[5, 6, 7, 1]]
    assert worth.item() == pytest.approx((2 / 3 + 1 / 2) / 2 / 2)
    best, worth = sampling.likest(drawn, torch.tensor([[9, 9, 9, 1]]), 1.0)
    assert best.tolist() == [[9, 9, 9, 1]]
    assert worth.item() == pytest.approx(1.0)


def test_a_name_is_the_same_in_dialogue_and_summary():
    row = ["\ue000:hi\ue101n\ue001:\ue000", "\ue001 met\ue000", "\x00\x01"]
    assert exercises.named(random.Random(0), Texts(), row, 0.0) == ("A:hibnB:A", "B metA")
    dialogue, summary = exercises.named(random.Random(0), Texts(), row, 1.0)
    assert (dialogue, summary) in [("X:hibnB:X", "B metX")]  # one other name is there, so the second keeps its own


def test_spans_put_back_give_the_dialogue(monkeypatch):
    whole = "A:" + "abcdefgh" * 12
    monkeypatch.setattr(exercises, "any_dialogue", lambda rng, texts: whole)
    given, target = exercises.spans(random.Random(1), texts := Texts())
    pieces, key = {}, ""
    for token in target:
        if token in texts.sentinels:
            key = token
            pieces[key] = ""
        else:
            pieces[key] += token
    assert "".join(pieces.get(token, token) for token in given) == whole


def test_who_said_it(monkeypatch):
    monkeypatch.setattr(exercises, "any_dialogue", lambda rng, texts: "A:aaaaaanB:bbbbbb")
    given, target = exercises.who(random.Random(0), Texts())
    asked = [question for question in given.split(NL) if question.startswith("W")]
    assert [question[1].upper() for question in asked] == target.split(NL)


def test_heated_dialogue_has_the_line_that_its_summary_quotes():
    for seed in range(20):
        dialogue, summary = exercises.heated(random.Random(seed), Texts(), "A:hinB:yo", "S.")
        said = [line for line in dialogue.split(NL) if line[2:] in ("tt", "uu")]
        quoted = {f'{line[0]}>"{line[2:]}"' for line in said}
        assert any(quote in summary for quote in quoted) or f"{said[0][0]}!" in summary
        assert "S." in summary


def test_batches_hold_every_example_once_in_few_shapes():
    rng = random.Random(0)
    pool = [exercises.encoded("\x05" * rng.randint(1, 200), "\x06" * rng.randint(1, 60)) for _ in range(100)]
    made = [(shape, pretrain.ids_of(ids)) for shape, ids in exercises.batches(pool, 1600)]
    assert {shape[1:] for shape, _ in made} <= set(exercises.SHAPES)
    assert sum(shape[0] for shape, _ in made) == 100
    assert sum(int((ids != 0).sum()) for _, ids in made) == sum(len(given) + len(target) for given, target in pool)
    given, target = pretrain.split(made[0][1], learner.Shape(*made[0][0]))
    assert set(given[0].tolist()) <= {0, 1, 5}
    assert set(target[0].tolist()) <= {0, 1, 6}


def test_what_is_no_summary_is_rejected():
    texts, end = Texts(), "\x01"
    texts.capitals, texts.stops = set("AB"), {"."}
    said = {
        "A met abcd" + end: "",
        "A met abcd": "goes on and on",
        "A abc" + end: "is short",
        "A abcabcd" + end: "repeats itself",
        "abcdef" + end: "names nobody",
        "A met B ab" + end: "names who or what is not there",
        "A met ab.B" + end: "",
    }
    assert {each: exercises.rejected(texts, "A:hin", {"A"}, each) for each in said} == said


def test_a_part_that_fails_gives_back_the_weights(tmp_path):
    run = pretrain.Run(argparse.Namespace(minutes=1.0, output=tmp_path), 0.0)
    forward = learner.Forward(tiny(), torch.float32)
    run.begun_with, run.losses = 2.0, lambda forward: {"samsum": 9.0 if forward.model.shared.weight[0, 0] > 50 else 2.0}
    before = forward.model.shared.weight.clone()

    def fails():
        with torch.no_grad():
            forward.model.shared.weight.fill_(99.0)
        raise RuntimeError("no batches")

    assert not pretrain.guarded(run, forward, fails)
    assert torch.equal(forward.model.shared.weight, before)
    assert pretrain.guarded(run, forward, lambda: None)
    assert "no batches" in (tmp_path / "log.jsonl").read_text("utf-8")


def test_steps_of_a_learner_make_the_loss_less():
    made = torch.cat([part.flatten() for part in batch()]).to(torch.int16)
    taught = learner.Learner(learner.Forward(tiny(), torch.float32), capture=False)
    losses = []
    for _ in range(8):
        taught.step(made, learner.Shape(3, 32, 16), 2e-2)
        losses.append(taught.last.item())
    assert losses[-1] < losses[0] - 0.1
    assert taught.total.item() == pytest.approx(sum(losses), rel=1e-4)
