"""No system is compared under another prompt, length or generation setting than the others, unless asked for, and then it is said."""

import json
import shutil
from pathlib import Path

import pytest
from transformers import GenerationConfig

from conftest import build_tiny_t5
from softspoken.config import EvaluateConfig, TrainConfig
from softspoken.data.prompts import FORMAT_FILE, PromptFormat
from softspoken.evaluation.evaluate import evaluate
from softspoken.report.verdict import remarks
from softspoken.train import train

QUICK = {"batch_size": 2, "samples_per_prompt": 2, "steps": 1, "eval_limit": 4, "eval_samples": 1, "device": "cpu"}


@pytest.fixture(scope="module")
def hub_like(tmp_path_factory) -> Path:
    """A model as the hub has them: no prompt format beside it, and a generation config that searches with beams."""
    folder = build_tiny_t5(tmp_path_factory.mktemp("hub-like"))
    (folder / FORMAT_FILE).unlink()
    generation = GenerationConfig.from_pretrained(folder)
    generation.num_beams, generation.no_repeat_ngram_size = 3, 2
    generation.save_pretrained(folder)
    return folder


def texts(folder: Path, system: str) -> list[str]:
    rows = [json.loads(line) for line in (folder / "eval_rows.jsonl").read_text(encoding="utf-8").splitlines()]
    return [row["summary"] for row in rows if row["system"] == system]


def trained(hub_like: Path, output: Path, **settings) -> Path:
    config = TrainConfig(
        model=str(hub_like), learning_rate=1e-9, output=str(output), max_new_tokens=8, **QUICK, **settings
    )
    return train(config)


@pytest.mark.parametrize(
    "settings", [{"prompt_template": "Now: {text} Then"}, {"max_prompt_tokens": 60, "truncation_side": "left"}]
)
def test_training_at_no_learning_rate_changes_nothing(hub_like, tmp_path, settings):
    run = trained(hub_like, tmp_path / "run", **settings)
    assert texts(run, "base") == texts(run, "tuned")
    prompts = json.loads((run / "eval.json").read_text(encoding="utf-8"))["config"]
    assert {name: prompts[name] for name in settings} == settings


def test_an_evaluation_asks_every_system_alike_and_says_what_differs_from_the_training(hub_like, tmp_path):
    adapter = trained(hub_like, tmp_path / "run", prompt_template="Now: {text} Then") / "adapter"
    other = tmp_path / "other"
    shutil.copytree(adapter, other)
    PromptFormat("Otherwise: {text}").save(other)
    settings = {"model": str(hub_like), "limit": 4, "samples": 1, "device": "cpu"}
    both = [f"first={adapter}", f"second={other}"]
    alike = tmp_path / "alike"
    report = evaluate(EvaluateConfig(output=str(alike), adapter=both, **settings))
    assert texts(alike, "base") == texts(alike, "first") == texts(alike, "second")
    assert any("second was made for another prompt ('Otherwise: {text}')" in note for note in remarks(report))
    own = tmp_path / "own"
    report = evaluate(EvaluateConfig(output=str(own), adapter=both, own_settings=True, **settings))
    assert texts(own, "first") != texts(own, "second")
    assert any("its own prompt, length and generation settings" in note for note in remarks(report))


def test_the_users_prompt_is_everybodys(hub_like, tmp_path):
    adapter = trained(hub_like, tmp_path / "run", prompt_template="Now: {text} Then") / "adapter"
    report = evaluate(
        EvaluateConfig(
            output=str(tmp_path / "e"), model=str(hub_like), adapter=[str(adapter)], limit=4, samples=0, device="cpu",
            prompt_template="Say: {text}", max_prompt_tokens=50, truncation_side="left",
        )
    )  # fmt: skip
    assert texts(tmp_path / "e", "base") == texts(tmp_path / "e", "tuned")
    assert report.config["prompt_template"] == "Say: {text}"
    assert report.config["max_prompt_tokens"] == 50


def test_greedy_is_greedy_where_the_checkpoint_searches_with_beams(hub_like, tmp_path):
    alike = evaluate(EvaluateConfig(output=str(tmp_path / "a"), model=str(hub_like), limit=4, samples=0, device="cpu"))
    beams = "beam search (num_beams 3, no_repeat_ngram_size 2)"
    assert any(f"own generation config asks for {beams}, which was not used" in note for note in remarks(alike))
    own = evaluate(
        EvaluateConfig(
            output=str(tmp_path / "b"), model=str(hub_like), limit=4, samples=0, device="cpu", own_settings=True
        )
    )
    assert any(f"What is called greedy here is {beams} for base." in note for note in remarks(own))
    plain = tmp_path / "plain"
    shutil.copytree(hub_like, plain)
    generation = GenerationConfig.from_pretrained(plain)
    generation.num_beams, generation.no_repeat_ngram_size = 1, 0
    generation.save_pretrained(plain)
    greedy = evaluate(EvaluateConfig(output=str(tmp_path / "c"), model=str(plain), limit=4, samples=0, device="cpu"))
    assert not [note for note in remarks(greedy) if "generation config" in note]
    assert texts(tmp_path / "a", "base") == texts(tmp_path / "c", "base") != texts(tmp_path / "b", "base")
