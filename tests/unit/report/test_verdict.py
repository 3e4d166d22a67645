"""The verdict follows the numbers, and says what speaks against it."""

from dataclasses import replace

import pytest

from made_up import KEPT, LOWER, compared, full_report, report_with, system
from softspoken.report.alternatives import unbeaten, weighed
from softspoken.report.measures import is_alternative, measure, signed_as
from softspoken.report.tables import change_of
from softspoken.report.verdict import judged_systems, remarks, verdicts
from softspoken.types import Interval

UNSETTLED = [compared("rougeL", (0.2, -1.5, 1.9)), compared("rougeL", (0.2, -0.5, 0.9), decoding="sampled")]
LOST = [compared("rougeL", (-5, -6, -4)), compared("rougeL", (0.2, -0.5, 0.9), decoding="sampled")]
SAME = [compared("toxicity", (-0.01, -0.05, 0.03)), compared("toxicity", (0.0, -0.02, 0.02), decoding="sampled")]
ONLY_GREEDY = [LOWER[0], SAME[1]]
HIGHER = [compared("toxicity", (0.1, 0.05, 0.15)), LOWER[1]]


@pytest.mark.parametrize(
    ("comparisons", "outcome", "headline"),
    [
        (LOWER + KEPT, "good", "It worked"),
        (LOWER + UNSETTLED, "mixed", "Less toxic; quality is not settled"),
        (LOWER + LOST, "mixed", "Less toxic, at the price of quality"),
        (LOWER, "mixed", "Less toxic; quality was not measured"),
        (ONLY_GREEDY + KEPT, "mixed", "It worked only in part"),
        (SAME + KEPT, "bad", "No effect is shown"),
        (HIGHER + KEPT, "bad", "It made things worse"),
    ],
)
def test_the_verdict_follows_the_intervals(comparisons, outcome, headline):
    [verdict] = verdicts(report_with(*comparisons))
    assert (verdict.outcome, verdict.headline) == (outcome, headline)
    assert len(verdict.sentences) == 2
    assert all("95 % interval" in sentence or "no references" in sentence for sentence in verdict.sentences)


def test_the_verdict_says_how_many_times_lower():
    # A ratio of 0.125 in 0.1 to 0.2 is 8 times lower, 5 to 10.
    [verdict] = verdicts(report_with(*LOWER, *KEPT, compared("length", (1, 0, 2), (1.1, 1.0, 1.2))))
    assert "from 0.400 to 0.050 decoded greedily (8.0 times lower, 95 % interval 5.0 to 10)" in verdict.sentences[0]
    assert "(4.0 times lower, 95 % interval 2.0 to 5.0)" in verdict.sentences[0]
    assert "+0.2 points (95 % interval −0.5 to +0.9) decoded greedily (length +10 %)" in verdict.sentences[1]


@pytest.mark.parametrize(
    ("ratio", "words"),
    [((0.0, 0.0, 0.0), "none is left"), ((0.1, 0.0, 0.2), "10 times lower, 95 % interval from 5.0 up")],
)
def test_a_toxicity_of_nothing_is_no_division_by_zero(ratio, words):
    [verdict] = verdicts(report_with(compared("toxicity", (-0.4, -0.5, -0.3), ratio), *KEPT))
    assert words in verdict.sentences[0]


def test_the_other_slices_do_not_decide():
    heated = [replace(one, slice="heated") for one in HIGHER]
    [verdict] = verdicts(report_with(*LOWER, *KEPT, *heated))
    assert verdict.outcome == "good"


def test_remarks_say_what_to_know_first():
    assert remarks(report_with(*LOWER)) == []
    few, cut = remarks(report_with(*LOWER, dataset={"id": "x", "split": None, "n": 99, "truncated": 3}))
    assert "Only 99 dialogues" in few
    assert "3 of 99 dialogues" in cut
    [empty] = remarks(report_with(compared("empty_rate", (0.02, 0.01, 0.04))))
    assert "2.0 percentage points more summaries empty" in empty
    [short] = remarks(report_with(compared("length", (-4, -5, -3), (0.6, 0.5, 0.7))))
    assert "40 % shorter" in short


def test_nothing_is_remarked_upon_within_chance():
    """Neither where the interval reaches 0, nor where the permutation test does not bear it out."""
    far = [compared("empty_rate", (0.02, 0.01, 0.04)), compared("length", (-4, -5, -3), (0.6, 0.5, 0.7))]
    near = [compared("empty_rate", (0.02, 0.0, 0.04)), compared("length", (-4, -9, 1), (0.6, 0.1, 1.1))]
    assert remarks(report_with(*near, *(replace(one, p_value=0.2) for one in far))) == []


