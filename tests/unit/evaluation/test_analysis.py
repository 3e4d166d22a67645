"""Systems compared over slices: numbers by hand."""

import numpy as np
import pytest

from softspoken.evaluation.analysis import Measured, analyse, collect

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")


def ends(interval):
    return interval.mean, interval.low, interval.high


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


def test_of_one_sample_there_is_no_worst():
    one = measured("base", "sampled", toxicity=[[0.1], [0.2]], toxic_rate=[[0], [0]], length=[[1]] * 2)
    [result], _ = analyse([one], np.arange(2), {"all": np.ones(2, dtype=bool)}, seed=0)
    assert not {"expected_max_toxicity", "toxicity_probability"} & set(result.metrics)


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
    assert ends(results[1].metrics["toxicity"]) == pytest.approx((0.3, 0.0516, 0.5484), abs=1e-3)
    assert ends(comparisons[0].difference) == pytest.approx((-0.5, -0.7484, -0.2516), abs=1e-3)


def test_groups_are_resampled_in_every_slice_not_rows():
    """Two groups of three rows each, 0 and 1: drawn with replacement, 0, ½, ½, 1. Six rows would give 1/6 to 5/6."""
    base = measured("base", "greedy", toxicity=[[0]] * 3 + [[1]] * 3, length=[[1]] * 6)
    tuned = measured("tuned", "greedy", toxicity=[[0]] * 6, length=[[1]] * 6)
    groups, late = np.array([4, 4, 4, 7, 7, 7]), np.array([False, True, True, True, True, False])
    results, comparisons = analyse([base, tuned], groups, {"all": np.ones(6, dtype=bool), "late": late}, seed=0)
    for part in (results[0].metrics["toxicity"], results[0].slices["late"].metrics["toxicity"]):
        assert ends(part) == (0.5, 0, 1)
    found = {one.slice: one for one in comparisons if one.metric == "toxicity"}
    for name in ("all", "late"):
        assert ends(found[name].difference) == (-0.5, -1, 0)
        assert found[name].p_value == 1  # one group differs: its swap does as much as the other way round


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


def test_a_comparison_is_of_the_dialogues_that_both_have_a_value_for():
    """Each one's own mean: base 0.5 (of 0.1 and 0.9), tuned 0.15; where both have one, 0.1 rises to 0.15."""
    nan, plain = np.nan, {"toxicity": [[0]] * 4, "length": [[5]] * 4}
    base = measured("base", "greedy", copied_share=[[0.1], [0.1], [0.9], [0.9]], **plain)
    tuned = measured("tuned", "greedy", copied_share=[[0.15], [0.15], [nan], [nan]], **plain)
    slices = {"all": np.ones(4, dtype=bool), "late": np.array([False, False, True, True])}
    results, comparisons = analyse([base, tuned], np.arange(4), slices, seed=0)
    assert [one.metrics["copied_share"].mean for one in results] == pytest.approx([0.5, 0.15])
    found = {(one.slice, one.metric): one for one in comparisons}
    copied = found["all", "copied_share"]
    assert ends(copied.difference) == pytest.approx((0.05, 0.05, 0.05))
    assert ends(copied.ratio) == pytest.approx((1.5, 1.5, 1.5))
    assert copied.p_value == pytest.approx(0.5)  # of two groups that agree, two of the four labellings do as much
    assert (copied.n, found["all", "length"].n) == (2, 4)
    assert ("late", "copied_share") not in found  # no dialogue has both
    assert ("late", "length") in found


def test_a_dialogue_counts_where_every_training_of_both_has_a_value():
    nan, plain = np.nan, {"toxicity": [[0]] * 3, "length": [[5]] * 3}
    base = measured("base", "greedy", chrf=[[1], [1], [7]], **plain)
    tuned = [measured("tuned", "greedy", chrf=rows, **plain) for rows in ([[2], [2], [9]], [[2], [2], [nan]])]
    _, comparisons = analyse([base, *tuned], np.arange(3), {"all": np.ones(3, dtype=bool)}, seed=0)
    [chrf] = [one for one in comparisons if one.metric == "chrf"]
    assert (chrf.n, *ends(chrf.difference)) == pytest.approx((2, 1, 1, 1))  # the trainings agree on those


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
