"""Presets, and the defaults that follow the model."""

import logging
from dataclasses import asdict, replace

import pytest

from softspoken.cli.flags import parse
from softspoken.config import TrainConfig
from softspoken.config.help import field_docs
from softspoken.config.presets import followed, presets
from softspoken.training.start import Evaluated, say_how_it_begins
from softspoken.types import InputError

RECOMMENDED = presets()["recommended"]


def test_the_embedded_models_rate_meets_no_other_model():
    assert (TrainConfig().learning_rate, TrainConfig(model="mini").learning_rate) == (4e-3, 4e-3)
    config = TrainConfig(model="google/flan-t5-base")
    assert {name: getattr(config, name) for name in RECOMMENDED} == RECOMMENDED
    assert config.learning_rate == 2e-4
    assert "takes 2e-4" in parse_help("learning_rate")
    assert parse(["train", "--model", "my/t5"])[1] == TrainConfig(model="my/t5")


def parse_help(field):
    return field_docs(TrainConfig)[field]


def test_full_weights_take_a_tenth_of_an_adapters_rate():
    assert TrainConfig(model="my/t5", trained="full").learning_rate == 2e-5
    assert presets()["recommended-full"] == {**RECOMMENDED, "learning_rate": 2e-5}


def test_what_is_given_is_what_is_taken():
    config = TrainConfig(model="my/t5", learning_rate=4e-3)
    assert (config.learning_rate, config.warmup_steps) == (4e-3, RECOMMENDED["warmup_steps"])
    assert "learning_rate" not in followed(config)
    assert TrainConfig("summarization", "my/t5").learning_rate == 2e-4  # by position, too
    # A record holds every setting, and one that was changed keeps what it had.
    assert TrainConfig(**asdict(config)) == config
    assert replace(TrainConfig(), model="my/t5").learning_rate == 4e-3
    assert followed(TrainConfig(resume="runs/x", model="my/t5")) == {}


def test_what_followed_the_model_is_said_in_one_line(caplog):
    with caplog.at_level(logging.INFO):
        say_how_it_begins(TrainConfig(model="my/t5", warmup_steps=1), 9, Evaluated("test"))
        say_how_it_begins(TrainConfig(), 9, Evaluated("test"))
        say_how_it_begins(TrainConfig(dataset="rows.csv"), 9, Evaluated("test", 0.1, 1))
    assert [one.getMessage() for one in caplog.records] == [
        "my/t5 is not mini: learning_rate 0.0002, max_new_tokens 64 of the preset recommended (docs/recommended.md)",
        "rows.csv: 9 rows are trained on, and 1 row is held out for the evaluation, in whole groups (--eval_share 0.1, seed 0)",
    ]


def test_the_recipe_is_literal_whatever_is_recommended():
    recipe = presets()["flan-t5-base-recipe"]
    assert recipe.keys() >= RECOMMENDED.keys()
    assert followed(TrainConfig(**recipe)) == {}
    assert (recipe["learning_rate"], recipe["steps"], recipe["max_new_tokens"]) == (1.41e-5, 50, 60)


def test_the_recipes_old_name_is_told():
    with pytest.raises(InputError, match=r"is called flan-t5-base-recipe now, .* hardly moves anything"):
        parse(["train", "--preset", "flan-t5-base"])
