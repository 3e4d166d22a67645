"""Every setting of every command is of its kind, finite and in its range, whichever way it comes."""

import dataclasses
import math
import typing
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from datasets import Dataset

from softspoken.cli import commands, flags
from softspoken.config import (
    DemoConfig,
    DpoConfig,
    EstimateConfig,
    EvaluateConfig,
    ExportConfig,
    GenerateConfig,
    ScoreConfig,
    ServeConfig,
    SftConfig,
    SweepConfig,
    TrainConfig,
)
from softspoken.config.ranges import BOUNDS, Bounds
from softspoken.types import InputError

DEFAULTS: dict[str, Any] = {
    "train": TrainConfig(eval_every=1),
    "sft": SftConfig(output="o", trained="lora"),
    "sweep": SweepConfig(file="f"),
    "dpo": DpoConfig(output="o", dataset="pairs.jsonl"),
    "evaluate": EvaluateConfig(output="o"),
    "generate": GenerateConfig(),
    "score": ScoreConfig(),
    "export": ExportConfig(output="o"),
    "serve": ServeConfig(),
    "estimate": EstimateConfig(model=["mini"]),
    "demo": DemoConfig(),
}


def numbers_of(command: str) -> dict[str, type]:
    hints = typing.get_type_hints(commands.CONFIGS[command])
    kinds = {name: {hint, *typing.get_args(hint)} & {int, float} for name, hint in hints.items()}
    return {name: next(iter(found)) for name, found in kinds.items() if found}


NUMBERS = [(command, name, kind) for command in DEFAULTS for name, kind in numbers_of(command).items()]


def test_every_number_has_its_range_and_every_range_its_number() -> None:
    assert {name for _, name, _ in NUMBERS} == set(BOUNDS)


