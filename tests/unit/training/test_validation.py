"""Which examples are held out, by hand."""

from dataclasses import replace

import pytest

from softspoken.config import TrainConfig
from softspoken.data.holding_out import group_names
from softspoken.training.measuring import distinct_pairs
from softspoken.training.validation import held_out
from softspoken.types import Example, InputError


def examples(groups):
    return [Example(str(place), f"text {place}", group=group or None) for place, group in enumerate(groups)]


@pytest.mark.parametrize(
    ("groups", "limit", "apart"),
    [
        ("abcdef", 2, [4, 5]),
        ("abcabc", 2, [2, 5]),  # the last group comes whole
        ("abcabc", 3, [1, 2, 4, 5]),
        (["", "", "", "", "", ""], 1, [5]),
        (["x", "", "", "", "", "x"], 1, [5]),
    ],
)
def test_the_last_groups_are_held_out_whole(groups, limit, apart):
    config = TrainConfig(eval_every=1, eval_every_limit=limit, batch_size=1)
    every = examples(groups)
    trained, held = held_out(every, config)
    if groups == ["x", "", "", "", "", "x"]:
        apart = [4]  # x was seen first, so it is not the last group
    assert [int(example.id) for example in held] == apart
    assert [int(example.id) for example in trained] == [place for place in range(len(every)) if place not in apart]


def test_rows_of_one_text_are_not_on_both_sides():
    """They are one group wherever groups count: what is held out, and what a bootstrap resamples."""
    every = [Example(str(place), f"text {place % 3}") for place in range(6)]
    trained, held = held_out(every, TrainConfig(eval_every=1, eval_every_limit=1, batch_size=1))
    assert [int(one.id) for one in held] == [2, 5]
    assert not {one.text for one in trained} & {one.text for one in held}
    assert group_names(every) == ["id:0", "id:1", "id:2"] * 2
    assert group_names([replace(one, group="g") for one in every]) == ["g"] * 6


def test_nothing_is_held_out_unasked_and_a_batch_is_left():
    every = examples("abcdef")
    assert held_out(every, TrainConfig()) == (every, [])
    with pytest.raises(
        InputError, match="eval_every_limit 4 leaves 2 of 6 examples to train on, fewer than batch_size 3"
    ):
        held_out(every, TrainConfig(eval_every=1, eval_every_limit=4, batch_size=3))


def test_distinct_pairs_by_hand():
    """a b, b a, a b | a b: two distinct of four."""
    assert distinct_pairs(["a b a b", "a b"]) == 0.5
    assert distinct_pairs(["a", ""]) == 1.0
