"""Source and target language: the right tokens at every step, and kept in what train and sft save."""

import json
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    M2M100Config,
    M2M100ForConditionalGeneration,
    NllbTokenizer,
)

from softspoken.config import SftConfig, TrainConfig
from softspoken.data.prompts import PromptFormat, encode_prompts
from softspoken.inference.generator import Generator
from softspoken.models.languages import speak
from softspoken.rl.loading import load_policy
from softspoken.rl.rollout import generate_rollout
from softspoken.sft import sft
from softspoken.train import train
from softspoken.types import Example, InputError
from tiny_marian import SIZES, build_marian
from tiny_tokenizers import build_sentencepiece

ROWS = [
    ("hello world", "bonjour monde"),
    ("good day", "bon jour"),
    ("the cat", "le chat"),
    ("a dog runs", "un chien court"),
]


@pytest.fixture(scope="module")
def nllb(tmp_path_factory) -> Path:
    """A 1 + 1-layer model of NLLB's architecture, whose tokenizer knows letters, and English and French by their codes."""
    folder = tmp_path_factory.mktemp("nllb")
    letters = {
        token: place
        for place, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", "▁", *"abcdefghijklmnopqrstuvwxyz"])
    }
    tokenizer = NllbTokenizer(
        vocab=letters,
        merges=[],
        extra_special_tokens=["eng_Latn", "fra_Latn"],
        src_lang="eng_Latn",
        tgt_lang="eng_Latn",
    )
    torch.manual_seed(0)
    config = M2M100Config(
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.eos_token_id,
        **SIZES,
    )
    model = M2M100ForConditionalGeneration(config)
    model.generation_config.max_new_tokens = 8
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    path.write_text("".join(json.dumps({"translation": {"en": a, "fr": b}}) + "\n" for a, b in ROWS), encoding="utf-8")
    return path


LANGUAGES = {"source_language": "fra_Latn", "target_language": "eng_Latn"}
COLUMNS = {"text_column": "translation.fr", "reference_column": "translation.en"}


def ids(folder: Path) -> tuple[int, int]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return tokenizer.convert_tokens_to_ids("fra_Latn"), tokenizer.convert_tokens_to_ids("eng_Latn")


def test_training_reads_one_language_and_begins_in_the_other_and_what_it_saves_does(nllb, pairs, tmp_path):
    french, english = ids(nllb)
    config = TrainConfig(
        task="translation", model=str(nllb), dataset=str(pairs), output=str(tmp_path / "run"), steps=1, batch_size=2,
        samples_per_prompt=2, max_new_tokens=6, eval_samples=1, device="cpu", **LANGUAGES,
    )  # fmt: skip
    run = train(config)
    adapter = run / "adapter"
    assert GenerationConfig.from_pretrained(adapter).forced_bos_token_id == english
    saved = PromptFormat.load(adapter)
    assert (saved.source_language, saved.target_language) == ("fra_Latn", "eng_Latn")
    generator = Generator.from_pretrained(str(nllb), adapter=str(adapter), device="cpu")
    assert generator.tokenizer(["le chat"])["input_ids"][0][0] == french
    assert generator.generation_config.forced_bos_token_id == english
    policy = load_policy(TrainConfig(model=str(nllb), device="cpu"), saved)
    prompts = encode_prompts([Example("1", "le chat")], policy.tokenizer, policy.prompt_format)
    assert prompts.input_ids[0, 0] == french
    rollout = generate_rollout(policy, prompts, config, torch.Generator().manual_seed(0))
    assert rollout.response_ids[:, 0].tolist() == [english] * 2
    assert not rollout.response_mask[:, 0].any()  # forced, not sampled
    assert policy.forced_bos_id == english
    assert policy.tokenizer(["le chat"])["input_ids"][0][0] == french
    report = json.loads((run / "eval.json").read_text(encoding="utf-8"))
    assert report["judges"] == []
    assert report["task"]["objective"]["metric"] == "chrf"
    assert {"chrf", "bleu", "length_ratio"} <= set(report["systems"][1]["metrics"])
    assert report["config"]["target_language"] == "eng_Latn"
    assert "translations" in (run / "report.html").read_text(encoding="utf-8")