@pytest.mark.parametrize(("command", "name", "kind"), NUMBERS)
def test_what_is_in_its_range_is_taken_and_nothing_else(command: str, name: str, kind: type) -> None:
    bounds = BOUNDS[name]
    below = bounds.low if bounds.above else math.nextafter(bounds.low, -math.inf) if kind is float else bounds.low - 1
    outside = [below, 2 * bounds.high + 1, -1e300, 1e300]
    if kind is float:
        outside += [math.nan, math.inf, -math.inf]
    config = DEFAULTS[command]
    for value in outside:
        with pytest.raises(InputError, match=rf"^{name} .*cannot be used: give "):
            dataclasses.replace(config, **{name: int(value) if kind is int else value})
    low = math.nextafter(bounds.low, math.inf) if bounds.above else bounds.low
    for value in (kind(low), kind(bounds.high)):
        assert getattr(dataclasses.replace(config, **{name: value}), name) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [("temperature", "1e400"), ("kl_coef", ".nan"), ("adam_epsilon", "0"), ("seed", "9223372036854775807")],
)
def test_flags_and_yaml_are_held_to_it_too(name: str, value: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(f"{name}: {value}\n")
    for words in ([f"--{name}={value}"], ["--config", str(tmp_path / "c.yaml")]):
        with pytest.raises(InputError, match=rf"^{name} .*cannot be used: give "):
            flags.parse(["train", *words])


@pytest.mark.parametrize("digits", [400, 5000])
def test_a_number_longer_than_python_reads(digits: int, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(f"steps: {'9' * digits}\n")
    for argv in (["--steps", "9" * digits], ["--kl_coef", "9" * digits], ["--config", str(tmp_path / "c.yaml")]):
        with pytest.raises(InputError) as caught:
            flags.parse(["train", *argv])
        assert len(str(caught.value)) < 1200


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"steps": 2.5}, "steps 2.5 cannot be used: give a whole number"),
        ({"steps": True}, "steps True cannot be used: give a whole number"),
        ({"steps": "5"}, "steps '5' cannot be used: give a whole number"),
        ({"steps": None}, "steps None cannot be used: give a whole number"),
        ({"kl_coef": "low"}, "kl_coef 'low' cannot be used: give a number"),
        ({"kl_coef": False}, "kl_coef False cannot be used: give a number"),
        ({"dtype": "bf16"}, "dtype 'bf16' cannot be used: give auto or float32 or bfloat16"),
        ({"algorithm": "ipo"}, "algorithm 'ipo' cannot be used: give "),
        ({"truncation_side": 1}, "truncation_side 1 cannot be used: give left or right"),
        ({"fast": 1}, "fast 1 cannot be used: give true or false"),
        ({"model": 5}, "model 5 cannot be used: give text"),
        ({"model": b"mini"}, "model b'mini' cannot be used: give text"),
        ({"model": "a\0b"}, r"model 'a\x00b' cannot be used: give text"),
        ({"output": 5}, "output 5 cannot be used: give text"),
        ({"judge": "mini"}, "judge 'mini' cannot be used: give a list"),
        ({"judge": [5]}, "judge [5] cannot be used: give a list"),
        ({"reward": 5}, "reward 5 cannot be used: give functions as reward=function"),
        ({"reward": [None]}, "reward: None is neither the name of a reward nor a function"),
        ({"reward": {"mini": math.inf}}, "reward 'mini' has the weight inf; give a finite number"),
        (
            {"reward": {"mini": 1e7}},
            "reward 'mini' has the weight 10000000.0; give a finite number, like 0.2, of at most",
        ),
        ({"reward": {"mini": 10**400}}, "reward 'mini' has the weight 1000"),
        ({"reward": "mini + + mini"}, "cannot be read at"),
        ({"reward": {5: 1.0}}, "reward: 5 is neither the name of a reward nor a function"),
    ],
)
def test_another_kind_is_refused_in_python(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        TrainConfig(**settings)
    assert words in str(caught.value)


def test_what_means_the_same_is_taken() -> None:
    config = TrainConfig(
        steps=np.int64(3),  # type: ignore[arg-type]
        kl_coef=np.float32(0.5),  # type: ignore[arg-type]
        temperature=1,
        output=Path("runs") / "x",  # type: ignore[arg-type]
        model=Path("models/mine"),  # type: ignore[arg-type]
        judge=("mini",),  # type: ignore[arg-type]
    )
    assert config == TrainConfig(
        steps=3, kl_coef=0.5, output=str(Path("runs/x")), model=str(Path("models/mine")), judge=["mini"]
    )
    assert type(config.steps) is int
    assert type(config.temperature) is float
    assert SftConfig(output=Path("o")).output == "o"  # type: ignore[arg-type]
    assert EvaluateConfig(output="o", dataset=Path("rows.jsonl")).dataset == "rows.jsonl"  # type: ignore[arg-type]


def test_a_range_in_words() -> None:
    assert str(Bounds(0, 1_000_000, above=True)) == "above 0, up to 1,000,000"
    assert str(Bounds(1e-30, 1)) == "1e-30 to 1"
    assert Bounds(1, 5).remedy(0) == "give a number above 0"
    assert Bounds(0, 5).remedy(-1) == "give 0 or more"
    assert Bounds(0, 5).remedy(7) == "give 5 or less"
    assert Bounds(0, 5).remedy(math.nan) == "give a finite number"
    assert Bounds(1e-4, 5).remedy(0) == "give 0.0001 or more"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"dataset": 3}, "dataset 3 cannot be used: give a name, a path, a list of dicts or a datasets.Dataset"),
        ({"dataset": None}, "dataset None cannot be used"),
        ({"dataset": []}, "dataset cannot be used: it has no rows"),
        ({"dataset": [{"text": "a"}, 2]}, "dataset cannot be used: row 2 is no dict"),
        ({"eval_dataset": {"a": 1}}, "eval_dataset is a dict whose values are no sets of rows"),
        ({"dataset": pandas.DataFrame({"text": ["a"]})}, "dataset is a table of pandas'"),
        ({"prompt_template": "Summarize."}, "prompt_template 'Summarize.' must contain {text} exactly once"),
        ({"prompt_template": "{text} {text}"}, "must contain {text} exactly once"),
        ({"judge": []}, "judge is an empty list; name one, or leave it out"),
        ({"reward": {}}, "reward is empty"),
    ],
)
def test_what_python_can_give_is_checked_when_the_configuration_is_made(settings, words):
    with pytest.raises(InputError) as caught:
        TrainConfig(**settings)
    assert words in str(caught.value)


def test_rows_and_splits_of_them_are_taken_as_they_are():
    rows = [{"text": "a"}]
    assert TrainConfig(dataset=rows).dataset is rows
    assert (
        TrainConfig(dataset={"train": rows, "test": rows}, eval_dataset=Dataset.from_list(rows)).eval_dataset.num_rows
        == 1
    )