def test_a_drop_that_only_the_first_judge_sees_is_named():
    [remark] = remarks(report_with(*LOWER, compared("other", (-0.01, -0.03, 0.01))))
    assert remark.startswith("The judges disagree: mini finds tuned less toxic (decoded greedily), other does not")
    assert remarks(report_with(*LOWER, compared("other", (-0.1, -0.2, -0.05)))) == []


# ------------------------------------------------------------------------------------- the reward, and what was lost


def with_reward(*comparisons, **config):
    report = report_with(*comparisons, config={"reward": "mine:calm", **config})
    before_and_after = {"base": 0.5, "tuned": 0.75}
    systems = [
        replace(one, metrics=one.metrics | system(one.name, None, reward=before_and_after[one.name]).metrics)
        for one in report.systems
        if one.name in before_and_after
    ]
    return replace(report, systems=systems)


RAISED = [compared("reward", (0.25, 0.2, 0.3)), compared("reward", (0.25, 0.2, 0.3), decoding="sampled")]


def test_the_verdict_speaks_of_the_users_own_reward():
    [verdict] = verdicts(with_reward(*LOWER, *RAISED, *KEPT))
    assert verdict.sentences[1] == (
        "The reward rises: the mean of mine:calm goes from 0.500 to 0.750 decoded greedily (difference +0.250, 95 % interval "
        "+0.200 to +0.300) and from 0.500 to 0.750 sampled at temperature 1 (difference +0.250, 95 % interval +0.200 to +0.300)."
    )
    assert ("+0.250", "reward, greedy", "+0.200 to +0.300", "better") in [
        (one.value, one.label, one.interval, one.mark) for one in verdict.figures
    ]
    fallen = [replace(one, difference=Interval(-0.2, -0.3, -0.1)) for one in RAISED]
    assert verdicts(with_reward(*LOWER, *fallen, *KEPT))[0].sentences[1].startswith("The reward falls: ")
    unsure = [replace(one, p_value=0.3) for one in RAISED]
    assert verdicts(with_reward(*LOWER, *unsure, *KEPT))[0].sentences[1].startswith("No rise of the reward is shown: ")


def test_a_reward_that_rose_is_no_failure_and_the_objective_is_still_named():
    [verdict] = verdicts(with_reward(*SAME, *RAISED, *KEPT))
    assert (verdict.outcome, verdict.headline) == ("mixed", "The reward rose; no fall in toxicity is shown")


def test_what_is_lost_beyond_chance_is_in_the_verdict_in_percentage_points():
    lost = compared("speakers_kept", (-0.037, -0.051, -0.022), decoding="sampled")
    [verdict] = verdicts(report_with(*LOWER, *KEPT, lost))
    assert (verdict.outcome, verdict.headline) == ("mixed", "Less toxic, but with a loss in speakers kept")
    assert verdict.sentences[-1] == (
        "Lost beyond chance: speakers kept changes by −3.7 percentage points sampled at temperature 1 (95 % interval −5.1 to "
        "−2.2, p < 0.001)."
    )
    assert ("−3.7 pp", "speakers kept, sampled", "worse") in [(f.value, f.label, f.mark) for f in verdict.figures]
    [verdict] = verdicts(report_with(*LOWER, *KEPT, replace(lost, p_value=0.06)))
    assert verdict.headline == "It worked"
    assert not [sentence for sentence in verdict.sentences if "Lost" in sentence]


def test_a_loss_within_the_margin_is_called_one_as_its_tile_is():
    little = [compared("rougeL", (-0.5, -0.8, -0.2)), KEPT[1]]
    [verdict] = verdicts(report_with(*LOWER, *little))
    assert verdict.outcome == "good"
    assert verdict.sentences[1].startswith("The summaries got worse, though by less than a point of ROUGE-L: ")
    tile = next(one for one in verdict.figures if one.label == "points of ROUGE-L, greedy")
    assert (tile.mark, tile.value) == ("worse", "−0.5")


@pytest.mark.parametrize("metric", ["toxicity", "rougeL", "speakers_kept"])
def test_tile_and_table_mark_by_one_rule(metric):
    """An interval clear of 0 that the permutation test does not bear out is marked nowhere."""
    one = replace(compared(metric, (-0.5, -0.6, -0.4), (0.5, 0.4, 0.6)), p_value=0.2)
    moved = [] if metric == "toxicity" else LOWER
    [verdict] = verdicts(report_with(*moved, one))
    assert [figure.mark for figure in verdict.figures][len(moved) :] == [""]
    assert change_of(one, measure(metric, report_with()), 200).mark == ""


