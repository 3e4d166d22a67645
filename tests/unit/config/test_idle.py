"""No setting is ignored in silence: of every pair it is known whether one makes a difference beside the other."""

import logging

import pytest

from softspoken.config import DpoConfig, EvaluateConfig, ExportConfig, ScoreConfig, ServeConfig, SftConfig, TrainConfig
from softspoken.config.idle import RULES, idle, say_what_is_idle
from softspoken.config.presets import presets
from softspoken.types import InputError


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (TrainConfig(), []),
        (TrainConfig(gae_lambda=0.95), []),
        (
            TrainConfig(algorithm="rloo", gae_lambda=0.95, whiten_rewards=True),
            ["gae_lambda 0.95, whiten_rewards true make no difference with algorithm rloo, which has no critic"],
        ),
        (TrainConfig(algorithm="dpo", clip_range=0.1), ["clip_range 0.1 makes no difference where no ratio is clipped by it"]),
        (TrainConfig(surrogate="cispo", clip_range=4.0), []),  # its upper bound, where it has none of its own
        (TrainConfig(surrogate="cispo", clip_range=0.1, clip_range_high=4.0), ["clip_range 0.1 makes no difference where no ratio is clipped by it"]),
        (TrainConfig(kl_target=0.2), ["kl_target 0.2 makes no difference with kl_controller fixed"]),
        (TrainConfig(kl_target=0.2, kl_controller="adaptive"), []),
        (TrainConfig(kl_coef=0, kl_in="reward"), ["kl_in reward makes no difference at kl_coef 0"]),
        (TrainConfig(focus_share=0.5), ["focus_share 0.5 makes no difference without focus heat"]),
        (TrainConfig(min_response_chars=0, short_margin=1.0), ["short_margin 1.0 makes no difference at min_response_chars 0"]),
        (TrainConfig(eval_limit=0, eval_samples=1, eval_dataset=[{"text": "a"}]), [
            "eval_dataset (given), eval_samples 1 make no difference at eval_limit 0, where nothing is evaluated at the end"]),
        (TrainConfig(dataset="a.csv", eval_dataset="b.csv", eval_share=0.2), ["eval_share 0.2 makes no difference beside eval_dataset"]),
        (TrainConfig(keep="last"), ["keep last makes no difference without eval_every"]),
        (TrainConfig(keep="last", eval_every=2), []),
        (TrainConfig(private=True), ["private true makes no difference without push_to_hub"]),
        (TrainConfig(trained="full", lora_r=4, adapter_scope="all", last_layers=2), [
            "lora_r 4 makes no difference where no fresh LoRA is made",
            "adapter_scope all makes no difference where nothing is placed by it",
            "last_layers 2 makes no difference with trained full"]),
        (TrainConfig(trained="ia3", lora_targets=["k"]), []),
        (DpoConfig(output="x", dataset="y", adapter="z", lora_r=4), ["lora_r 4 makes no difference where no fresh LoRA is made"]),
        (SftConfig(output="x", trained="lora", lora_r=4), []),
        (ExportConfig(output="x", check_limit=3), ["check_limit 3 makes no difference with format merged"]),
        (ServeConfig(guard=False, guard_samples=2), ["guard_samples 2 makes no difference with guard false"]),
    ],
)  # fmt: skip
def test_what_makes_no_difference_is_said(config, said):
    assert idle(config) == said


def test_a_preset_as_it_is_has_nothing_idle_and_every_rule_names_settings():
    assert [idle(TrainConfig(**preset)) for preset in presets().values()] == [[]] * len(presets())
    kinds = {kind.__name__: kind for kind in (TrainConfig, SftConfig, DpoConfig, ExportConfig, ServeConfig)}
    for kind, rules in RULES.items():
        assert {name for rule in rules for name in rule.names} <= {*kinds[kind].__dataclass_fields__}


def test_it_is_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        say_what_is_idle(TrainConfig(keep="last"))
    assert caplog.messages == ["keep last makes no difference without eval_every"]


@pytest.mark.parametrize(
    ("kind", "settings", "words"),
    [
        (TrainConfig, {"algorithm": "dpo", "kl_controller": "adaptive"}, "kl_controller 'adaptive' cannot be used: dpo's kl_coef is its beta"),
        (EvaluateConfig, {"output": "x", "own_settings": True, "prompt_template": "{text}"}, "own_settings asks each system by its own"),
        (EvaluateConfig, {"output": "x", "own_settings": True, "truncation_side": "left"}, "truncation_side 'left' cannot be used"),
        (ScoreConfig, {"serve": "127.0.0.1:8000", "file": "a.txt"}, "file 'a.txt' cannot be used: serve reads no file and writes none"),
        (ScoreConfig, {"serve": "127.0.0.1:8000", "output": "b.jsonl"}, "output 'b.jsonl' cannot be used"),
    ],
)  # fmt: skip
def test_what_contradicts_is_refused(kind, settings, words):
    with pytest.raises(InputError, match=words):
        kind(**settings)
