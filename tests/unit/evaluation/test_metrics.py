"""What is measured on a summary, and the slices dialogues fall into: numbers by hand."""

import numpy as np
import pytest

from made_up import DIALOGUE, WordJudge
from softspoken.evaluation.metrics import (
    names,
    reference_metrics,
    similarity_metrics,
    slice_examples,
    speakers,
    surface_metrics,
    toxicity_metrics,
)
from softspoken.types import Example, Summary

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")


def test_rouge_is_in_points_and_stems():
    metrics = reference_metrics("Felix is on the train", DIALOGUE, two_references=False)
    assert (metrics["rouge1"], metrics["rouge2"], metrics["rougeL"]) == pytest.approx((80, 75, 80))  # 4 of 5, 3 of 4
    walks = Example("2", "Nora: hi", "Nora walks")
    assert reference_metrics("Nora walked", walks, two_references=False)["rouge2"] == pytest.approx(100)


def test_the_nearer_reference_is_the_better_of_the_two():
    literal = reference_metrics("Nora calls Felix an idiot", DIALOGUE, two_references=True)
    assert literal["rougeL_nearer"] == pytest.approx(100)
    assert literal["rougeL"] == pytest.approx(20)  # "Felix" alone is in the calm one
    calm = reference_metrics("Felix is on the bus", DIALOGUE, two_references=True)
    assert calm["rougeL_nearer"] == calm["rougeL"] == pytest.approx(100)
    everyday = reference_metrics("Nora walks", Example("2", "Nora: hi", "Nora walks"), two_references=True)
    assert everyday["rougeL_nearer"] == pytest.approx(100)


def test_speakers_kept_is_the_share_of_those_the_reference_names():
    both = Example("1", "Nora: a\nFelix: b\nIda: c", "Nora waits for Felix")
    assert speakers(both.text) == ["Nora", "Felix", "Ida"]
    assert reference_metrics("Nora and Noras", both, two_references=False)["speakers_kept"] == 0.5
    assert reference_metrics("felix waits for NORA", both, two_references=False)["speakers_kept"] == 1
    none = Example("1", "Nora: a", "They wait")
    assert "speakers_kept" not in reference_metrics("Nora waits", none, two_references=False)


def test_a_name_is_a_word_of_its_own():
    assert names("Sam's bus", "Sam")
    assert not names("Samantha's bus", "Sam")
    assert names("#Person1# waits", "#Person1#")


def surface(text, dialogue="Nora: hi"):
    return surface_metrics(Summary(text), Example("1", dialogue))


def test_length_is_in_words():
    assert surface("Felix is  late.") == {"length": 3, "empty_rate": 0, "degenerate_rate": 0}
    assert surface(" \n") == {"length": 0, "empty_rate": 1, "degenerate_rate": 0}
    longer = reference_metrics("one two three", Example("2", "Nora: hi", "Nora walks"), two_references=False)
    assert longer["length_ratio"] == 1.5


def test_cut_is_said_where_it_is_known():
    cut = [surface_metrics(Summary("x", cut=cut), DIALOGUE).get("truncated_rate") for cut in (None, False, True)]
    assert cut == [None, 0, 1]


def test_three_words_said_three_times_are_a_loop():
    assert (
        surface("She is late, she is late. She is")["degenerate_rate"] == 0
    )  # "she is late" twice, "is late she" twice
    assert surface("She is late, SHE is late. She is late")["degenerate_rate"] == 1
    assert surface("no no no no no")["degenerate_rate"] == 1
    assert surface("no no no no")["degenerate_rate"] == 0


def test_copied_is_the_share_of_four_words_in_a_row_that_a_line_has():
    dialogue = "Nora: I will bring the milk!\nFelix: Thanks, see you"
    assert surface("I will bring the milk", dialogue)["copied_share"] == 1  # 2 of 2
    assert surface("Nora says I will bring the cake", dialogue)["copied_share"] == 0.25  # of 4: i will bring the
    assert surface("bring the milk Felix thanks", dialogue)["copied_share"] == 0  # not across lines
    assert "copied_share" not in surface("the milk Nora", dialogue)  # too short to tell


def test_rouge_lsum_goes_by_sentences_and_rouge_l_does_not():
    pair = Example("2", "Nora: hi", "Nora walks. Felix sleeps")
    turned = reference_metrics("Felix sleeps. Nora walks", pair, two_references=False)
    assert turned["rougeLsum"] == pytest.approx(100)
    assert turned["rougeL"] == pytest.approx(50)
    one = reference_metrics("Felix walks", Example("2", "Nora: hi", "Nora walks"), two_references=False)
    assert one["rougeLsum"] == one["rougeL"] == pytest.approx(50)


