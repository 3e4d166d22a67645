"""Rewards, judges, measures, systems and adapters are read when a configuration is made, and nothing is loaded for it."""

import subprocess
import sys
from pathlib import Path

import pytest

from softspoken.config import DemoConfig, EvaluateConfig, ScoreConfig, ServeConfig, TrainConfig
from softspoken.config.specs import VARIANTS, length_bounds
from softspoken.types import InputError

REWARDS = [
    ("nonsense", "unknown reward 'nonsense'; use mini"),
    ("mini + 0.5*rouge:rouge9", "reward 'rouge:rouge9': no such ROUGE; use one of rouge:rouge1"),
    ("mini * length:9-3", "reward 'length:9-3': give the bounds in words"),
    ("length:0-0", "reward 'length:0-0': give the bounds in words"),
    ("detoxify:orginal", "detoxify has no variant 'orginal'; use detoxify:VARIANT with one of original, unbiased"),
    ("hf:org/model", "'hf:org/model' is not a classifier; use one of mini"),
    ("hf::x:pair", "names no label; write hf:MODEL:LABEL:pair"),
    ("entails:", "reward 'entails:' names no model; write entails:MODEL"),
    ("similarity:", "unknown reward 'similarity:'"),
]


@pytest.mark.parametrize(("spec", "words"), REWARDS)
def test_a_reward_that_there_is_no_kind_of_is_said_at_once(spec: str, words: str) -> None:
    for make in (
        lambda: TrainConfig(reward=spec),
        lambda: EvaluateConfig(output="x", reward=spec),
        lambda: ScoreConfig(reward=spec),
        lambda: TrainConfig(measure=[f"style={spec}"]),
    ):
        with pytest.raises(InputError) as said:
            make()
        assert words in str(said.value)


@pytest.mark.parametrize(
    "spec",
    [
        *("mini", "profanity", "detoxify:original:insult", "hf:org/model:-toxic", "hf:org/model:good:pair:logit"),
        *("entails:org/nli", "rouge:rougeLsum", "chrf", "bleu", "similarity:org/e", "cosine:org/e", "length:5-30"),
        *("http://localhost:1/x#batch=2", "pack.module:function", "./own.py:function", "mini * chrf + 2*bleu"),
    ],
)
def test_what_there_is_is_taken(spec: str) -> None:
    assert TrainConfig(reward=spec).reward == spec


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: TrainConfig(judge=["minni"]), "'minni' is not a classifier; use one of mini"),
        (lambda: EvaluateConfig(output="x", judge=["mini", "chrf"]), "'chrf' is not a classifier"),
        (lambda: EvaluateConfig(output="x", judge=["entails:m"]), "'entails:m' is a reward and no judge"),
        (lambda: ServeConfig(judge="rouge:rougeL"), "'rouge:rougeL' is not a classifier"),
        (lambda: DemoConfig(judge="rouge:rougeL"), "'rouge:rougeL' is not a classifier"),
        (lambda: TrainConfig(measure=["style"]), "measure 'style' cannot be used: write NAME=REWARD"),
        (lambda: EvaluateConfig(output="x", measure=["=chrf"]), "measure '=chrf' cannot be used: write NAME=REWARD"),
        (
            lambda: EvaluateConfig(output="x", system=["theirs.jsonl"]),
            "system 'theirs.jsonl' has no name; write NAME=FILE",
        ),
        (lambda: EvaluateConfig(output="x", adapter=["a=f", "a=f"]), "adapter f is given twice for 'a'"),
        (lambda: EvaluateConfig(output="x", adapter=["a/base", "b/base", "a/base"]), "do not have distinct names"),
        (lambda: ServeConfig(adapter=["a=f", "a=g"]), "'a' is the name of two; give one of them another"),
    ],
)
def test_judges_measures_systems_and_adapters_as_well(make: object, words: str) -> None:
    with pytest.raises(InputError) as said:
        make()  # type: ignore[operator]
    assert words in str(said.value)


def test_lengths_by_hand_and_detoxifys_own_variants() -> None:
    assert length_bounds("length:5-30") == (5, 30)
    urls = pytest.importorskip("detoxify.detoxify").MODEL_URLS
    assert {*VARIANTS} == {*urls}


def test_a_wrong_reward_needs_no_torch(tmp_path: Path) -> None:
    probe = (
        "import sys\nfrom softspoken.__main__ import main\n"
        "status = main(['train', '--reward', 'nonsense'])\nprint(status, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", probe], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["2", "False"], done.stderr
