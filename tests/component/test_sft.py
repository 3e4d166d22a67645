"""The supervised warm start: what it keeps of the model, and what it says of its references."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from datasets import Dataset

from softspoken.config import SftConfig
from softspoken.models.adapters import adapter_folder
from softspoken.models.pretrained import load_generation_config
from softspoken.sft import sft
from softspoken.types import Example, InputError

ROWS = [{"article": f"number {n}", "highlights": f"It is {n}."} for n in range(4)]


@pytest.fixture
def model(tiny_t5: Path, tmp_path: Path) -> Path:
    """As models of the hub are: beams, a forced beginning, a temperature that transformers would not save."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_t5, folder)
    path = folder / "generation_config.json"
    settings = {
        "num_beams": 4,
        "no_repeat_ngram_size": 3,
        "forced_bos_token_id": 7,
        "temperature": 0.7,
        "max_length": 99,
    }
    path.write_text(json.dumps({**json.loads(path.read_text()), "max_new_tokens": None, **settings}))
    return folder


def config_for(model: Path, output: Path, **changes: object) -> SftConfig:
    settings = {"dataset": ROWS, "batch_size": 4, "max_new_tokens": 8, **changes}
    return SftConfig(output=str(output), model=str(model), **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("trained", ["full", "lora"])
def test_the_models_generation_config_is_kept(trained: str, model: Path, tmp_path: Path) -> None:
    sft(config_for(model, tmp_path / "out", trained=trained, dataset=Dataset.from_list(ROWS)))
    if trained == "lora":
        adapter_folder(str(tmp_path / "out"))
    kept = load_generation_config(str(tmp_path / "out"))
    assert (kept.num_beams, kept.no_repeat_ngram_size, kept.forced_bos_token_id) == (4, 3, 7)
    assert (kept.max_new_tokens, kept.max_length, kept.temperature) == (8, None, None)
    assert (kept.decoder_start_token_id, kept.eos_token_id, kept.pad_token_id) == (0, 1, 0)


def test_references_that_are_cut_or_empty_to_the_tokenizer_are_counted(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [*ROWS, {"article": "long", "highlights": "word " * 50}, {"article": "odd", "highlights": "\u0e01\u0e02"}]
    sft(config_for(model, tmp_path / "out", dataset=rows))
    assert "cut 1 of 6 references to 8 tokens (max_new_tokens)" in caplog.text
    assert "1 of 6 references hold nothing that the tokenizer knows" in caplog.text
    caplog.clear()
    sft(config_for(model, tmp_path / "same", dataset=[{**row, "highlights": "It is."} for row in ROWS]))
    assert "all 4 references are the same" in caplog.text


def test_rows_without_a_reference_stop_or_are_skipped_and_counted(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [*ROWS, {"article": "number 4", "highlights": []}, {"article": "number 5", "highlights": None}]
    with pytest.raises(InputError, match=r"2 rows have no reference \(the first is id 5\).* or pass --on_bad_row skip"):
        sft(config_for(model, tmp_path / "out", dataset=rows))
    seen = []
    monkeypatch.setattr(sys.modules["softspoken.sft"], "_examples", lambda found, *_: seen.extend(found) or sys.exit())
    with pytest.raises(SystemExit):
        sft(config_for(model, tmp_path / "out", dataset=rows, on_bad_row="skip"))
    assert [example.reference for example in seen] == [row["highlights"] for row in ROWS]
    said = [message for message in caplog.messages if "no reference" in message]
    assert said == ["skipped 2 of 6 rows of rows given in Python: they have no reference"]
    with pytest.raises(InputError, match="2 rows have no reference"):
        sft(config_for(model, tmp_path / "out", dataset=rows[4:], on_bad_row="skip"))


def test_each_reference_of_a_text_is_an_example_of_its_own(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    module = sys.modules["softspoken.sft"]
    real = module._examples  # type: ignore[attr-defined]

    def spy(examples: list[Example], *rest: object) -> object:
        seen.append([f"{example.text}: {example.reference}" for example in examples])
        return real(examples, *rest)

    monkeypatch.setattr(module, "_examples", spy)
    rows = [{"text": "a", "target": ["x", "y"]}, {"text": "b", "target": "z"}]
    with caplog.at_level("INFO", logger="softspoken"):
        sft(config_for(model, tmp_path / "out", dataset=rows))
    assert seen == [["a: x", "a: y", "b: z"]]
    assert "2 texts with 3 references: each pair is one example" in caplog.text
