"""The whole loop on a tiny T5: what a run writes, that it is reproducible, and that it goes on after a kill."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from datasets import Dataset

import helpers_reward
import softspoken
from softspoken.config import TrainConfig
from softspoken.rl.loading import load_policy
from softspoken.storage.run_folder import RunFolder
from softspoken.train import train
from softspoken.types import InputError, RunError
from tiny_run import config_for, metrics_of

LOOP = sys.modules["softspoken.train"]  # as an attribute of the package it is the function
TESTS = Path(__file__).parents[1]


def test_a_run_writes_what_the_design_lists(tiny_t5, data, tmp_path):
    config = config_for(tiny_t5, data, tmp_path / "run")
    run = train(config)
    record = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    assert record["config"]["learning_rate"] == 1e-2
    assert record["config"]["seed"] == 0
    assert "transformers" in record["versions"]
    rows = metrics_of(run)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]
    assert rows[0]["objective/kl"] == pytest.approx(0, abs=1e-5)
    assert rows[-1]["objective/kl_k3"] > 1e-4
    assert [row["ppo/learning_rate"] for row in rows] == pytest.approx([1e-2 * left / 6 for left in (6, 5, 4, 3, 2)])
    for row in rows:
        assert 0 < row["objective/score"] < 1
        assert 0 <= row["ppo/policy/clip_fraction"] < 1
        assert row["ppo/grad_norm"] > 0
        assert row["ppo/kl_coef"] == config.kl_coef
        # Random weights: the entropy of 8,000 words, nearly.
        assert row["objective/entropy"] == pytest.approx(9, abs=1)
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step-000004", "step-000005"]
    for name in (
        "adapter_model.safetensors",
        "value_head.safetensors",
        "tokenizer.json",
        "generation_config.json",
        "README.md",
    ):
        assert (run / "adapter" / name).is_file(), name
    assert json.loads((run / "adapter" / "generation_config.json").read_text())["max_new_tokens"] == 6
    assert (run / "report.html").is_file()
    assert not [path for path in run.rglob("*") if path.suffix in (".bin", ".pt", ".pkl") or ".saving" in path.name]


def test_a_disk_without_room_for_checkpoints_is_said_before_the_first_step(tiny_t5, data, tmp_path, monkeypatch):
    """Three of them, each weight with two moments, in float32: 12 projections of rank 2 (two of 16 → 16 in 4 encoder and 8 decoder
    places: 64 numbers each) and a value head of 17 numbers."""
    config = config_for(tiny_t5, data, tmp_path / "run", adapter_scope="all")
    needed = 3 * 3 * 4 * (12 * 2 * (16 + 16) + 17)
    for free in (needed, needed - 1):
        monkeypatch.setattr("shutil.disk_usage", lambda path, free=free: SimpleNamespace(free=free))
        if free == needed:
            train(replace(config, steps=1))
            shutil.rmtree(tmp_path / "run")
        else:
            with pytest.raises(InputError, match="are free on its disk"):
                train(config)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_run_that_dies_in_its_first_writes_can_be_begun_or_gone_on_with(number, tiny_t5, data, tmp_path, monkeypatch):
    class Died(BaseException):
        pass

    def dying(self, name, content):
        written.append(name)
        if len(written) == number:
            raise Died
        return real(self, name, content)

    real, written = RunFolder.write, []
    config = config_for(tiny_t5, data, tmp_path / "run", steps=1, focus="heat", batch_size=2)
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write", dying)
        with pytest.raises(Died):
            train(config)
    begun = (tmp_path / "run/config.yaml").is_file()
    run = train(TrainConfig(resume=str(tmp_path / "run")) if begun else config)
    assert len(metrics_of(run)) == 1
    assert {"config.yaml", "focus.json", "trained_on.txt"} <= {path.name for path in run.iterdir()}


def test_the_same_seed_gives_the_same_metrics_and_another_does_not(tiny_t5, data, tmp_path):
    first, again, other = (
        metrics_of(train(config_for(tiny_t5, data, tmp_path / str(n), seed=seed, steps=3)))
        for n, seed in enumerate((0, 0, 1))
    )
    assert first == again
    assert first != other


def test_a_run_that_was_killed_goes_on_and_gives_the_same_metrics(tiny_t5, data, tmp_path):
    reward = "helpers_reward:killed_in_call_4"
    paths = [str(TESTS), str(TESTS.parent / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    where = "import softspoken; print(softspoken.__file__)"
    found = subprocess.run([sys.executable, "-c", where], env=environment, capture_output=True, text=True, check=True)
    assert Path(found.stdout.strip()) == Path(softspoken.__file__), "it is this checkout that is killed"
    config = config_for(tiny_t5, data, tmp_path / "killed", reward=reward)
    given = {name: value for name, value in asdict(config).items() if value is not None}
    flags = [f"--{name}={value}" for name, value in given.items() if not isinstance(value, list)]
    flags += [word for name, value in given.items() if isinstance(value, list) for word in (f"--{name}", *value)]
    command = [sys.executable, "-m", "softspoken", "train"]
    killed = subprocess.run([*command, *flags], env=environment, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(metrics_of(tmp_path / "killed")) == 3
    whole = environment | {"SURVIVE": "1"}
    resumed = subprocess.run(
        [*command, "--resume", str(tmp_path / "killed")], env=whole, capture_output=True, text=True, check=False
    )
    assert resumed.returncode == 0, resumed.stderr
    flags[flags.index(f"--output={config.output}")] = f"--output={tmp_path / 'whole'}"
    subprocess.run([*command, *flags], env=whole, capture_output=True, check=True)
    assert metrics_of(tmp_path / "killed") == metrics_of(tmp_path / "whole")


def test_the_kl_weight_is_steered_saved_and_gone_on_with(tiny_t5, data, tmp_path, monkeypatch):
    """The sampled KL is 0 at first: the weight falls by the most it may, 0.2 · 10 samples / 100."""
    steered = {"kl_controller": "adaptive", "kl_coef": 0.5, "kl_target": 0.1, "kl_horizon": 100, "batch_size": 5}
    monkeypatch.setattr(helpers_reward, "calls", 0)
    stopped = config_for(tiny_t5, data, tmp_path / "stopped", reward="helpers_reward:stopped_in_call_4", **steered)
    with pytest.raises(RunError, match="stopped"):
        train(stopped)
    rows = metrics_of(train(TrainConfig(resume=stopped.output)))
    weights = [row["ppo/kl_coef"] for row in rows]
    expected = [0.5]
    for row in rows[:-1]:
        error = min(max(row["objective/kl"] / 0.1 - 1, -0.2), 0.2)
        expected.append(expected[-1] * (1 + error * 10 / 100))
    assert weights[1] == pytest.approx(0.5 * (1 - 0.2 * 10 / 100), rel=1e-6)
    assert weights == pytest.approx(expected, rel=1e-6)
    saved = json.loads((tmp_path / "stopped" / "checkpoints" / "step-000004" / "progress.json").read_text())
    assert saved["kl_coef"] == pytest.approx(weights[4], rel=1e-6)


def test_a_response_is_scored_beside_the_dialogue_that_it_answers(tiny_t5, data, tmp_path, monkeypatch):
    """Each answers with its dialogue's id, and every third is too short."""
    sampled = LOOP.generate_rollout

    def rollouts(policy, prompts, config, generator):
        rollout = sampled(policy, prompts, config, generator)
        said = [f"number {prompts.examples[place].id}" for place in rollout.prompt_index.tolist()]
        return replace(rollout, responses=["" if row % 3 == 0 else text for row, text in enumerate(said)])

    monkeypatch.setattr(LOOP, "generate_rollout", rollouts)
    monkeypatch.setattr(helpers_reward, "seen", [])
    train(
        config_for(
            tiny_t5,
            data,
            tmp_path / "run",
            reward="helpers_reward:remembered",
            steps=2,
            min_response_chars=4,
            batch_size=5,
        )
    )
    told = [(text, dialogue) for text, dialogue in helpers_reward.seen if text]
    assert len(told) == 2 * 6
    assert all(text == f"number {dialogue}" for text, dialogue in told)
    assert len({dialogue for _, dialogue in told}) > 4