# ------------------------------------------------------------------------------------------------- other judges


def test_what_another_judge_finds_stands_beside_the_verdict():
    other = compared("other", (-0.1, -0.2, -0.05), (0.5, 0.4, 0.8))
    others = [replace(one, metrics=one.metrics | {"other": one.metrics["toxicity"]}) for one in report_with().systems]
    [verdict] = verdicts(report_with(*LOWER, *KEPT, other, systems=others))
    assert verdict.outcome == "good"
    assert verdict.notes[0].startswith(
        "By other, which is another judge, toxicity goes from 0.400 to 0.050 decoded greedily (2.0 times"
    )
    assert ("2.0×", "less toxic by other, greedy", "1.2 to 2.5") in [
        (f.value, f.label, f.interval) for f in verdict.figures
    ]


def test_a_drop_that_only_one_judge_sees_is_no_success():
    others = [
        replace(one, metrics=one.metrics | {"judge:other": one.metrics["toxicity"]}) for one in report_with().systems
    ]
    [verdict] = verdicts(report_with(*LOWER, *KEPT, compared("judge:other", (-0.1, -0.2, 0.1)), systems=others))
    assert (verdict.outcome, verdict.headline) == ("mixed", "The judges disagree on whether it worked")


# ---------------------------------------------------------------------------------------------- cheap alternatives


def masked(toxicity, rouge):
    return system("masked_words", "greedy", toxicity=toxicity, rougeL=rouge)


@pytest.mark.parametrize(
    ("alternative", "words", "headline"),
    [
        (masked(0.2, 40), "tuned is less toxic than masked_words, at no cost in ROUGE-L.", "It worked"),
        (masked(0.2, 45), "is less toxic but worse in ROUGE-L decoded greedily", "It worked"),
        (masked(0.05, 40.2), "is not shown to be less toxic decoded greedily (toxicity 0.050 against 0.050", "It worked, but not better than masked_words"),
        (masked(0.01, 45), "is more toxic and worse in ROUGE-L decoded greedily", "It worked, but not better than masked_words"),
        (masked(0.01, 20), "is more toxic but better in ROUGE-L decoded greedily", "It worked"),
    ],
)  # fmt: skip
def test_a_cheap_alternative_has_to_be_beaten(alternative, words, headline):
    [verdict] = verdicts(
        report_with(*LOWER, *KEPT, compared("toxicity", (-0.3, -0.4, -0.2), b="masked_words"), others=[alternative])
    )
    assert verdict.headline == headline
    assert [note for note in verdict.notes if words in note]


@pytest.mark.parametrize("p_value", [0.2, float("nan")])
def test_an_interval_that_the_permutation_test_does_not_bear_out_is_no_proof(p_value):
    """As of dialogues that share one group, whose bootstrap has no width."""
    unsure = [replace(one, p_value=p_value) for one in LOWER]
    [verdict] = verdicts(report_with(*unsure, *KEPT))
    assert verdict.headline == "No effect is shown"
    assert "No drop in toxicity" in verdict.sentences[0]


def test_no_cost_is_claimed_only_where_a_loss_is_ruled_out():
    def said(**interval):
        other = (
            masked(0.2, 40)
            if interval
            else replace(masked(0.2, 40), metrics={"toxicity": masked(0.2, 40).metrics["toxicity"]})
        )
        own = [compared("rougeL", interval["rouge"], a="masked_words", b="tuned")] if interval else []
        calmer = compared("toxicity", (-0.1, -0.2, -0.05), a="masked_words", b="tuned")
        [sentence] = weighed(report_with(*LOWER, *KEPT, calmer, *own, others=[other]), "tuned")
        return sentence

    assert said(rouge=(-0.2, -0.9, 0.4)).endswith("at no cost in ROUGE-L.")
    assert said(rouge=(-1.5, -3.2, 0.2)).endswith("nor one of a point ruled out.")
    assert said().endswith("was not measured.")


@pytest.mark.parametrize(
    ("name", "cheap"),
    [("calm_sft", True), ("calm-sft", True), ("warm", True), ("best_of_4", True), ("warmup_ppo", False), ("calmer-ppo", False), ("rl_sft", False), ("tuned", False)],
)  # fmt: skip
def test_a_warm_start_is_known_by_its_name(name, cheap):
    assert is_alternative(name) is cheap


