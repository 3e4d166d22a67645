"""Models of the real architectures, small enough to build in a second, with random weights from a fixed seed."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from transformers import AutoTokenizer, GenerationConfig, T5Config, T5ForConditionalGeneration

from softspoken import mini
from softspoken.data.prompts import PromptFormat
from softspoken.types import Example

# No bound on how long an example takes, which a loaded machine may not keep; and the same examples everywhere.
settings.register_profile("ours", deadline=None, derandomize=True)
settings.load_profile("ours")


def build_tiny_t5(folder: Path, *, tied: bool = True, vocab_size: int | None = None) -> Path:
    """A 2 + 2-layer, width-16 T5 with the embedded tokenizer; `vocab_size` above it leaves ids no token has, as T5 does."""
    tokenizer = AutoTokenizer.from_pretrained(mini.path)
    model = tiny_t5_model(vocab_size or len(tokenizer), tied=tied)
    model.generation_config.max_new_tokens = 12
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    PromptFormat(template="{dialogue}").save(folder)
    return folder


def tiny_t5_model(vocab_size: int, *, tied: bool) -> T5ForConditionalGeneration:
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=vocab_size,
        d_model=16,
        d_kv=8,
        d_ff=32,
        num_heads=2,
        num_layers=2,
        num_decoder_layers=2,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=tied,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=1,
    )
    model = T5ForConditionalGeneration(config)
    model.generation_config = GenerationConfig.from_model_config(config)
    return model


@pytest.fixture(scope="session")
def tiny_t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_t5(tmp_path_factory.mktemp("tiny-t5"))


@pytest.fixture(scope="session", params=["tied", "untied"])
def tiny_t5_each(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tied and untied vocabularies in turn; both with 40 logits that belong to no token."""
    folder = tmp_path_factory.mktemp(request.param)
    vocab_size = len(AutoTokenizer.from_pretrained(mini.path)) + 40
    return build_tiny_t5(folder, tied=request.param == "tied", vocab_size=vocab_size)


@pytest.fixture
def dialogues() -> list[Example]:
    return [
        Example("a", "Nora: Where are you?\nFelix: On the bus, ten minutes.", "Felix is on the bus.", group="bus"),
        Example(
            "b", "Ines: You forgot the milk again.\nOwen: Sorry, I will go now.", "Owen will get milk.", group="milk"
        ),
        Example("c", "Leon: hi", "Leon says hi.", group="hi"),
        Example(
            "d",
            "Mila: Can we move the meeting to Friday?\nAmir: Friday at 9 is fine. Bring the plans and a coffee, please.",
            "Mila and Amir meet on Friday.",
            group="meeting",
        ),
    ]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Ten dialogues in a file."""
    path = tmp_path / "dialogues.jsonl"
    rows = [
        {
            "id": str(n),
            "dialogue": f"Nora: number {n}?\nFelix: yes, {n} it is" + " indeed" * n,
            "summary": f"It is {n}.",
        }
        for n in range(10)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