def test_what_was_scored_is_forgotten_after_each_step(tiny_t5, data, tmp_path, monkeypatch):
    """A signal may make any step a checkpoint."""
    happened = []
    score, clear = LOOP.WeightedReward.__call__, LOOP.WeightedReward.clear_cache
    monkeypatch.setattr(LOOP.WeightedReward, "__call__", lambda *given: happened.append("score") or score(*given))
    monkeypatch.setattr(LOOP.WeightedReward, "clear_cache", lambda self: happened.append("forget") or clear(self))
    train(config_for(tiny_t5, data, tmp_path / "run"))
    assert happened == ["score", "forget"] * 5


def test_a_run_whose_every_summary_is_too_short_counts_them_and_fails(tiny_t5, data, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(RunError, match=r"none of the 2 steps of .* trained: .*min_response_chars 10000") as said:
        train(config_for(tiny_t5, data, run, min_response_chars=10_000, steps=2, batch_size=5))
    for row in metrics_of(run):
        assert row["tokens/short"] == 10
        assert row["ppo/skipped"] == 1
    with pytest.raises(RunError, match="none of the 2 steps") as again:
        train(TrainConfig(resume=str(run)))
    assert str(again.value) == str(said.value)


def test_what_is_too_short_is_not_judged_and_its_floor_is_in_the_mean_score(tiny_t5, data, tmp_path, monkeypatch):
    """Of each eight summaries the first is too short: seven at 0.75 and, for it, its sibling's 0.75 less 0.5."""
    asked = []

    def reward(texts, examples):
        asked.append(len(texts))
        return [0.75] * len(texts)

    monkeypatch.setattr("helpers_reward.letters", reward)
    monkeypatch.setattr(LOOP, "too_short", lambda rollout, least: torch.arange(len(rollout.responses)) == 0)
    [row] = metrics_of(train(config_for(tiny_t5, data, tmp_path / "run", steps=1)))
    assert asked == [7]
    assert row["tokens/short"] == 1
    assert row["objective/score"] == pytest.approx((7 * 0.75 + 0.25) / 8)
    assert row["objective/score/helpers_reward:letters"] == pytest.approx(0.75)


def test_logits_that_are_not_finite_end_the_run_in_a_sentence_with_the_step(tiny_t5, data, tmp_path, monkeypatch):
    def broken(*given):
        policy = load_policy(*given)
        policy.seq2seq.get_decoder().final_layer_norm.weight.data[0] = float("nan")
        return policy

    monkeypatch.setattr(LOOP, "load_policy", broken)
    with pytest.raises(RunError, match=r"^step 1: the model's logits are not finite"):
        train(config_for(tiny_t5, data, tmp_path / "run"))


@pytest.mark.parametrize("reward", ["too_few", "not_a_number"])
def test_a_broken_reward_stops_the_step_with_its_name(tiny_t5, data, tmp_path, reward):
    with pytest.raises(RunError, match=reward):
        train(config_for(tiny_t5, data, tmp_path / "run", reward=f"helpers_reward:{reward}"))


def test_bad_settings_leave_nothing_behind(tiny_t5, data, tmp_path):
    with pytest.raises(InputError, match="batch_size 11 is larger than the dataset"):
        train(config_for(tiny_t5, data, tmp_path / "run", batch_size=11))
    with pytest.raises(InputError, match="nonsense"):
        train(config_for(tiny_t5, data, tmp_path / "run", reward="nonsense"))
    assert not (tmp_path / "run").exists()


def test_another_run_is_not_overwritten_unasked(tiny_t5, data, tmp_path):
    config = config_for(tiny_t5, data, tmp_path / "run", steps=1)
    train(config)
    with pytest.raises(InputError, match="not empty"):
        train(config)
    train(replace(config, overwrite=True))
    with pytest.raises(InputError, match="no run at"):
        train(TrainConfig(resume=str(tmp_path / "elsewhere")))


def test_rows_given_in_python_reach_reward_and_evaluation_and_must_be_given_again(tiny_t5, tmp_path):
    rows = [
        {
            "article": f"number {n}",
            "highlights": [f"It is {n}.", f"{n}!"],
            "wanted": "".join(map(chr, range(97, 102 + n))),
        }
        for n in range(8)
    ]
    changes = {
        "reward": "helpers_reward:wanted_letters",
        "steps": 1,
        "eval_limit": 2,
        "eval_samples": 0,
        "eval_share": 0.25,
    }
    run = train(config_for(tiny_t5, "mini", tmp_path / "run", dataset=rows, **changes))
    saved = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))["config"]["dataset"]
    assert re.fullmatch(r"rows given in Python: 8, SHA-256 [0-9a-f]{16}", saved)
    evaluation = json.loads((run / "eval.json").read_text())
    assert evaluation["dataset"]["id"] == saved
    assert evaluation["notes"][0].startswith(
        "2 of 2 dialogues have several references: what compares with them takes the best"
    )
    assert saved in (run / "README.md").read_text()
    shutil.rmtree(run / "checkpoints")
    for given in ({}, {"dataset": rows[:7]}, {"dataset": "mini"}):
        with pytest.raises(
            InputError, match=r"resume: dataset of .* is rows given in Python: 8.*; give the same again"
        ):
            train(TrainConfig(resume=str(run), **given))
    assert not (run / "checkpoints").exists()
    train(TrainConfig(resume=str(run), dataset=Dataset.from_list(rows)))
    assert (run / "checkpoints" / "step-000001").is_dir()


