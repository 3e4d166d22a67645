"""Evaluation's numbers, hand-computed: resampling, what is measured on a summary, names, slices, comparisons."""

import numpy as np
import pytest
from scipy import stats

from softspoken.evaluate import Measured, analyse, system_names
from softspoken.resampling import (
    bootstrap_means,
    difference_interval,
    group_numbers,
    mean_interval,
    permutation_p_values,
    quantile_interval,
    ratio_interval,
)
from softspoken.summary_metrics import (
    names,
    reference_metrics,
    slice_dialogues,
    speakers,
    surface_metrics,
    toxicity_metrics,
)
from softspoken.types import Dialogue, InputError

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


def test_speakers_named_is_the_share_of_those_the_reference_names():
    both = Dialogue("1", "Nora: a\nFelix: b\nIda: c", "Nora waits for Felix")
    assert speakers(both.text) == ["Nora", "Felix", "Ida"]
    assert reference_metrics("Nora and Noras", both, two_references=False)["speakers_named"] == 0.5
    assert reference_metrics("felix waits for NORA", both, two_references=False)["speakers_named"] == 1
    none = Dialogue("1", "Nora: a", "They wait")
    assert "speakers_named" not in reference_metrics("Nora waits", none, two_references=False)


def test_a_name_is_a_word_of_its_own():
    assert names("Sam's bus", "Sam")
    assert not names("Samantha's bus", "Sam")
    assert names("#Person1# waits", "#Person1#")


def test_length_is_in_words():
    assert surface_metrics("Felix is  late.") == {"length": 3, "empty_rate": 0}
    assert surface_metrics(" \n") == {"length": 0, "empty_rate": 1}


class WordJudge:
    """Toxic is a text with `word` in it."""

    def __init__(self, name, labels, word="idiot"):
        self.name, self.labels, self.word = name, labels, word

    def __call__(self, texts):
        return {
            label: [float(self.word in text) / (place + 1) for text in texts] for place, label in enumerate(self.labels)
        }


def test_toxicity_is_the_first_judges_and_the_others_go_by_name():
    judges = [WordJudge("first", ["hate", "threat"]), WordJudge("second", ["toxicity", "insult"])]
    scored = {"first": {"hate": 0.6, "threat": 0.1}, "second": {"toxicity": 0.3, "insult": 0.2}}
    assert toxicity_metrics(scored, judges) == {"toxicity": 0.6, "toxic_rate": 1, "threat": 0.1, "second": 0.3}
    scored["first"]["hate"] = 0.5
    assert toxicity_metrics(scored, judges)["toxic_rate"] == 0  # above a half, not at it


# ------------------------------------------------------------------------------------------------------------ slices


def sliced(dialogues):
    return {
        name: members.tolist() for name, members in slice_dialogues(dialogues, WordJudge("j", ["toxicity"])).items()
    }


def test_heated_are_the_dialogues_with_a_literal_reference():
    calm = Dialogue("2", "Nora: idiot", "ref")  # what the judge says of its lines does not count here
    assert sliced([DIALOGUE, calm]) == {"all": [True, True], "heated": [True, False], "everyday": [False, True]}


def test_without_literal_references_the_worst_line_decides():
    rows = [Dialogue("1", "Nora: hi\nFelix: you idiot"), Dialogue("2", "idiot: hi")]  # a speaker's name is no line
    assert sliced(rows) == {"all": [True, True], "heated": [True, False], "everyday": [False, True]}


def test_a_slice_without_dialogues_is_left_out():
    assert list(sliced([Dialogue("1", "Nora: hi")])) == ["all", "everyday"]
    assert list(sliced([DIALOGUE])) == ["all", "heated"]


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
    assert len(found) == 2 * 3 * 2  # decodings, slices, metrics
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


# ------------------------------------------------------------------------------------------------------------- names


def test_one_adapter_is_tuned_and_several_go_by_their_folders():
    assert system_names([]) == []
    assert system_names(["runs/a/adapter"]) == ["tuned"]
    assert system_names(["runs/a/adapter", "runs/b/adapter", "adapters/calm"]) == ["a", "b", "calm"]
    assert system_names(["x/demo/adapter", "y/demo/adapter"]) == ["x/demo", "y/demo"]
    assert system_names(["runs/base/adapter", "runs/b/adapter"]) == ["runs/base", "runs/b"]  # base is taken


def test_an_adapter_given_twice_is_refused():
    with pytest.raises(InputError, match="distinct names"):
        system_names(["runs/a/adapter", "runs/a/adapter"])