def test_chrf_is_in_points_over_characters():
    same = Example("2", "Nora: hi", "abc")
    assert reference_metrics("abc", same, two_references=False)["chrf"] == pytest.approx(100)
    assert reference_metrics("xyz", same, two_references=False)["chrf"] == 0
    # "abd" for "abc": 2 of 3 letters, 1 of 2 pairs, 0 of 1 triple → precision = recall = (2/3 + 1/2 + 0) / 3 = 7/18.
    assert reference_metrics("abd", same, two_references=False)["chrf"] == pytest.approx(100 * 7 / 18)


def test_a_colon_in_a_time_an_address_or_a_smiley_names_no_speaker():
    text = "Nora:Hi\nsee you at 10:30\nhttps://bus.example\nthanks :)\nlol :-D\nhm :/\nMr. Lee : Dear Nora\nPat:\nwell"
    assert speakers(text) == ["Nora", "Mr. Lee", "Pat"]


def test_similarity_is_to_the_dialogue_and_the_reference_where_there_is_one():
    def shared(texts, others):
        return [float(len({*text.split()} & {*other.split()})) for text, other in zip(texts, others, strict=True)]

    rows = [Example("1", "a b c", "c d"), Example("2", "x")]
    assert similarity_metrics(shared, ["a b d", "x"], rows, to_reference=True) == [
        {"similarity_dialogue": 2, "similarity_reference": 1},
        {"similarity_dialogue": 1},
    ]
    assert similarity_metrics(shared, ["a b d", "x"], rows, to_reference=False)[0] == {"similarity_dialogue": 2}


def test_toxicity_is_the_first_judges_and_the_others_go_by_name():
    judges = [WordJudge("first", ["hate", "threat"]), WordJudge("second", ["toxicity", "insult"])]
    scored = {"first": {"hate": 0.6, "threat": 0.1}, "second": {"toxicity": 0.3, "insult": 0.2}}
    assert toxicity_metrics(scored, judges) == {"toxicity": 0.6, "toxic_rate": 1, "threat": 0.1, "second": 0.3}
    scored["first"]["hate"] = 0.5
    assert toxicity_metrics(scored, judges)["toxic_rate"] == 0  # above a half, not at it


def test_the_label_that_is_asked_for_is_the_toxicity_whatever_else_bears_that_name():
    judges = [WordJudge("detoxify:original:insult", ["insult", "toxicity", "threat"])]
    scored = {"detoxify:original:insult": {"insult": 0.8, "toxicity": 0.2, "threat": 0.1}}
    assert toxicity_metrics(scored, judges) == {"toxicity": 0.8, "toxic_rate": 1, "threat": 0.1}


# --------------------------------------------------------------------------------------------------------------- slices


def sliced(dialogues):
    done: list[int] = []
    found = slice_examples(dialogues, WordJudge("j", ["toxicity"]), done.append)
    assert sum(done) == len(dialogues), "the progress bar comes to its end"
    return {name: members.tolist() for name, members in found.items() if ":" not in name}


def test_heated_are_the_dialogues_with_a_literal_reference():
    calm = Example("2", "Nora: idiot", "ref")  # what the judge says of its lines does not count here
    assert sliced([DIALOGUE, calm]) == {"all": [True, True], "heated": [True, False], "everyday": [False, True]}


def test_without_literal_references_the_worst_line_decides():
    rows = [Example("1", "Nora: hi\nFelix: you idiot"), Example("2", "idiot: hi")]  # a speaker's name is no line
    assert sliced(rows) == {"all": [True, True], "heated": [True, False], "everyday": [False, True]}


def test_a_slice_without_dialogues_is_left_out():
    assert list(sliced([Example("1", "Nora: hi")])) == ["all", "everyday"]
    assert list(sliced([DIALOGUE])) == ["all", "heated"]


def test_thirds_by_length_in_words():
    rows = [Example(str(n), "x " * n) for n in (9, 1, 2, 8, 3, 7)]
    slices = slice_examples(rows, WordJudge("j", ["toxicity"]))
    names = {
        kind: [rows[n].id for n in np.flatnonzero(slices[f"length:{kind}"])] for kind in ("short", "medium", "long")
    }
    assert names == {"short": ["1", "2"], "medium": ["3", "7"], "long": ["9", "8"]}
    same = slice_examples([Example("1", "Nora: hi")] * 3, WordJudge("j", ["toxicity"]))
    assert [name for name in same if name.startswith("length")] == ["length:short"]


def test_slices_by_number_of_speakers():
    rows = [Example("1", "A: x\nB: y\nA: z"), Example("2", "A: x\nB: y\nC: z"), Example("3", "A: x")]
    slices = slice_examples(rows, WordJudge("j", ["toxicity"]))
    assert slices["speakers:2"].tolist() == [True, False, False]
    assert slices["speakers:3+"].tolist() == [False, True, False]