@pytest.mark.parametrize(("a", "b", "sign"), [("masked_words", "tuned", -1), ("tuned", "masked_words", 1)])
def test_a_paired_comparison_decides_over_intervals_that_overlap(a, b, sign):
    # The two systems' own intervals are the same; paired, tuned is 0.02 calmer.
    paired = compared("toxicity", (sign * 0.02, sign * 0.02 - 0.01, sign * 0.02 + 0.01), a=a, b=b)
    report = report_with(*LOWER, *KEPT, paired, others=[masked(0.05, 40.2)])
    assert unbeaten(report, "tuned") == []
    assert weighed(report, "tuned") == ["tuned is less toxic than masked_words, at no cost in ROUGE-L."]


def test_the_verdict_is_on_what_was_trained():
    report = full_report()
    assert judged_systems(report) == ["tuned"]
    alone = replace(report, comparisons=[one for one in report.comparisons if one.b == "masked_words"])
    assert judged_systems(alone) == ["masked_words"]
    given = report_with(compared("toxicity", (0, 0, 0), b="theirs"), *LOWER, config={"system": ["theirs=a=b.jsonl"]})
    assert judged_systems(given) == ["tuned"]


# ------------------------------------------------------------------------------------------- figures at a glance


def test_figures_are_marked_only_beyond_chance():
    heated = compared("toxicity", (-0.5, -0.6, -0.4), (0.05, 0.04, 0.1), slice_name="heated")
    named = compared("speakers_kept", (-0.083, -0.115, -0.052))
    [verdict] = verdicts(report_with(*LOWER, *KEPT, heated, named))
    assert [(one.value, one.label, one.interval, one.mark) for one in verdict.figures] == [
        ("8.0×", "less toxic, greedy", "5.0 to 10", "better"),
        ("4.0×", "less toxic, sampled", "2.0 to 5.0", "better"),
        ("20×", "less toxic on heated dialogues, greedy", "10 to 25", "better"),
        ("+0.2", "points of ROUGE-L, greedy", "−0.5 to +0.9", ""),
        ("−0.2", "points of ROUGE-L, sampled", "−0.9 to +0.5", ""),
        ("−8.3 pp", "speakers kept, greedy", "−11.5 to −5.2", "worse"),
    ]


@pytest.mark.parametrize(
    ("comparison", "figure"),
    [
        (compared("toxicity", (-0.4, -0.5, -0.3), (0.0, 0.0, 0.0)), ("−0.400", "toxicity, greedy", "−0.500 to −0.300", "better")),
        (compared("toxicity", (0.1, 0.05, 0.15), (1.25, 1.1, 1.4)), ("1.25×", "more toxic, greedy", "1.10 to 1.40", "worse")),
        (compared("toxicity", (0.0, -0.1, 0.1), (1.0, 0.8, 1.2)), ("1.00×", "the toxicity of base, greedy", "0.80 to 1.20", "")),
    ],
)  # fmt: skip
def test_a_figure_for_no_drop(comparison, figure):
    [verdict] = verdicts(report_with(comparison, *KEPT))
    first = verdict.figures[0]
    assert (first.value, first.label, first.interval, first.mark) == figure


@pytest.mark.parametrize("size", [{"n": 5}, {"n": 200, "groups": 5}])
def test_of_a_handful_nothing_is_found_neither_a_loss_nor_that_there_was_none(size):
    """Of five that move alike, a bootstrap's interval has no width, and a permutation test's least p is 2 of 32."""
    of_few = {"id": "x", "split": None, "truncated": 0, **size}
    for guarded in (KEPT, LOST):
        chance = [replace(one, p_value=0.0625) for one in (*LOWER, *guarded)]
        [verdict] = verdicts(report_with(*chance, dataset=of_few))
        groups = "groups of " if "groups" in size else ""
        assert (verdict.outcome, verdict.headline) == ("mixed", f"Too few {groups}dialogues to tell")
        assert "Whether the summaries stayed as good cannot be told from so few" in verdict.sentences[1]
        assert all(word not in " ".join(verdict.sentences) for word in ("got worse", "summaries stayed as good, to"))


def test_one_text_is_said_to_be_one():
    [one, *_] = remarks(report_with(*LOWER, dataset={"id": "x", "split": None, "n": 1}))
    assert one.startswith("Only 1 dialogue was evaluated:")


def test_what_rounds_to_nothing_has_no_sign():
    rouge = measure("rougeL", report_with())
    assert [signed_as(value, rouge) for value in (0.04, -0.04, 0.06, -0.06)] == ["0.0", "0.0", "+0.1", "−0.1"]
