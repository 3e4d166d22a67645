"""ByT5: bytes for tokens, through training, what it saves, and a warm start."""

import json
from pathlib import Path

import pytest
import torch

from conftest import tiny_t5_model
from softspoken.config import SftConfig, TrainConfig
from softspoken.data.prompts import PromptFormat, encode_prompts
from softspoken.inference.generator import Generator
from softspoken.rl.loading import load_policy
from softspoken.rl.rollout import generate_rollout
from softspoken.sft import sft
from softspoken.train import train
from softspoken.types import Example
from tiny_tokenizers import build_tokenizer

ROWS = [("Grüß Gott, 猫", "猫"), ("a dog", "dog"), ("naïve café", "café"), ("x" * 300, "x")]
END, PAD = 1, 0


@pytest.fixture(scope="module")
def byt5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("byt5")
    tokenizer = build_tokenizer("ByT5", folder)
    model = tiny_t5_model(len(tokenizer), tied=False)
    model.generation_config.max_new_tokens = 12
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    PromptFormat(template="{text}", max_prompt_tokens=40).save(folder)
    return folder


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bytes") / "pairs.jsonl"
    path.write_text("".join(json.dumps({"text": a, "target": b}) + "\n" for a, b in ROWS), encoding="utf-8")
    return path


def test_bytes_are_trained_on_and_what_is_saved_answers(byt5: Path, pairs: Path, tmp_path: Path) -> None:
    config = TrainConfig(
        task="translation", model=str(byt5), dataset=str(pairs), output=str(tmp_path / "run"), steps=2, batch_size=2,
        samples_per_prompt=2, max_new_tokens=8, eval_samples=0, device="cpu", min_response_chars=0,
    )  # fmt: skip
    run = train(config)
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [step["ppo/optimizer_steps"] for step in steps] == [1, 1]
    assert steps[0]["objective/kl"] == pytest.approx(0, abs=1e-5)

    policy = load_policy(config, PromptFormat.load(byt5))
    prompts = encode_prompts([Example("1", "猫"), Example("2", "x" * 300)], policy.tokenizer, policy.prompt_format)
    assert prompts.input_ids[0, :5].tolist() == [
        0xE7 + 3,
        0x8C + 3,
        0xAB + 3,
        END,
        PAD,
    ]  # 猫 in UTF-8, three specials before
    assert prompts.input_ids.shape[1] == 40
    assert prompts.truncated == 1
    rollout = generate_rollout(policy, prompts, config, torch.Generator().manual_seed(0))
    first = rollout.response_ids[0][rollout.response_mask[0]].tolist()
    said = bytes(token - 3 for token in first if 3 <= token < 259).decode("utf-8", "ignore")
    assert rollout.responses[0] == said.strip()

    answered = Generator.from_pretrained(str(byt5), adapter=str(run / "adapter"), device="cpu")([ROWS[0][0]])
    rows = [json.loads(line) for line in (run / "eval_rows.jsonl").read_text(encoding="utf-8").splitlines()]
    (row,) = (one for one in rows if (one["system"], one["decoding"], one["id"]) == ("tuned", "greedy", "1"))
    assert row["translation"] == answered[0]


def test_a_warm_start_on_bytes_ends_its_labels_and_answers(byt5: Path, pairs: Path, tmp_path: Path) -> None:
    folder = sft(SftConfig(task="translation", model=str(byt5), dataset=str(pairs), output=str(tmp_path / "warm"),
                           batch_size=4, epochs=40, learning_rate=0.02, max_new_tokens=8))  # fmt: skip
    asked = [Example(str(number), text) for number, (text, _) in enumerate(ROWS)]
    answered = Generator.from_pretrained(str(folder), device="cpu").generate(asked)
    assert all(not one.cut for (one,) in answered)  # each has learned that an answer ends
