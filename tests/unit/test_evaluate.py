"""Evaluation's numbers, hand-computed: resampling, what is measured on a summary, names, slices, comparisons."""

import numpy as np
import pytest
from scipy import stats

from softspoken.analysis import Measured, analyse, collect
from softspoken.resampling import (
    bootstrap_means,
    difference_interval,
    distinct_interval,
    group_numbers,
    mean_interval,
    over_seeds,
    permutation_p_values,
    quantile_interval,
    ratio_interval,
)
from softspoken.summary_metrics import (
    names,
    reference_metrics,
    similarity_metrics,
    slice_dialogues,
    speakers,
    surface_metrics,
    toxicity_metrics,
)
from softspoken.systems import Window, best_of, masking, named_adapters, read_summaries, toxic_words
from softspoken.types import Dialogue, InputError, Summary

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")


def column(*values):
    return np.array(values, dtype=float)[:, None]


def ends(interval):
    return interval.mean, interval.low, interval.high


def pair(a, b, groups=None, **options):
    """a, b and their shared draws, as the interval functions take them."""
    a, b = np.array(a, dtype=float), np.array(b, dtype=float)
    groups = np.arange(len(a)) if groups is None else np.array(groups)
    draws = bootstrap_means(np.column_stack([a, b]), groups, seed=0, **options).T
    return a, b, draws[0], draws[1]


# -------------------------------------------------------------------------------------------------------- bootstrap


def test_bootstrap_means_are_sums_over_counts_of_the_drawn_groups():
    # Group 0 holds 1 and 1, group 1 holds 0. Drawn twice with replacement: 0 twice → 1; 1 twice → 0; one each → 2/3.
    draws = bootstrap_means(column(1, 1, 0), np.array([0, 0, 1]), seed=0)[:, 0]
    share = {value: np.isclose(draws, value).mean() for value in (1, 2 / 3, 0)}
    assert sum(share.values()) == pytest.approx(1)
    assert share[1] == pytest.approx(0.25, abs=0.03)
    assert share[2 / 3] == pytest.approx(0.5, abs=0.03)


def test_an_absent_value_is_neither_summed_nor_counted():
    values = column(0.2, np.nan, 0.4)
    draws = bootstrap_means(values, np.arange(3), seed=0)[:, 0]
    assert ends(mean_interval(values[:, 0], draws)) == pytest.approx((0.3, 0.2, 0.4))
    assert np.isnan(draws).mean() == pytest.approx(1 / 27, abs=0.02)  # the absent one drawn three times


def test_copies_of_a_row_in_its_group_add_no_certainty():
    rows = np.random.default_rng(0).normal(size=50)
    copied = np.repeat(rows, 4)[:, None]
    once = mean_interval(rows, bootstrap_means(rows[:, None], np.arange(50), seed=1)[:, 0])
    grouped = mean_interval(copied, bootstrap_means(copied, np.repeat(np.arange(50), 4), seed=1)[:, 0])
    as_rows = mean_interval(copied, bootstrap_means(copied, np.arange(200), seed=1)[:, 0])
    assert grouped.high - grouped.low == pytest.approx(once.high - once.low)
    assert as_rows.high - as_rows.low == pytest.approx((once.high - once.low) / 2, rel=0.2)


def test_intervals_agree_with_scipys():
    rng = np.random.default_rng(3)
    values = pair(rng.random(60), rng.random(60) / 2, resamples=20_000)
    options = {"paired": True, "method": "percentile", "n_resamples": 9_999, "vectorized": True, "batch": 1_000}

    def scipys(statistic):
        return stats.bootstrap(
            values[:2], statistic, random_state=np.random.default_rng(1), **options
        ).confidence_interval

    difference = scipys(lambda a, b, axis: b.mean(axis) - a.mean(axis))
    ratio = scipys(lambda a, b, axis: b.mean(axis) / a.mean(axis))
    assert ends(difference_interval(*values))[1:] == pytest.approx((difference.low, difference.high), abs=0.006)
    assert ends(ratio_interval(*values))[1:] == pytest.approx((ratio.low, ratio.high), abs=0.012)


def test_pairing_takes_out_what_the_dialogues_differ_by():
    a = np.random.default_rng(0).normal(scale=10, size=100)
    assert ends(difference_interval(*pair(a, a - 1))) == pytest.approx((-1, -1, -1))


