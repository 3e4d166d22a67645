"""What is measured on a summary, and the slices dialogues fall into: numbers by hand."""

from dataclasses import replace

import pytest

from made_up import DIALOGUE, WordJudge
from softspoken.evaluation.metrics import (
    reference_metrics,
    similarity_metrics,
    slice_examples,
    surface_metrics,
    toxicity_metrics,
)
from softspoken.tasks.summarization import TASK
from softspoken.types import Example, InputError, Response

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


def surface(text, dialogue="Nora: hi"):
    return surface_metrics(Response(text), Example("1", dialogue))


def test_length_is_in_words():
    assert surface("Felix is  late.") == {"length": 3, "empty_rate": 0, "degenerate_rate": 0}
    assert surface(" \n") == {"length": 0, "empty_rate": 1, "degenerate_rate": 0}
    longer = reference_metrics("one two three", Example("2", "Nora: hi", "Nora walks"), two_references=False)
    assert longer["length_ratio"] == 1.5


def test_cut_is_said_where_it_is_known():
    cut = [surface_metrics(Response("x", cut=cut), DIALOGUE).get("truncated_rate") for cut in (None, False, True)]
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


def test_similarity_is_to_the_dialogue_and_the_reference_where_there_is_one():
    def shared(texts, others):
        return [float(len({*text.split()} & {*other.split()})) for text, other in zip(texts, others, strict=True)]

    rows = [Example("1", "a b c", "c d"), Example("2", "x")]
    assert similarity_metrics(shared, ["a b d", "x"], rows, "dialogue") == [
        {"similarity_dialogue": 2, "similarity_reference": 1},
        {"similarity_dialogue": 1},
    ]


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


def test_the_parts_of_a_task_stand_beside_all_and_empty_ones_are_left_out():
    task = replace(
        TASK,
        slices=lambda examples, toxicity: {
            "toxic": [p > 0.5 for p in toxicity([e.text for e in examples])],
            "none": [False] * 2,
        },
    )
    done: list[int] = []
    found = slice_examples(task, [Example("1", "idiot"), Example("2", "hi")], WordJudge("j", ["toxicity"]), done.append)
    assert {name: members.tolist() for name, members in found.items()} == {"all": [True, True], "toxic": [True, False]}
    assert done == [2], "the progress bar moves"
    with pytest.raises(InputError, match="slice 'none' has 2 members for 1 examples"):
        slice_examples(task, [Example("1", "idiot")], WordJudge("j", ["toxicity"]), done.append)
