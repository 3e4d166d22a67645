"""Weights that are no finite numbers: named when they are loaded, at every door."""

import math
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, TaskType, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSeq2SeqLM

from softspoken.cli import main as cli
from softspoken.trl import AutoModelForSeq2SeqLMWithValueHead
from softspoken.types import InputError
from tiny_classifiers import build_classifier

DAMAGED = "decoder.block.1.layer.2.DenseReluDense.wo.weight"


def damage(file: Path, name: str, value: float) -> None:
    weights = load_file(file)
    weights[name] = weights[name].clone()
    weights[name].view(-1)[3] = value
    save_file(weights, file, metadata={"format": "pt"})


@pytest.fixture
def place(tmp_path: Path, tiny_t5: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(tiny_t5, tmp_path / "model")
    damage(tmp_path / "model" / "model.safetensors", DAMAGED, math.nan)
    lora = LoraConfig(task_type=TaskType.SEQ_2_SEQ_LM, target_modules=["q"])
    get_peft_model(AutoModelForSeq2SeqLM.from_pretrained(tiny_t5), lora).save_pretrained(tmp_path / "adapter")
    name = next(iter(load_file(tmp_path / "adapter" / "adapter_model.safetensors")))
    damage(tmp_path / "adapter" / "adapter_model.safetensors", name, math.inf)
    build_classifier(tmp_path / "judge", ["toxic", "calm"])
    damage(tmp_path / "judge" / "model.safetensors", "classifier.weight", -math.inf)
    (tmp_path / "rows.jsonl").write_text('{"id": "a", "dialogue": "hi", "summary": "hi"}\n' * 2)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("train --dataset rows.jsonl --eval_share 0 --batch_size 2 --output out --model model", f"model are damaged: {DAMAGED} has 1 of"),
        ("train --dataset rows.jsonl --eval_share 0 --batch_size 2 --output out --model TINY --adapter adapter", "adapter are damaged: "),
        ("sft --dataset rows.jsonl --output out --model model", f"model are damaged: {DAMAGED} has 1 of"),
        ("evaluate --dataset rows.jsonl --output out --model model", f"model are damaged: {DAMAGED} has 1 of"),
        ("generate rows.jsonl --model model", f"model are damaged: {DAMAGED} has 1 of"),
        ("generate rows.jsonl --model TINY --adapter adapter", "adapter are damaged: "),
        ("score rows.jsonl --reward hf:judge:toxic", "judge are damaged: classifier.weight has 1 of"),
    ],
)  # fmt: skip
def test_it_is_said_when_they_are_loaded(
    command: str, words: str, place: Path, tiny_t5: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(command.replace("TINY", str(tiny_t5)).split()) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert words in said
    assert said.endswith("values that are no finite numbers; fetch or train it again")


@pytest.mark.parametrize("source", ["model", "adapter"])
def test_the_legacy_door_says_it_too(source: str, place: Path, tiny_t5: Path) -> None:
    with pytest.raises(InputError, match="are damaged"):
        AutoModelForSeq2SeqLMWithValueHead.from_pretrained(source)


def test_nothing_is_said_of_whole_ones(tiny_t5: Path) -> None:
    assert torch.isfinite(AutoModelForSeq2SeqLMWithValueHead.from_pretrained(str(tiny_t5)).v_head.summary.weight).all()