def test_a_difference_is_b_minus_a_and_a_ratio_b_over_a():
    values = pair([0.4, 0.4, 0.4], [0.1, 0.1, 0.1])
    assert ends(difference_interval(*values)) == pytest.approx((-0.3, -0.3, -0.3))
    assert ends(ratio_interval(*values)) == pytest.approx((0.25, 0.25, 0.25))


def test_no_ratio_to_a_base_of_zero_or_so_near_it_that_draws_of_it_are():
    assert ratio_interval(*pair([0, 0, 0], [0.1, 0, 0])) is None
    assert ratio_interval(*pair([0, 0, 0], [0, 0, 0])) is None
    assert ratio_interval(*pair([1] + [0] * 9, [0.5] * 10)) is None  # (9/10)^10 = 35 % of the draws of a are 0
    assert ends(ratio_interval(*pair([1] * 10, [0] * 10))) == (0, 0, 0)


def test_the_interval_covers_the_truth_as_often_as_it_says_only_if_groups_are_resampled():
    rng = np.random.default_rng(0)
    covered = {"groups": 0, "rows": 0}
    for trial in range(300):
        groups = np.repeat(np.arange(30), 5)
        values = (rng.normal(size=30)[groups] + 0.3 * rng.normal(size=150))[:, None]  # the true mean is 0
        for kind, numbers in (("groups", groups), ("rows", np.arange(150))):
            interval = mean_interval(values[:, 0], bootstrap_means(values, numbers, seed=trial, resamples=400)[:, 0])
            covered[kind] += interval.low <= 0 <= interval.high
    assert 0.90 <= covered["groups"] / 300 <= 0.98
    assert covered["rows"] / 300 < 0.75


def test_the_99th_percentile_is_of_all_values_together():
    values = np.arange(1, 1001, dtype=float).reshape(250, 4)
    interval = quantile_interval(values, np.arange(250), 0.99, seed=0)
    assert interval.mean == 990  # 990 of the 1,000 values are 990 or less
    assert 950 < interval.low < 990 < interval.high <= 1000


def test_a_percentiles_draws_move_whole_groups():
    # Half the values are 0 and half 1, in two groups: their median is 1 when the ones are drawn twice, else 0.
    values = np.array([[0, 0], [0, 0], [1, 1], [1, 1]], dtype=float)
    interval = quantile_interval(values, np.array([0, 0, 1, 1]), 0.5, seed=0)
    assert ends(interval) == (0, 0, 1)


def test_equal_names_are_one_group():
    assert group_numbers(["b", "a", "b"]).tolist() == [1, 0, 1]


@pytest.mark.parametrize("trainings", [2, 3, 5])
def test_intervals_over_trainings_cover_what_they_say(trainings):
    """Trainings whose means differ by chance alone, on dialogues that do not: 95 % of the intervals hold the true mean."""
    rng, held = np.random.default_rng(0), 0
    for number in range(400):
        means = rng.normal(5.0, 1.0, size=trainings)
        draws = over_seeds(np.repeat(means[:, None], 2000, axis=1), seed=number, system=0)
        low, high = np.quantile(draws, [0.025, 0.975])
        held += low <= 5.0 <= high
    assert held / 400 == pytest.approx(0.95, abs=0.03)


def test_one_training_is_as_it_is_and_two_systems_have_their_own_luck():
    alone = np.array([[0.1, 0.2]])
    assert over_seeds(alone, seed=0, system=0).tolist() == [0.1, 0.2]
    two = np.array([[0.01] * 500, [0.4] * 500])
    first, second = (over_seeds(two, seed=0, system=number) for number in (0, 1))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.2
    assert min(first.min(), second.min()) == 0, "toxicity is never below 0"


def test_distinct_is_kinds_by_all_with_a_jackknife_interval():
    # Group 0 writes a a b, group 1 a c: 3 kinds of 5. Without 0: 2 of 2; without 1: 2 of 3.
    pieces = np.array([7, 7, 8, 7, 9]), np.array([0, 0, 0, 1, 1])
    interval = distinct_interval([pieces], 2)
    # Jackknife: mean of 1 and 2/3 is 5/6; √(1/2 · 2 · (1/6)²) = 1/6.
    assert ends(interval) == pytest.approx((0.6, 0.6 - 1.96 / 6, 0.6 + 1.96 / 6))
    other = np.array([1, 2]), np.array([0, 1])  # a training that never repeats
    assert distinct_interval([pieces, other], 2).mean == pytest.approx(0.8)
    nothing = np.array([], dtype=np.int64), np.array([], dtype=np.int64)
    assert distinct_interval([nothing], 2) is None


