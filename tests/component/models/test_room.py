"""Models with fewer positions or embeddings than is asked of them."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BartConfig,
    BlenderbotConfig,
    BlenderbotForConditionalGeneration,
    LEDConfig,
    T5Config,
)

from softspoken import mini
from softspoken.cli import main as cli
from softspoken.config import EvaluateConfig, SftConfig, TrainConfig
from softspoken.data.prompts import PromptFormat
from softspoken.evaluation.evaluate import evaluate
from softspoken.inference.generator import Summarizer
from softspoken.models.room import fitting, require_embeddings, require_room_to_answer
from softspoken.rl.loading import load_policy
from softspoken.sft import sft
from softspoken.types import InputError

LONG = "Nora: hello there\n" * 40


@pytest.fixture(scope="module")
def blenderbot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With 24 positions on either side, where the real one has 128."""
    folder = tmp_path_factory.mktemp("blenderbot")
    tokenizer = AutoTokenizer.from_pretrained(mini.path)
    torch.manual_seed(0)
    config = BlenderbotConfig(
        vocab_size=len(tokenizer), max_position_embeddings=24, d_model=16, encoder_layers=1, decoder_layers=1,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16,
        pad_token_id=0, eos_token_id=1, bos_token_id=2, decoder_start_token_id=0, forced_eos_token_id=None,
    )  # fmt: skip
    model = BlenderbotForConditionalGeneration(config)
    model.generation_config.max_length = 20
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def with_tokens(folder: Path, source: Path) -> Path:
    """The model with a tokenizer of three tokens more than it has embeddings."""
    shutil.copytree(source, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<a>", "<b>", "<c>"])
    tokenizer.save_pretrained(folder)
    return folder


def test_prompts_are_no_longer_than_the_position_table_and_that_is_said(
    blenderbot: Path, caplog: pytest.LogCaptureFixture
) -> None:
    summarizer = Summarizer.from_pretrained(str(blenderbot), device="cpu", max_new_tokens=4)
    assert len(summarizer([LONG, "Leon: hi"])) == 2
    assert (summarizer.prompt_format.max_prompt_tokens, summarizer.truncated) == (24, 1)
    assert "prompts are cut to 24 tokens, not 512: the model reads no more" in caplog.text
    policy = load_policy(TrainConfig(model=str(blenderbot), device="cpu", max_new_tokens=24))
    assert policy.prompt_format.max_prompt_tokens == 24


def test_a_response_longer_than_the_decoder_takes_is_refused_before_anything_runs(
    blenderbot: Path, tmp_path: Path
) -> None:
    match = r"max_new_tokens 25 is more than the 24 positions of the model's decoder; give at most 24"
    with pytest.raises(InputError, match=match):
        Summarizer.from_pretrained(str(blenderbot), device="cpu", max_new_tokens=25)
    with pytest.raises(InputError, match=match):
        load_policy(TrainConfig(model=str(blenderbot), device="cpu", max_new_tokens=25))
    with pytest.raises(InputError, match=match):
        evaluate(EvaluateConfig(output=str(tmp_path / "out"), model=str(blenderbot), max_new_tokens=25))
    with pytest.raises(InputError, match=match):
        sft(SftConfig(output=str(tmp_path / "out"), model=str(blenderbot), max_new_tokens=25, max_examples=1))
    assert not (tmp_path / "out").exists()


def test_the_limit_is_the_least_of_format_tokenizer_and_table() -> None:
    def limit(config: object, asked: int, tokenizers: int = 10**30) -> int:
        return fitting(
            PromptFormat(max_prompt_tokens=asked), config, SimpleNamespace(model_max_length=tokenizers)
        ).max_prompt_tokens

    assert limit(BartConfig(max_position_embeddings=128), 512) == 128
    assert limit(BartConfig(max_position_embeddings=128), 64) == 64
    assert limit(BartConfig(max_position_embeddings=1024), 900, 512) == 512
    assert limit(LEDConfig(max_encoder_position_embeddings=4096), 8000) == 4096
    assert limit(T5Config(), 2000, 512) == 2000  # relative positions know no limit
    require_room_to_answer(LEDConfig(max_decoder_position_embeddings=99), 99)
    with pytest.raises(InputError, match="the 99 positions"):
        require_room_to_answer(LEDConfig(max_decoder_position_embeddings=99), 100)
    require_room_to_answer(T5Config(), 10_000)


@pytest.mark.parametrize(
    "command",
    [
        "summarize good.jsonl --model MODEL",
        "train --model MODEL --dataset good.jsonl --eval_share 0 --batch_size 1 --output out",
        "sft --model MODEL --dataset good.jsonl --output out",
        "evaluate --model MODEL --dataset good.jsonl --output out",
        "evaluate --model TINY --system theirs=MODEL --dataset good.jsonl --output out",
    ],
)
def test_more_tokens_than_embeddings_is_one_sentence_from_every_command(
    command: str, tiny_t5: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = with_tokens(tmp_path / "model", tiny_t5)
    monkeypatch.chdir(tmp_path)
    Path("good.jsonl").write_text('{"dialogue": "<c> Leon: hi", "summary": "Leon says hi."}\n')
    rows = len(AutoTokenizer.from_pretrained(mini.path))
    assert cli.main(command.replace("MODEL", str(model)).replace("TINY", str(tiny_t5)).split()) == 2
    said = capsys.readouterr().err
    assert f"has {rows + 3} tokens and the model {rows} embeddings ('<a>' is the first without one)" in said
    assert said.count("\n") == 1
    assert not Path("out").exists()


def test_a_mask_token_beyond_the_embeddings_does_no_harm() -> None:
    tokenizer = AutoTokenizer.from_pretrained(mini.path)
    rows = len(tokenizer)
    tokenizer.add_special_tokens({"mask_token": "<mask>"})  # as facebook/bart-large-cnn has it
    require_embeddings(rows, tokenizer, "model")
    tokenizer.add_tokens(["<a>"])
    with pytest.raises(InputError, match="'<a>' is the first without one"):
        require_embeddings(rows, tokenizer, "model")


@pytest.mark.parametrize("tied", [True, False])
def test_an_adapter_made_on_a_resized_base_loads_again(tied: bool, tmp_path: Path) -> None:
    from conftest import build_tiny_t5

    base, folder = build_tiny_t5(tmp_path / "base", tied=tied), tmp_path / "adapter"
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(["<a>", "<b>"])
    model = AutoModelForSeq2SeqLM.from_pretrained(base)
    model.resize_token_embeddings(len(tokenizer))
    lora = LoraConfig(task_type="SEQ_2_SEQ_LM", r=2, target_modules=["q", "v"], init_lora_weights=False)
    adapted = get_peft_model(model, lora).eval()
    adapted.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    ids = tokenizer("<b> Leon: hi", return_tensors="pt").input_ids
    expected = adapted.generate(input_ids=ids, max_new_tokens=6, do_sample=False)
    summarizer = Summarizer.from_pretrained(str(base), adapter=str(folder), device="cpu", max_new_tokens=6)
    assert summarizer(["<b> Leon: hi"]) == [tokenizer.decode(expected[0], skip_special_tokens=True).strip()]
    policy = load_policy(TrainConfig(model=str(base), adapter=str(folder), device="cpu"))
    assert torch.equal(policy.seq2seq.get_input_embeddings().weight, model.shared.weight)


def test_a_tokenizer_of_an_adapter_with_more_tokens_than_its_base(tiny_t5: Path, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    lora = LoraConfig(task_type="SEQ_2_SEQ_LM", r=2, target_modules=["q", "v"])
    get_peft_model(AutoModelForSeq2SeqLM.from_pretrained(tiny_t5), lora).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(tiny_t5)
    tokenizer.add_tokens(["<a>"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(InputError, match="resize_token_embeddings"):
        Summarizer.from_pretrained(str(tiny_t5), adapter=str(folder), device="cpu")