def test_a_warm_start_keeps_its_languages(nllb, pairs, tmp_path):
    french, english = ids(nllb)
    folder = sft(
        SftConfig(task="translation", model=str(nllb), dataset=str(pairs), output=str(tmp_path / "warm"), batch_size=2,
                  max_new_tokens=12, **LANGUAGES, **COLUMNS)
    )  # fmt: skip
    assert GenerationConfig.from_pretrained(folder).forced_bos_token_id == english
    generator = Generator.from_pretrained(str(folder), device="cpu")
    assert generator.tokenizer(["le chat"])["input_ids"][0][0] == french
    assert generator.tokenizer(text_target=["the cat"])["input_ids"][0][0] == english


def test_another_language_than_the_saved_one_can_be_asked_for(nllb):
    french, _ = ids(nllb)
    generator = Generator.from_pretrained(str(nllb), device="cpu", target_language="fra_Latn")
    assert generator.generation_config.forced_bos_token_id == french


def test_a_language_that_the_tokenizer_does_not_know_is_said(nllb, tiny_t5):
    tokenizer = AutoTokenizer.from_pretrained(nllb)
    with pytest.raises(InputError, match="target_language 'xxx' is not one of this tokenizer's languages"):
        speak(tokenizer, PromptFormat(target_language="xxx"), GenerationConfig())
    with pytest.raises(InputError, match="say it in --prompt_template"):
        speak(AutoTokenizer.from_pretrained(tiny_t5), PromptFormat(target_language="de"), GenerationConfig())
    with pytest.raises(InputError, match="knows no source languages"):
        speak(AutoTokenizer.from_pretrained(tiny_t5), PromptFormat(source_language="en"), GenerationConfig())


@pytest.fixture(scope="module")
def marian(tmp_path_factory) -> Path:
    """Of two target languages."""
    folder = tmp_path_factory.mktemp("marian")
    build_marian(folder / "model", build_sentencepiece(folder), (">>fra<<", ">>deu<<"))
    return folder / "model"


def test_a_marian_of_several_languages_reads_the_targets_token_at_every_step(marian, pairs, tmp_path):
    """First in what is read, one token, and there once: in training, in what training saves, and where a text is cut."""
    tokenizer = AutoTokenizer.from_pretrained(marian)
    french, german = tokenizer.convert_tokens_to_ids([">>fra<<", ">>deu<<"])
    assert (french, german) == (2, 3)
    config = TrainConfig(
        task="translation", model=str(marian), dataset=str(pairs), output=str(tmp_path / "run"), steps=1, batch_size=2,
        samples_per_prompt=2, max_new_tokens=6, eval_samples=1, device="cpu", target_language="fra",
    )  # fmt: skip
    adapter = train(config) / "adapter"
    saved = PromptFormat.load(adapter)
    assert (saved.template, saved.target_language) == (">>fra<< {text}", "fra")
    assert speak(tokenizer, saved, GenerationConfig()) == saved
    policy = load_policy(TrainConfig(model=str(marian), device="cpu"), saved)
    prompts = encode_prompts([Example("1", "hello world"), Example("2", "a " * 400)], policy.tokenizer, saved)
    assert (prompts.input_ids == french).sum(dim=1).tolist() == [1, 1]
    assert prompts.input_ids[:, 0].tolist() == [french, french]
    assert prompts.truncated == 1
    notes = json.loads((tmp_path / "run" / "eval.json").read_text())["notes"]
    assert not any("another prompt" in note for note in notes)  # all were asked alike, by the prefix
    rows = [json.loads(line) for line in (tmp_path / "run" / "eval_rows.jsonl").read_text().splitlines()]
    assert {(row["text"], row["reference"]) for row in rows} <= set(ROWS)  # told by the target alone
    generator = Generator.from_pretrained(str(marian), adapter=str(adapter), device="cpu")
    assert generator.prompt_format.template == ">>fra<< {text}"
    assert Generator.from_pretrained(
        str(marian), device="cpu", target_language="deu"
    ).prompt_format.template.startswith(">>deu<< ")
    with pytest.raises(InputError, match="target_language 'spa': this tokenizer has no token for it"):
        speak(tokenizer, PromptFormat("{text}", target_language="spa"), GenerationConfig())
