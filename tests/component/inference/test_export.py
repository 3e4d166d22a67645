"""What is written for others: that they read it, and get what the model and its adapter say."""

from pathlib import Path
from typing import Any

import ctranslate2
import pytest
import torch
import yaml
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig

from softspoken.config import ExportConfig
from softspoken.data.prompts import PromptFormat
from softspoken.inference import export as module
from softspoken.inference.export import export
from softspoken.inference.generator import Summarizer
from softspoken.types import InputError, RunError

TEXTS = ["Nora: Where are you?\nFelix: On the bus.", "Leon: hi", "Ines: You forgot the milk again, you fool."]


@pytest.fixture(scope="module")
def adapter(tiny_t5: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that matters, with a prompt and a length of its own."""
    folder = tmp_path_factory.mktemp("run") / "adapter"
    torch.manual_seed(1)
    base = AutoModelForSeq2SeqLM.from_pretrained(tiny_t5)
    lora = LoraConfig(task_type="SEQ_2_SEQ_LM", r=4, lora_alpha=64, target_modules=["q", "v"], init_lora_weights=False)
    get_peft_model(base, lora).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_t5).save_pretrained(folder)
    PromptFormat(template="Summarize: {dialogue}").save(folder)
    GenerationConfig(max_new_tokens=7, decoder_start_token_id=0, eos_token_id=1, pad_token_id=0).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def written(tiny_t5: Path, adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = str(tmp_path_factory.mktemp("exports") / "out")
    return export(ExportConfig(output, model=str(tiny_t5), adapter=str(adapter)))


def ids_of(model: Any, tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """One at a time, as one would write it with transformers."""
    found = []
    for text in texts:
        inputs = tokenizer(f"Summarize: {text}", return_tensors="pt")
        found.append(model.generate(**inputs)[0].tolist())
    return found


def test_transformers_alone_generates_the_tokens_of_model_and_adapter(
    tiny_t5: Path, adapter: Path, written: Path
) -> None:
    tuned = PeftModel.from_pretrained(AutoModelForSeq2SeqLM.from_pretrained(tiny_t5), str(adapter)).eval()
    tuned.get_base_model().generation_config = GenerationConfig.from_pretrained(adapter)
    tokenizer = AutoTokenizer.from_pretrained(written)
    plain = AutoModelForSeq2SeqLM.from_pretrained(written).eval()
    expected = ids_of(tuned.get_base_model(), AutoTokenizer.from_pretrained(adapter), TEXTS)
    assert ids_of(plain, tokenizer, TEXTS) == expected
    assert len(expected[0]) == 8  # the start and the adapter's own 7, not the model's 12
    base = ids_of(AutoModelForSeq2SeqLM.from_pretrained(tiny_t5), tokenizer, TEXTS)
    assert [one[:8] for one in base] != expected  # or anything would do


def test_softspoken_reads_it_with_the_adapters_own_prompt(tiny_t5: Path, adapter: Path, written: Path) -> None:
    tuned = Summarizer.from_pretrained(str(tiny_t5), adapter=str(adapter), device="cpu")
    again = Summarizer.from_pretrained(str(written), device="cpu")
    assert again.prompt_format.template == "Summarize: {dialogue}"
    assert again(TEXTS) == tuned(TEXTS)


def test_the_models_own_save_pretrained_can_be_loaded_too(tiny_t5: Path, adapter: Path, tmp_path: Path) -> None:
    summarizer = Summarizer.from_pretrained(str(tiny_t5), adapter=str(adapter), device="cpu")
    summarizer.model.save_pretrained(tmp_path)
    plain = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    assert ids_of(plain, summarizer.tokenizer, TEXTS[:1])[0][0] == 0


def test_the_card_says_what_it_is_and_how_it_was_checked(written: Path) -> None:
    card = (written / "README.md").read_text(encoding="utf-8")
    head = yaml.safe_load(card.split("---")[1])
    assert head["library_name"] == "transformers"
    assert {"softspoken", "summarization"} <= {*head["tags"]}
    assert "on all of 32 embedded dialogues" in card


def test_a_folder_that_answers_otherwise_is_not_kept(
    tiny_t5: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "differing", lambda *given, **named: 3)
    with pytest.raises(RunError, match="other tokens than the model on 3 of 32 texts"):
        export(ExportConfig(str(tmp_path / "out"), model=str(tiny_t5)))
    assert [path.name for path in (tmp_path / "out").iterdir()] == []


def test_an_adapter_that_learns_a_prompt_cannot_be_merged(tiny_t5: Path, tmp_path: Path) -> None:
    base = AutoModelForSeq2SeqLM.from_pretrained(tiny_t5)
    prompt = PromptTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=2, tokenizer_name_or_path=str(tiny_t5))
    get_peft_model(base, prompt).save_pretrained(tmp_path / "prompt")
    with pytest.raises(InputError, match="learns a prompt, which cannot be merged"):
        export(ExportConfig(str(tmp_path / "out"), model=str(tiny_t5), adapter=str(tmp_path / "prompt")))


# ------------------------------------------------------------------------------------------------ other engines


def test_ctranslate2_reads_what_is_written_for_it(tiny_t5: Path, adapter: Path, tmp_path: Path) -> None:
    config = ExportConfig(
        str(tmp_path / "out"), model=str(tiny_t5), adapter=str(adapter), format="ctranslate2", check_limit=8
    )
    written = export(config)
    tokenizer = AutoTokenizer.from_pretrained(written)
    tokens = tokenizer.convert_ids_to_tokens(tokenizer(f"Summarize: {TEXTS[0]}")["input_ids"])
    found = ctranslate2.Translator(str(written)).translate_batch([tokens], beam_size=1, max_decoding_length=7)
    text = tokenizer.decode(tokenizer.convert_tokens_to_ids(found[0].hypotheses[0]), skip_special_tokens=True).strip()
    assert text == Summarizer.from_pretrained(str(tiny_t5), adapter=str(adapter), device="cpu")(TEXTS[:1])[0]
    assert "the tokens of the model and its adapter on all of 8 dialogues" in (written / "README.md").read_text("utf-8")


def test_what_rounding_costs_is_said(tiny_t5: Path, tmp_path: Path) -> None:
    config = ExportConfig(
        str(tmp_path / "out"), model=str(tiny_t5), format="ctranslate2", compute_type="int8", check_limit=16
    )
    card = (export(config) / "README.md").read_text(encoding="utf-8")
    assert "of 16 dialogues of the embedded test split" in card
    if "other tokens" in card:  # of a random model every near tie is turned
        assert "ROUGE-L" in card
        assert "toxicity by the embedded judge" in card


def test_onnx_is_refused_in_a_sentence(tiny_t5: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="optimum-onnx, whose last release"):
        export(ExportConfig(str(tmp_path / "out"), model=str(tiny_t5), format="onnx"))
    assert not (tmp_path / "out").exists()


def test_the_compute_type_is_ctranslate2s() -> None:
    with pytest.raises(InputError, match="compute_type 'int8' cannot be used"):
        ExportConfig("out", compute_type="int8")
