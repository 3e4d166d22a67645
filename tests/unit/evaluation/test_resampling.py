"""Intervals and p-values, hand-computed and against scipy's."""

import numpy as np
import pytest
from scipy import stats

from softspoken.evaluation import resampling
from softspoken.evaluation.resampling import (
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


# ------------------------------------------------------------------------------------------------------------ bootstrap


def test_bootstrap_means_are_sums_over_counts_of_the_drawn_groups():
    # Group 0 holds 1 and 1, group 1 holds 0. Drawn twice with replacement: 0 twice → 1; 1 twice → 0; one each → 2/3.
    draws = bootstrap_means(column(1, 1, 0), np.array([0, 0, 1]), seed=0)[:, 0]
    assert sorted(draws) == pytest.approx([0, 2 / 3, 2 / 3, 1])  # so few are all counted
    many = bootstrap_means(column(*[1] * 4, *[0] * 4), np.arange(8), seed=0)[:, 0]  # and so many are drawn
    assert len(many) == 2_000
    # The mean of n in 8 draws is binomial: 0.5 ± √(0.25 / 8).
    assert (many.mean(), many.std()) == pytest.approx((0.5, 0.177), abs=0.01)


def test_resamples_that_are_drawn_in_chunks_are_as_many_as_are_asked_for(monkeypatch):
    monkeypatch.setattr(resampling, "CHUNK", 8 * 4)  # four at once, four, and two
    assert bootstrap_means(np.ones((8, 1)), np.arange(8), seed=0, resamples=10).tolist() == [[1]] * 10


def test_up_to_six_groups_every_resample_is_counted():
    values = np.arange(6.0)[:, None]
    draws = bootstrap_means(values, np.arange(6), seed=0)[:, 0]
    assert len(draws) == 6**6
    assert (draws == 0).sum() == 1  # the first of the six, six times
    assert draws.mean() == pytest.approx(2.5)
    assert draws.var() == pytest.approx(35 / 12 / 6)  # of 0 … 5, over the six that are drawn
    assert np.array_equal(draws, bootstrap_means(values, np.arange(6), seed=9)[:, 0])


def test_an_absent_value_is_neither_summed_nor_counted():
    values = column(0.2, np.nan, 0.4)
    draws = bootstrap_means(values, np.arange(3), seed=0)[:, 0]
    assert ends(mean_interval(values[:, 0], draws)) == pytest.approx((0.3, 0.2, 0.4))
    assert np.isnan(draws).sum() == 1  # of 27 draws, the absent one drawn three times


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


def test_a_percentile_of_one_group_has_no_other_to_draw():
    assert ends(quantile_interval(np.array([[1.0, 2.0, 3.0]]), np.array([0]), 0.99, seed=0)) == (3, 3, 3)


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


def test_the_ends_over_few_trainings_are_students_whatever_the_seed():
    # Means 4 and 6: 5 ± t · √2/√2 · 1, where Student's 97.5 % point is 12.706 of two trainings, 4.303 of three (4, 5, 6).
    for seed in range(3):
        two = over_seeds(np.repeat([[4.0], [6.0]], 2000, axis=1), seed=seed, system=0)
        three = over_seeds(np.repeat([[4.0], [5.0], [6.0]], 2000, axis=1), seed=seed, system=4)
        assert ends(mean_interval(np.array([5.0]), two)) == pytest.approx((5, 0, 5 + 12.706), abs=0.02)
        assert ends(mean_interval(np.array([5.0]), three)) == pytest.approx((5, 5 - 4.303 / 3**0.5, 7.484), abs=0.005)


def test_the_same_seed_gives_the_same_luck_in_every_process():
    two = np.array([[1.0] * 50, [2.0] * 50])
    first = over_seeds(two, seed=3, system=1)
    for kept in (resampling._points, resampling._luck):
        kept.cache_clear()
    assert np.array_equal(first, over_seeds(two, seed=3, system=1))
    assert not np.array_equal(first, over_seeds(two, seed=4, system=1))


def test_over_seeds_is_the_mean_resample_with_its_luck():
    # Half the resamples are 0 and half 10, in both trainings, which do not differ: so is what comes out.
    draws = np.tile([0.0, 10.0], (2, 500))
    found = over_seeds(draws, seed=0, system=0)
    assert {*found.tolist()} == {0.0, 10.0}
    assert found.mean() == pytest.approx(5, abs=0.01)
    # The same resample in every system: what both share goes out of their difference.
    assert (over_seeds(draws + 1, seed=0, system=1) - found == 1).all()
    assert (over_seeds(draws[:1] + 1, seed=0, system=2) - found == 1).all()


def test_two_systems_have_their_own_luck_and_what_is_never_negative_stays_so():
    two = np.array([[0.01] * 500, [0.4] * 500])
    first, second = (over_seeds(two, seed=0, system=number) for number in (0, 1))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.2
    assert min(first.min(), second.min()) == 0, "toxicity is never below 0"
    none = np.array([[0.0] * 500, [0.4] * 500])
    assert over_seeds(none, seed=0, system=0).min() == 0, "nor where a training never fails"
    assert over_seeds(two - 1, seed=0, system=0).min() < -1, "a log-probability may be"


def test_distinct_is_kinds_by_all_with_a_jackknife_interval():
    # Group 0 writes a a b, group 1 a c: 3 kinds of 5. Without 0: 2 of 2; without 1: 2 of 3.
    pieces = np.array([7, 7, 8, 7, 9]), np.array([0, 0, 0, 1, 1])
    interval = distinct_interval([pieces], 2)
    # Jackknife: mean of 1 and 2/3 is 5/6; √(1/2 · 2 · (1/6)²) = 1/6.
    assert ends(interval) == pytest.approx((0.6, 0.6 - 1.96 / 6, 0.6 + 1.96 / 6))
    other = np.array([1, 2]), np.array([0, 1])  # a training that never repeats
    assert distinct_interval([pieces, other], 2).mean == pytest.approx(0.8)
    # Left out in turn, the other leaves 1 and 1: together 1 and 5/6, mean 11/12; √(1/2 · 2 · (1/12)²) = 1/12.
    both = ends(distinct_interval([pieces, other], 2))
    assert both == pytest.approx((0.8, 0.8 - 1.96 / 12, 0.8 + 1.96 / 12))
    nothing = np.array([], dtype=np.int64), np.array([], dtype=np.int64)
    assert distinct_interval([pieces, nothing], 2) is None
    assert distinct_interval([nothing], 2) is None


def test_distinct_without_a_group_that_wrote_all_is_as_it_is():
    # Group 0 alone wrote: a a b. Without it nothing is left to be distinct of; without group 1 all is.
    assert ends(distinct_interval([(np.array([7, 7, 8]), np.array([0, 0, 0]))], 2)) == pytest.approx((2 / 3,) * 3)


# ---------------------------------------------------------------------------------------------------------- permutation


@pytest.mark.parametrize(("permutations", "counted"), [(7, True), (6, False)])
def test_swaps_are_counted_where_there_are_no_more_than_would_be_drawn(permutations, counted):
    # The eight of three groups, of which two do as much: a quarter; of six drawn and the observed one, some sevenths.
    p_value = permutation_p_values(column(1, 1, 1), np.arange(3), seed=0, permutations=permutations)[0]
    assert (p_value == 0.25) == counted
    assert p_value * (8 if counted else 7) == pytest.approx(round(p_value * (8 if counted else 7)))


def test_p_value_counts_the_swaps_that_do_as_much():
    # Three groups that all rise by 1: of the 8 ways to swap, 2 make a sum of 3 or −3.
    p_value = permutation_p_values(column(1, 1, 1), np.arange(3), seed=0)[0]
    assert p_value == 0.25
    assert permutation_p_values(-column(1, 1, 1), np.arange(3), seed=0)[0] == p_value  # two-sided


def test_up_to_13_groups_every_swap_is_counted():
    # 1 … 13 sum to 91, which two of the 8,192 labellings reach in size; all but 1 the other way make 89: two more each.
    differences = np.arange(1.0, 14.0)
    assert permutation_p_values(differences[:, None], np.arange(13), seed=0)[0] == 2 / 2**13
    differences[0] = -1
    assert permutation_p_values(differences[:, None], np.arange(13), seed=0)[0] == 4 / 2**13


def test_swaps_that_are_drawn_in_chunks_are_as_many_as_are_asked_for(monkeypatch):
    monkeypatch.setattr("softspoken.evaluation.resampling.CHUNK", 14 * 4)  # four at once, four, and one
    assert permutation_p_values(np.zeros((14, 1)), np.arange(14), seed=0, permutations=9)[0] == 1


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