def test_what_the_evaluation_cannot_read_is_said_before_the_first_step(tiny_t5, data, tmp_path):
    (tmp_path / "other.csv").write_text("id,said\na,x\n")
    for changes in ({"eval_dataset": str(tmp_path / "other.csv")}, {"eval_dataset": "mini", "eval_split": "dev"}):
        with pytest.raises(InputError, match=r"none of its columns|no split 'dev'"):
            train(config_for(tiny_t5, data, tmp_path / "run", eval_limit=1, **changes))
    assert not (tmp_path / "run").exists()


def test_a_damaged_checkpoint_is_said_and_the_one_before_it_taken(tiny_t5, data, tmp_path, caplog):
    run = train(config_for(tiny_t5, data, tmp_path / "run", steps=3, save_every=1, eval_limit=0))
    ended = (run / "adapter" / "adapter_model.safetensors").read_bytes()
    before, newest = sorted((run / "checkpoints").glob("step-*"))
    whole = (newest / "weights.safetensors").read_bytes()
    (newest / "weights.safetensors").write_bytes(whole[: len(whole) // 2])
    caplog.clear()
    train(TrainConfig(resume=str(run)))
    said = [message for message in caplog.messages if "going on from the checkpoint before it" in message]
    assert len(said) == 1
    assert said[0].startswith(f"{newest} cannot be read")
    assert [line["step"] for line in metrics_of(run)] == [1, 2, 3]
    assert (run / "adapter" / "adapter_model.safetensors").read_bytes() == ended
    for folder in (before, newest):
        (folder / "optimizer.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match=r"no checkpoint in .* can be read"):
        train(TrainConfig(resume=str(run)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"setps": 3}, "has a setting 'setps' that train does not know"),
        ({"steps": -1}, "steps"),
        ({"learning_rate": "fast"}, "learning_rate"),
    ],
)
def test_an_edited_configuration_is_said_and_nothing_is_trained(tiny_t5, data, tmp_path, change, words):
    run = train(config_for(tiny_t5, data, tmp_path / "run", steps=1, eval_limit=0))
    record = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    record["config"] |= change
    (run / "config.yaml").write_text(yaml.safe_dump(record), encoding="utf-8")
    metrics = (run / "metrics.jsonl").read_bytes()
    with pytest.raises(InputError, match=words):
        train(TrainConfig(resume=str(run)))
    assert (run / "metrics.jsonl").read_bytes() == metrics
