"""The flagship's own metric and slices."""

import numpy as np

from made_up import DIALOGUE
from softspoken.tasks.summarization import metrics, names, slices, speakers
from softspoken.types import Example


def sliced(dialogues):
    found = slices(dialogues, lambda texts: [float("idiot" in text) for text in texts])
    return {name: np.array(members) for name, members in found.items() if any(members)}


def by_heat(dialogues):
    return {name: members.tolist() for name, members in sliced(dialogues).items() if ":" not in name}


def test_of_several_references_the_one_whose_speakers_are_kept_best_counts():
    several = Example(
        "1", "Nora: hi\nFelix: ho", "Nora and Felix talk.", further_references=("Felix talks.", "They talk.")
    )
    assert metrics("Felix", several) == {"speakers_kept": 1}
    assert metrics("Nora", several) == {"speakers_kept": 0.5}


def test_speakers_kept_is_the_share_of_those_the_reference_names():
    both = Example("1", "Nora: a\nFelix: b\nIda: c", "Nora waits for Felix")
    assert speakers(both.text) == ["Nora", "Felix", "Ida"]
    assert metrics("Nora and Noras", both) == {"speakers_kept": 0.5}
    assert metrics("felix waits for NORA", both) == {"speakers_kept": 1}
    assert metrics("Nora waits", Example("1", "Nora: a", "They wait")) == {}
    assert metrics("Nora waits", Example("1", "Nora: a")) == {}


def test_a_colon_in_a_time_an_address_or_a_smiley_names_no_speaker():
    text = "Nora:Hi\nsee you at 10:30\nhttps://bus.example\nthanks :)\nlol :-D\nhm :/\nMr. Lee : Dear Nora\nPat:\nwell"
    assert speakers(text) == ["Nora", "Mr. Lee", "Pat"]


def test_a_name_is_a_word_of_its_own():
    assert names("Sam's bus", "Sam")
    assert not names("Samantha's bus", "Sam")
    assert names("#Person1# waits", "#Person1#")


def test_heated_are_the_dialogues_with_a_literal_reference():
    calm = Example("2", "Nora: idiot", "ref")  # what the judge says of its lines does not count here
    assert by_heat([DIALOGUE, calm]) == {"heated": [True, False], "everyday": [False, True]}


def test_without_literal_references_the_worst_line_decides():
    rows = [Example("1", "Nora: hi\nFelix: you idiot"), Example("2", "idiot: hi")]  # a speaker's name is no line
    assert by_heat(rows) == {"heated": [True, False], "everyday": [False, True]}


def test_a_slice_without_dialogues_is_left_out():
    assert list(by_heat([Example("1", "Nora: hi")])) == ["everyday"]
    assert list(by_heat([DIALOGUE])) == ["heated"]


def test_thirds_by_length_in_words():
    rows = [Example(str(n), "x " * n) for n in (9, 1, 2, 8, 3, 7)]
    slices = sliced(rows)
    names = {
        kind: [rows[n].id for n in np.flatnonzero(slices[f"length:{kind}"])] for kind in ("short", "medium", "long")
    }
    assert names == {"short": ["1", "2"], "medium": ["3", "7"], "long": ["9", "8"]}
    same = sliced([Example("1", "Nora: hi")] * 3)
    assert [name for name in same if name.startswith("length")] == ["length:short"]


def test_slices_by_number_of_speakers():
    rows = [Example("1", "A: x\nB: y\nA: z"), Example("2", "A: x\nB: y\nC: z"), Example("3", "A: x")]
    slices = sliced(rows)
    assert slices["speakers:2"].tolist() == [True, False, False]
    assert slices["speakers:3+"].tolist() == [False, True, False]
