"""The grammar of rewards given in Python: names, weights, and what a record holds of a function."""

import functools
import math
from typing import Any

import pytest

import helpers_reward
from softspoken.config import TrainConfig
from softspoken.config.rewards import recorded_reward, reward_functions, reward_weights
from softspoken.types import InputError


def local(responses: list[str], examples: list[Any]) -> list[float]:
    return [0.0] * len(responses)


def test_a_function_a_list_and_a_mapping() -> None:
    letters = helpers_reward.letters
    assert reward_weights(letters) == {"helpers_reward:letters": 1.0}
    assert reward_weights(["mini * chrf", letters, (math.floor, 0.5)]) == {
        "mini * chrf": 1.0, "helpers_reward:letters": 1.0, "math:floor": 0.5,
    }  # fmt: skip
    mapping: Any = {letters: 0.2, "mini": 1, "short": lambda *_: 0, "long": (local, -1)}
    assert reward_weights(mapping) == {"helpers_reward:letters": 0.2, "mini": 1.0, "short": 1.0, "long": -1.0}
    assert reward_functions(mapping).keys() == {"helpers_reward:letters", "short", "long"}
    assert reward_functions(mapping)["long"] is local
    assert reward_functions("mini") == {}


def test_what_cannot_be_imported_goes_by_its_own_name() -> None:
    def inner(responses: list[str], examples: list[Any]) -> list[float]:
        return []

    class Made:
        def __call__(self, responses: list[str], examples: list[Any]) -> list[float]:
            return []

    given: Any = [inner, lambda *_: 1, lambda *_: 2, Made(), functools.partial(inner)]
    assert list(reward_weights(given)) == ["inner", "lambda", "lambda-2", "Made", "inner-2"]


def test_the_record_of_a_function_is_its_name_or_what_it_was() -> None:
    assert recorded_reward([helpers_reward.letters, ("mini", 0.5)]) == {"helpers_reward:letters": 1.0, "mini": 0.5}
    one, other = (lambda *_: 1), (lambda *_: 2)
    [record] = recorded_reward(one) or {}
    assert record.startswith("function given in Python: lambda, SHA-256 ")
    assert [record] == list(recorded_reward(one) or {})
    assert recorded_reward("mini + chrf") == "mini + chrf"
    again = recorded_reward(other) or {}
    assert isinstance(again, dict)
    named: Any = {"mine": one}
    [of_named] = recorded_reward(named) or {}
    assert of_named.startswith("function given in Python: mine, ")


@pytest.mark.parametrize(
    ("reward", "says"),
    [
        ([helpers_reward.letters, helpers_reward.letters], "names helpers_reward:letters twice"),
        (["mini", ("mini", 2)], "names mini twice"),
        ({helpers_reward.letters: "much"}, "has the weight 'much'"),
        ([3], "reward: 3 is neither the name of a reward nor a function"),
        (3, "reward 3 cannot be used: give functions as reward=function"),
    ],
)
def test_what_is_refused(reward: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        TrainConfig(reward=reward)


def test_scaling_within_groups_needs_groups() -> None:
    with pytest.raises(InputError, match="reward_scaling 'group' cannot be used: it compares the samples of a text"):
        TrainConfig(reward_scaling="group", samples_per_prompt=1)
    assert TrainConfig(reward_scaling="batch", samples_per_prompt=1).reward_scaling == "batch"
