"""Dynamic sampling, by hand: who goes, who comes, and where it stops."""

from dataclasses import replace

import torch

from made_rollout import made_config, made_rollout
from softspoken.data.batches import fresh_examples
from softspoken.training.fresh import with_fresh_texts
from softspoken.types import Example, Scores


def sampled(names, values):
    """Two samples of each text, with these scores."""
    rollout = made_rollout([1] * len(values), index=[row // 2 for row in range(len(values))])
    examples = [Example(name, name) for name in names]
    return replace(rollout, prompts=replace(rollout.prompts, examples=examples)), Scores(torch.tensor(values), {})


def names_of(rollout):
    return [example.id for example in rollout.prompts.examples]


def drawing(*batches):
    """A draw that gives these in turn, and what it was asked for."""
    asked, coming = [], iter(batches)

    def draw(seen, count):
        asked.append(([example.id for example in seen], count))
        return next(coming, None)

    return draw, asked


def test_texts_that_are_alike_are_replaced_until_none_is_or_the_bound_is_reached():
    step = sampled("abc", [1.0, 1, 1, 2, 3, 3])
    draw, asked = drawing(sampled("de", [5.0, 5, 4, 6]), sampled("f", [7.0, 8]), sampled("g", [0.0, 1]))
    rollout, scores, replaced = with_fresh_texts(*step, draw, made_config(dynamic_sampling=5), 0)
    assert asked == [(["a", "b", "c"], 2), (["a", "b", "c", "d", "e"], 1)]
    assert names_of(rollout) == ["b", "e", "f"]
    assert scores.total.tolist() == [1, 2, 4, 6, 7, 8]
    assert rollout.prompt_index.tolist() == [0, 0, 1, 1, 2, 2]
    assert replaced == 3


def test_the_bound_leaves_what_is_alike_where_it_is():
    draw, asked = drawing(sampled("c", [5.0, 5]), sampled("d", [1.0, 2]))
    rollout, _, replaced = with_fresh_texts(*sampled("ab", [1.0, 1, 1, 2]), draw, made_config(dynamic_sampling=1), 0)
    assert (names_of(rollout), replaced, len(asked)) == (["b", "c"], 1, 1)


def test_all_may_be_replaced_and_no_more_than_there_are():
    draw, _ = drawing(sampled("cd", [5.0, 6, 1, 2]))
    step = sampled("ab", [1.0, 1, 2, 2])
    assert names_of(with_fresh_texts(*step, draw, made_config(dynamic_sampling=1), 0)[0]) == ["c", "d"]
    draw, _ = drawing(sampled("c", [5.0, 6]))  # the last text that there is
    rollout, scores, replaced = with_fresh_texts(*step, draw, made_config(dynamic_sampling=3), 0)
    assert (names_of(rollout), scores.total.tolist(), replaced) == (["b", "c"], [2, 2, 5, 6], 1)


def test_nothing_is_drawn_where_every_text_teaches():
    draw, asked = drawing()
    step = sampled("ab", [1.0, 2, 3, 4])
    rollout, _, replaced = with_fresh_texts(*step, draw, made_config(dynamic_sampling=3), 0)
    assert (rollout is step[0], replaced, asked) == (True, 0, [])


def test_fresh_examples_are_others_and_the_seeds():
    examples = [Example("same id", str(number)) for number in range(6)]
    draws = [
        [one.text for one in fresh_examples(examples, examples[:2], 3, torch.Generator().manual_seed(seed))]
        for seed in (0, 0, 1, 2, 3)
    ]
    assert draws[0] == draws[1]
    assert len({tuple(draw) for draw in draws}) > 1
    assert all(len({*draw}) == 3 and not {*draw} & {"0", "1"} for draw in draws)
    assert len(fresh_examples(examples, examples[:2], 9, torch.Generator())) == 4
