"""What a notebook hands over: a text for a list of them, a dict for a configuration, a path for its name. Used, or refused in a sentence."""

import warnings

import numpy
import pandas
import pytest

import softspoken
from softspoken.types import Example, InputError
from tiny_run import config_for

EXAMPLES = [Example("1", "Ann: Tea?"), Example("2", "Ben: At five.")]


def refused(words, function, *values, **settings):
    with pytest.raises(InputError, match=r"^[^\n]*$") as caught:
        function(*values, **settings)
    assert words in str(caught.value)


def test_one_text_is_not_taken_for_its_characters(tiny_t5):
    judge, reward = softspoken.load_judge("mini"), softspoken.load_reward("length:1-3")
    for asked in (judge, softspoken.Generator.from_pretrained(str(tiny_t5))):
        refused("texts must be a list of texts; put the one text into a list", asked, "Hi")
        refused("texts: entry 2 is None, which is no text", asked, ["Hi", None])
    refused("responses must be a list of texts", reward, "Hi", EXAMPLES)
    refused("there are 1 responses and 2 examples", reward, ["Hi"], EXAMPLES)
    for several in (numpy.array(["Hi", "Ho"]), pandas.Series(["Hi", "Ho"], index=[7, 8])):
        assert len(judge(several)["toxicity"]) == 2
        assert reward(several, EXAMPLES).total.tolist() == [1, 1]


def test_a_model_is_named_by_a_path_as_well(tiny_t5):
    load = softspoken.Generator.from_pretrained
    assert len(load(tiny_t5)(["Hi"])) == 1
    refused("model 3 cannot be used: give a hub id or a path", load, 3)
    refused("adapter 3 cannot be used: give a hub id or a path", load, tiny_t5, adapter=3)
    refused("max_new_tokens -1 cannot be used", load, tiny_t5, max_new_tokens=-1)
    refused("device 'tpu' is none that torch knows", load, tiny_t5, device="tpu")
    refused("device 'tpu' is none that torch knows", softspoken.load_judge, "mini", device="tpu")


def test_a_configuration_and_a_callback_are_what_they_should_be():
    refused("train takes a TrainConfig, not a dict; make one with softspoken.TrainConfig(…)", softspoken.train, {})
    refused("train takes a TrainConfig", list, softspoken.steps("runs/x"))
    refused("sft takes a SftConfig, not a TrainConfig", softspoken.sft, softspoken.TrainConfig())
    refused("dpo takes a DpoConfig", softspoken.dpo, None)
    refused("sweep takes a SweepConfig, not a dict", softspoken.sweep, {"search": {}})
    refused("export takes a ExportConfig", softspoken.export, "models/calm")
    refused("serve takes a ServeConfig", softspoken.serve, "mini")
    for name in ("on_step", "on_evaluate", "on_end"):
        refused(f"{name} 3 cannot be used: give a function", softspoken.train, softspoken.TrainConfig(), **{name: 3})


def test_no_librarys_warning_comes_through(tiny_t5, data, tmp_path):
    """PEFT and transformers are not of one age."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = softspoken.train(config_for(tiny_t5, data, tmp_path / "run", steps=1))
        softspoken.Generator.from_pretrained(tiny_t5, adapter=run / "adapter")(["Hi"])