# ------------------------------------------------------------------------------------------------------ permutation


def test_p_value_counts_the_swaps_that_do_as_much():
    # Three groups that all rise by 1: of the 8 ways to swap, 2 make a sum of 3 or −3.
    p_value = permutation_p_values(column(1, 1, 1), np.arange(3), seed=0)[0]
    assert p_value == pytest.approx(0.25, abs=0.02)
    assert permutation_p_values(-column(1, 1, 1), np.arange(3), seed=0)[0] == p_value  # two-sided


def test_p_value_is_1_without_a_difference_and_never_0():
    p_values = permutation_p_values(np.column_stack([np.zeros(50), np.ones(50)]), np.arange(50), seed=0)
    assert p_values.tolist() == [1, 1 / 10_000]


def test_p_value_swaps_whole_groups():
    # Ten rows of one group are swapped together: one group alone can show nothing.
    assert permutation_p_values(column(*[1] * 10), np.zeros(10, dtype=int), seed=0)[0] == 1


def test_p_values_agree_with_scipys():
    differences = np.random.default_rng(4).normal(loc=0.3, size=(40, 3))
    ours = permutation_p_values(differences, np.arange(40), seed=0)
    test = stats.permutation_test(
        (differences,),
        lambda sample, axis: sample.mean(axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=9_999,
        axis=0,
        random_state=np.random.default_rng(0),
    )
    assert ours == pytest.approx(test.pvalue, abs=0.02)


# --------------------------------------------------------------------------------------------- one summary's metrics

DIALOGUE = Dialogue(
    "1",
    "Nora: You are late again, idiot.\nFelix: Sorry!\nNora: Bring milk.\nMr. Lee: Hi",
    "Felix is on the bus",
    "Nora calls Felix an idiot",
)


def test_rouge_is_in_points_and_stems():
    metrics = reference_metrics("Felix is on the train", DIALOGUE, two_references=False)
    assert (metrics["rouge1"], metrics["rouge2"], metrics["rougeL"]) == pytest.approx((80, 75, 80))  # 4 of 5, 3 of 4
    walks = Dialogue("2", "Nora: hi", "Nora walks")
    assert reference_metrics("Nora walked", walks, two_references=False)["rouge2"] == pytest.approx(100)


def test_the_nearer_reference_is_the_better_of_the_two():
    literal = reference_metrics("Nora calls Felix an idiot", DIALOGUE, two_references=True)
    assert literal["rougeL_nearer"] == pytest.approx(100)
    assert literal["rougeL"] == pytest.approx(20)  # "Felix" alone is in the calm one
    calm = reference_metrics("Felix is on the bus", DIALOGUE, two_references=True)
    assert calm["rougeL_nearer"] == calm["rougeL"] == pytest.approx(100)
    everyday = reference_metrics("Nora walks", Dialogue("2", "Nora: hi", "Nora walks"), two_references=True)
    assert everyday["rougeL_nearer"] == pytest.approx(100)


def test_speakers_kept_is_the_share_of_those_the_reference_names():
    both = Dialogue("1", "Nora: a\nFelix: b\nIda: c", "Nora waits for Felix")
    assert speakers(both.text) == ["Nora", "Felix", "Ida"]
    assert reference_metrics("Nora and Noras", both, two_references=False)["speakers_kept"] == 0.5
    assert reference_metrics("felix waits for NORA", both, two_references=False)["speakers_kept"] == 1
    none = Dialogue("1", "Nora: a", "They wait")
    assert "speakers_kept" not in reference_metrics("Nora waits", none, two_references=False)


def test_a_name_is_a_word_of_its_own():
    assert names("Sam's bus", "Sam")
    assert not names("Samantha's bus", "Sam")
    assert names("#Person1# waits", "#Person1#")


def surface(text, dialogue="Nora: hi"):
    return surface_metrics(Summary(text), Dialogue("1", dialogue))


def test_length_is_in_words():
    assert surface("Felix is  late.") == {"length": 3, "empty_rate": 0, "degenerate_rate": 0}
    assert surface(" \n") == {"length": 0, "empty_rate": 1, "degenerate_rate": 0}
    longer = reference_metrics("one two three", Dialogue("2", "Nora: hi", "Nora walks"), two_references=False)
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
    pair = Dialogue("2", "Nora: hi", "Nora walks. Felix sleeps")
    turned = reference_metrics("Felix sleeps. Nora walks", pair, two_references=False)
    assert turned["rougeLsum"] == pytest.approx(100)
    assert turned["rougeL"] == pytest.approx(50)
    one = reference_metrics("Felix walks", Dialogue("2", "Nora: hi", "Nora walks"), two_references=False)
    assert one["rougeLsum"] == one["rougeL"] == pytest.approx(50)


def test_chrf_is_in_points_over_characters():
    same = Dialogue("2", "Nora: hi", "abc")
    assert reference_metrics("abc", same, two_references=False)["chrf"] == pytest.approx(100)
    assert reference_metrics("xyz", same, two_references=False)["chrf"] == 0
    # "abd" for "abc": 2 of 3 letters, 1 of 2 pairs, 0 of 1 triple → precision = recall = (2/3 + 1/2 + 0) / 3 = 7/18.
    assert reference_metrics("abd", same, two_references=False)["chrf"] == pytest.approx(100 * 7 / 18)


def test_similarity_is_to_the_dialogue_and_the_reference_where_there_is_one():
    def shared(texts, others):
        return [float(len({*text.split()} & {*other.split()})) for text, other in zip(texts, others, strict=True)]

    rows = [Dialogue("1", "a b c", "c d"), Dialogue("2", "x")]
    assert similarity_metrics(shared, ["a b d", "x"], rows, to_reference=True) == [
        {"similarity_dialogue": 2, "similarity_reference": 1},
        {"similarity_dialogue": 1},
    ]
    assert similarity_metrics(shared, ["a b d", "x"], rows, to_reference=False)[0] == {"similarity_dialogue": 2}


class WordJudge:
    """Toxic is a text with `word` in it."""

    def __init__(self, name, labels, word="idiot"):
        self.name, self.labels, self.word = name, labels, word

    def __call__(self, texts):
        return {
            label: [float(self.word in text) / (place + 1) for text in texts] for place, label in enumerate(self.labels)
        }

    def clear_cache(self):
        pass


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


# ------------------------------------------------------------------------------------------------------------ slices


def sliced(dialogues):
    done: list[int] = []
    found = slice_dialogues(dialogues, WordJudge("j", ["toxicity"]), done.append)
    assert sum(done) == len(dialogues), "the progress bar comes to its end"
    return {name: members.tolist() for name, members in found.items() if ":" not in name}


def test_heated_are_the_dialogues_with_a_literal_reference():
    calm = Dialogue("2", "Nora: idiot", "ref")  # what the judge says of its lines does not count here
    assert sliced([DIALOGUE, calm]) == {"all": [True, True], "heated": [True, False], "everyday": [False, True]}


def test_without_literal_references_the_worst_line_decides():
    rows = [Dialogue("1", "Nora: hi\nFelix: you idiot"), Dialogue("2", "idiot: hi")]  # a speaker's name is no line
    assert sliced(rows) == {"all": [True, True], "heated": [True, False], "everyday": [False, True]}


def test_a_slice_without_dialogues_is_left_out():
    assert list(sliced([Dialogue("1", "Nora: hi")])) == ["all", "everyday"]
    assert list(sliced([DIALOGUE])) == ["all", "heated"]


def test_thirds_by_length_in_words():
    rows = [Dialogue(str(n), "x " * n) for n in (9, 1, 2, 8, 3, 7)]
    slices = slice_dialogues(rows, WordJudge("j", ["toxicity"]))
    names = {
        kind: [rows[n].id for n in np.flatnonzero(slices[f"length:{kind}"])] for kind in ("short", "medium", "long")
    }
    assert names == {"short": ["1", "2"], "medium": ["3", "7"], "long": ["9", "8"]}
    same = slice_dialogues([Dialogue("1", "Nora: hi")] * 3, WordJudge("j", ["toxicity"]))
    assert [name for name in same if name.startswith("length")] == ["length:short"]


def test_slices_by_number_of_speakers():
    rows = [Dialogue("1", "A: x\nB: y\nA: z"), Dialogue("2", "A: x\nB: y\nC: z"), Dialogue("3", "A: x")]
    slices = slice_dialogues(rows, WordJudge("j", ["toxicity"]))
    assert slices["speakers:2"].tolist() == [True, False, False]
    assert slices["speakers:3+"].tolist() == [False, True, False]


# ----------------------------------------------------------------------------------------------------------- analyse


def measured(system, decoding, **values):
    return Measured(system, decoding, {name: np.array(rows, dtype=float) for name, rows in values.items()})


def test_analyse_compares_each_system_with_the_base_in_each_slice():
    ones = [[1], [1], [1], [1]]
    systems = [
        measured("human", None, toxicity=[[0], [0], [np.nan], [0]], length=[[2], [2], [np.nan], [2]]),
        measured("base", "greedy", toxicity=[[0.8], [0.8], [0.2], [0.2]], length=ones),
        measured("base", "sampled", toxicity=[[0.6, 1.0], [0.7, 0.9], [0.2, 0.2], [0.1, 0.3]], length=[[1, 1]] * 4),
        measured("tuned", "greedy", toxicity=[[0.2], [0.2], [0.2], [0.2]], length=ones),
        measured("tuned", "sampled", toxicity=[[0.3, 0.5], [0.4, 0.4], [0, 0.2], [0.1, 0.1]], length=[[1, 1]] * 4),
    ]
    heated = np.array([True, True, False, False])
    slices = {"all": np.ones(4, dtype=bool), "heated": heated, "everyday": ~heated}
    results, comparisons = analyse(systems, np.arange(4), slices, seed=0)

    human, base, base_sampled, *_ = results
    assert (human.name, human.decoding, human.n) == ("human", None, 3)
    assert human.slices["everyday"].n == 1
    assert base.metrics["toxicity"].mean == pytest.approx(0.5)
    assert base.slices["heated"].metrics["toxicity"].mean == pytest.approx(0.8)
    # Sampled: a dialogue's value is the mean of its samples, and here all heated ones' is 0.8.
    assert ends(base_sampled.slices["heated"].metrics["toxicity"]) == pytest.approx((0.8, 0.8, 0.8))

    found = {(one.decoding, one.slice, one.metric): one for one in comparisons}
    assert {(one.a, one.b) for one in comparisons} == {("base", "tuned")}
    assert len(found) == 2 * 3 * 2 + 3  # decodings, slices, metrics; and the worst of the samples
    assert found["greedy", "all", "toxicity"].difference.mean == pytest.approx(-0.3)
    assert found["greedy", "heated", "toxicity"].ratio.mean == pytest.approx(0.25)
    assert ends(found["greedy", "everyday", "toxicity"].difference) == pytest.approx((0, 0, 0))
    assert found["greedy", "everyday", "toxicity"].p_value == 1
    assert found["sampled", "heated", "toxicity"].ratio.mean == pytest.approx(0.5)


@pytest.mark.parametrize(("dialogues", "has_it"), [(250, True), (249, False)])
def test_the_99th_percentile_needs_1000_summaries(dialogues, has_it):
    toxicity = np.random.default_rng(0).random((dialogues, 4))
    [result], _ = analyse(
        [Measured("base", "sampled", {"toxicity": toxicity, "length": np.ones((dialogues, 4))})],
        np.arange(dialogues),
        {"all": np.ones(dialogues, dtype=bool)},
        seed=0,
    )
    assert ("toxicity_p99" in result.metrics) == has_it


def test_the_worst_of_several_samples():
    toxicity = [[0.1, 0.9], [0.2, 0.4]]
    rate = [[0, 1], [0, 0]]
    systems = [
        measured("base", "sampled", toxicity=toxicity, toxic_rate=rate, length=[[1, 1]] * 2),
        measured("base", "greedy", toxicity=[[0.9], [0.9]], toxic_rate=[[1], [1]], length=[[1]] * 2),
        measured("best_of_2", "sampled", toxicity=[[0.1], [0.2]], toxic_rate=[[0], [0]], length=[[1]] * 2),
        measured("file", "sampled", toxicity=[[0.1] * 3] * 2, toxic_rate=[[0] * 3] * 2, length=[[1] * 3] * 2),
    ]
    results, _ = analyse(systems, np.arange(2), {"all": np.ones(2, dtype=bool)}, seed=0)
    assert results[0].metrics["expected_max_toxicity"].mean == pytest.approx(0.65)  # of 0.9 and 0.4
    assert results[0].metrics["toxicity_probability"].mean == pytest.approx(0.5)
    for other in results[1:]:  # of one there is no worst, and that of 3 is no fellow of that of 2
        assert "expected_max_toxicity" not in other.metrics


def test_a_dialogues_value_is_the_mean_of_what_its_samples_have():
    systems = [
        measured("base", "sampled", toxicity=[[0, 0]] * 2, length=[[1, 1]] * 2, copied_share=[[0.5, np.nan], [1, 0]])
    ]
    [result], _ = analyse(systems, np.arange(2), {"all": np.ones(2, dtype=bool)}, seed=0)
    assert ends(result.metrics["copied_share"]) == pytest.approx((0.5, 0.5, 0.5))


def test_trainings_of_one_name_are_one_system():
    base = measured("base", "greedy", toxicity=[[0.8]] * 3, length=[[1]] * 3)
    tuned = [measured("tuned", "greedy", toxicity=[[value]] * 3, length=[[1]] * 3) for value in (0.2, 0.3, 0.4)]
    results, comparisons = analyse([base, *tuned], np.arange(3), {"all": np.ones(3, dtype=bool)}, seed=0)
    assert [(one.name, one.n, one.seeds) for one in results] == [("base", 3, 1), ("tuned", 3, 3)]
    # No dialogue differs from another, so all of the interval's width is the trainings': 4.303 · 0.1 / √3 to each side.
    assert ends(results[1].metrics["toxicity"]) == pytest.approx((0.3, 0.052, 0.548), abs=0.04)
    assert ends(comparisons[0].difference) == pytest.approx((-0.5, -0.748, -0.252), abs=0.04)


def test_every_two_systems_are_compared_on_all_dialogues():
    systems = [
        measured(name, "greedy", toxicity=[[value]] * 2, length=[[1]] * 2)
        for name, value in (("base", 0.8), ("tuned", 0.2), ("masked_words", 0.5))
    ]
    slices = {"all": np.ones(2, dtype=bool), "heated": np.array([True, False])}
    _, comparisons = analyse(systems, np.arange(2), slices, seed=0)
    found = {(one.slice, one.a, one.b): one.difference.mean for one in comparisons if one.metric == "toxicity"}
    assert list(found) == [
        ("all", "base", "tuned"),
        ("all", "base", "masked_words"),
        ("all", "tuned", "masked_words"),
        ("heated", "base", "tuned"),
        ("heated", "base", "masked_words"),
    ]
    assert found["all", "tuned", "masked_words"] == pytest.approx(0.3)


def test_numbers_are_collected_from_the_rows():
    def row(number, summary, sample=None, seed=None, **metrics):
        return {
            "row": number,
            "system": "base",
            "decoding": "sampled",
            "seed": seed,
            "sample": sample,
            "summary": summary,
            "metrics": metrics,
        }

    rows = [
        row(0, "a b", 0, length=2, toxicity=0),
        row(0, "A b", 1, length=2, toxicity=0, chrf=5),
        row(1, "b", 0, length=1, toxicity=0),
        row(1, "b", 1, length=1, toxicity=0),
    ]
    again = [one | {"seed": 1} for one in rows]
    first, second = collect(iter([*rows, *again]), np.array([0, 1]), {("base", "sampled"): 2})
    assert first.values["length"].tolist() == [[2, 2], [1, 1]]
    assert np.array_equal(first.values["chrf"], [[np.nan, 5], [np.nan, np.nan]], equal_nan=True)
    hashes, groups = first.pieces["distinct_1"]
    assert (len(hashes), len({*hashes.tolist()}), groups.tolist()) == (6, 2, [0, 0, 0, 0, 1, 1])
    assert len(second.pieces["distinct_2"][0]) == 2
    [result], _ = analyse([first, second], np.array([0, 1]), {"all": np.ones(2, dtype=bool)}, seed=0)
    assert result.metrics["distinct_1"].mean == pytest.approx(2 / 6)
    assert result.seeds == 2


# ----------------------------------------------------------------------------------------------------------- systems


def window(dialogues, decoding="sampled", samples=4):
    return Window(dialogues, 0, decoding, samples, 0)


def test_best_of_n_takes_the_best_of_each_n():
    rows = [Dialogue("1", "x"), Dialogue("2", "y")]
    pick = best_of(
        2,
        lambda texts, owners: [len(text) + 10 * (owner.id in text) for text, owner in zip(texts, owners, strict=True)],
    )
    samples = [["a", "abc", "ab", "1", "zzzzz"], ["2", "bbb", "c", "cc", "z"]]  # the fifth makes no pair
    assert pick(window(rows), samples) == [["abc", "1"], ["2", "cc"]]


def test_masking_takes_whole_words_of_any_case():
    mask = masking(["idiot", "you idiot", "c++"])
    assert mask(window([DIALOGUE]), [["You Idiot, IDIOT idiots"]]) == [["[…], […] idiots"]]
    assert mask(window([DIALOGUE]), [["a c++ b"]]) == [["a […] b"]]
    assert masking([])(window([DIALOGUE]), [["idiot"]]) == [["idiot"]]


def test_toxic_words_are_those_the_judge_finds_toxic_alone():
    rows = [Dialogue("1", "Nora: You IDIOT, you fool"), Dialogue("2", "Felix: idiot!")]
    assert toxic_words(rows, WordJudge("j", ["toxicity"])) == ["idiot"]


@pytest.fixture
def summaries(tmp_path):
    def write(*rows):
        path = tmp_path / "mine.jsonl"
        path.write_text("".join(f'{{"id": "{identity}", "summary": "{text}"}}\n' for identity, text in rows))
        return path

    return write


ROWS = [Dialogue("a", "x"), Dialogue("b", "y")]


def test_a_file_of_summaries_is_a_system(summaries):
    [load] = (system := read_summaries("mine", summaries(("b", "B "), ("a", "A")), ROWS)).loads
    assert system.ways == {"greedy": 1}
    assert load()(window(ROWS, "greedy", 1)) == [[Summary("A")], [Summary("B")]]
    sampled = read_summaries("mine", summaries(("b", "B"), ("a", "A"), ("b", "C"), ("a", "D")), ROWS)
    assert sampled.ways == {"sampled": 2}
    assert sampled.loads[0]()(window(ROWS[1:], "sampled", 2)) == [[Summary("B"), Summary("C")]]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([("a", "A")], "1 dialogues have no summary in it (the first: b)"),
        ([("a", "A"), ("b", "B"), ("c", "C")], "1 of its ids are no dialogue's (the first: c)"),
        ([("a", "A"), ("b", "B"), ("a", "A")], "has 1 summaries for id 'b' and 2 for others"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_name(rows, words, summaries):
    with pytest.raises(InputError) as caught:
        read_summaries("mine", summaries(*rows), ROWS)
    assert words in str(caught.value)
    assert "mine" in str(caught.value)


def test_a_file_cannot_fit_a_dataset_with_an_id_twice(summaries):
    with pytest.raises(InputError, match="id 'a' 2 times"):
        read_summaries("mine", summaries(("a", "A")), [ROWS[0], ROWS[0]])


# ------------------------------------------------------------------------------------------------------------- names


def names_of(*adapters):
    return named_adapters(list(adapters))


def test_one_adapter_is_tuned_and_several_go_by_their_folders():
    assert names_of() == {}
    assert names_of("runs/a/adapter") == {"tuned": ["runs/a/adapter"]}
    assert list(names_of("runs/a/adapter", "runs/b/adapter", "adapters/calm")) == ["a", "b", "calm"]
    assert list(names_of("x/demo/adapter", "y/demo/adapter")) == ["x/demo", "y/demo"]
    assert list(names_of("runs/base/adapter", "runs/b/adapter")) == ["runs/base", "runs/b"]  # base is taken


def test_a_name_given_to_several_adapters_makes_them_trainings_of_one_system(tmp_path):
    assert names_of("ppo=r/1", "sft=r/2", "ppo=r/3") == {"ppo": ["r/1", "r/3"], "sft": ["r/2"]}
    assert names_of("ppo=r/1", "runs/b/adapter") == {"ppo": ["r/1"], "b": ["runs/b/adapter"]}
    (tmp_path / "kl=0.1").mkdir()  # a folder whose name has = in it
    assert names_of(str(tmp_path / "kl=0.1")) == {"tuned": [str(tmp_path / "kl=0.1")]}


def test_an_adapter_given_twice_is_refused():
    with pytest.raises(InputError, match="distinct names"):
        names_of("runs/a/adapter", "runs/a/adapter")
    with pytest.raises(InputError, match="twice for 'ppo'"):
        names_of("ppo=r/1", "ppo=r/1")
