"""Rewards given in Python, in a whole run: what is measured and recorded of them, and what a run that goes on needs again."""

from typing import Any

import pytest
import yaml

from softspoken.config import TrainConfig
from softspoken.config.rewards import is_given_function
from softspoken.train import train
from softspoken.types import InputError
from tiny_run import config_for, metrics_of


def test_a_lambda_trains_is_evaluated_and_has_to_be_given_again(tiny_t5, data, tmp_path):
    given: Any = {
        "vowels": lambda completions, summary, **_: [sum(c in "aeiou" for c in text) / 50 for text in completions]
    }
    config = config_for(tiny_t5, data, tmp_path / "run", reward=given, steps=2, eval_limit=2, eval_samples=0)
    run = train(config)
    assert all("objective/score/vowels" in row for row in metrics_of(run))
    [recorded] = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))["config"]["reward"]
    assert is_given_function(recorded)
    assert "vowels, SHA-256 " in recorded
    (run / "eval.json").unlink()
    with pytest.raises(
        InputError,
        match=r"resume: reward of .*run is function given in Python: vowels, SHA-256 \w+; give the same again",
    ):
        train(TrainConfig(resume=str(run)))
    with pytest.raises(InputError, match="give the same again"):
        train(TrainConfig(resume=str(run), reward=lambda *_: [1.0]))
    train(TrainConfig(resume=str(run), reward=given))
    assert (run / "eval.json").is_file()


def test_no_opinion_is_counted_and_scaling_keeps_the_score_readable(tiny_t5, data, tmp_path):
    calls = []

    def first_half(responses, examples):
        calls.append(len(responses))
        return [0.75 if row < len(responses) // 2 else None for row in range(len(responses))]

    def never(responses, examples):
        return (None for _ in responses)

    config = config_for(
        tiny_t5,
        data,
        tmp_path / "run",
        reward=["helpers_reward:letters", first_half, never],
        reward_scaling="batch",
        steps=1,
    )
    [row] = metrics_of(train(config))
    assert row["objective/score/first_half"] == 0.75
    assert row["objective/no_opinion/first_half"] == calls[0] - calls[0] // 2
    assert row["objective/no_opinion/never"] == calls[0]
    assert "objective/score/never" not in row
    assert "objective/no_opinion/helpers_reward:letters" not in row
    # Letters' mean and 0.75 for every other: the plain sum, where the scaled one has a mean of 0.
    expected = row["objective/score/helpers_reward:letters"] + 0.75 * (calls[0] // 2) / calls[0]
    assert row["objective/score"] == pytest.approx(expected, abs=1e-5)


def test_a_column_that_the_data_has_not_is_said_before_a_model_is_loaded(tiny_t5, data, tmp_path, monkeypatch):
    def wants(completions, label):
        return [1.0 for _ in completions]

    monkeypatch.setattr("softspoken.rl.loading.load_seq2seq", None)
    with pytest.raises(
        InputError,
        match="asks for 'label', and no row has a column of that name; there is id, dialogue, summary, prompts",
    ):
        train(config_for(tiny_t5, data, tmp_path / "run", reward=wants))
    assert not (tmp_path / "run" / "config.yaml").exists()
