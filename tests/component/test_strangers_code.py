"""Folders that bring code with them, at every door something is loaded by: it does not run, though standard input says yes."""

import io
import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, TaskType, get_peft_model
from transformers import AutoModelForSeq2SeqLM

from softspoken.cli import main as cli
from softspoken.data import reading
from softspoken.trl import AutoModelForSeq2SeqLMWithValueHead
from softspoken.types import InputError

CODE = """
from pathlib import Path
Path({marker!r}).touch()
from transformers import *
class OwnConfig(T5Config):
    model_type = "of_its_own"
class Own(T5ForConditionalGeneration):
    config_class = OwnConfig
class OwnTokenizer(T5Tokenizer):
    pass
def generate(model, **options):
    return model.generate(**options)
"""
CLASSES = {"AutoConfig": "own.OwnConfig"} | {
    f"AutoModel{kind}": "own.Own" for kind in ("", "ForSeq2SeqLM", "ForSequenceClassification")
}
ROW = '{"id": "a", "dialogue": "y", "summary": "y", "worse": "n"}\n'


@pytest.fixture
def place(tmp_path: Path, tiny_t5: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders `model`, `tokenizer` and adapters on either; in each, code that leaves a file `ran`."""
    code = CODE.format(marker=str(tmp_path / "ran"))
    for name in ("model", "tokenizer"):
        folder = tmp_path / name
        shutil.copytree(tiny_t5, folder)
        (folder / "own.py").write_text(code)
        (folder / "custom_generate").mkdir()
        (folder / "custom_generate" / "generate.py").write_text(code)
    _edit(tmp_path / "model" / "config.json", model_type="of_its_own", architectures=["Own"], auto_map=CLASSES)
    own = {"AutoTokenizer": ["own.OwnTokenizer", "own.OwnTokenizer"]}
    _edit(tmp_path / "tokenizer" / "tokenizer_config.json", tokenizer_class="OwnTokenizer", auto_map=own)
    base = AutoModelForSeq2SeqLM.from_pretrained(tiny_t5)
    get_peft_model(base, LoraConfig(task_type=TaskType.SEQ_2_SEQ_LM, target_modules=["q"])).save_pretrained(
        tmp_path / "adapter"
    )
    for file in ("own.py", "tokenizer_config.json", "tokenizer.json"):
        shutil.copy(tmp_path / "tokenizer" / file, tmp_path / "adapter")
    _edit(tmp_path / "adapter" / "adapter_config.json", base_model_name_or_path=str(tmp_path / "model"))
    (tmp_path / "rows.jsonl").write_text(ROW * 4)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 50))
    monkeypatch.setattr("builtins.input", lambda prompt="": pytest.fail("asked on standard input"))
    return tmp_path


def _edit(file: Path, **settings: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


@pytest.mark.parametrize(
    "command",
    [
        "train --model model",
        "train --model TINY --eval_share 0 --adapter adapter",
        "train --model TINY --eval_share 0 --reward hf:model:x",
        "train --model TINY --eval_share 0 --reward similarity:model",
        "sft --model model --output out",
        "evaluate --model model --output out",
        "evaluate --model TINY --adapter adapter --output out",
        "evaluate --model TINY --system theirs=model --output out",
        "evaluate --model TINY --judge hf:model:x --output out",
        "evaluate --model TINY --similarity model --output out",
        "evaluate --model TINY --reward hf:model:x --baseline best_of_2 --samples 2 --output out",
        "summarize --model model",
        "summarize --model TINY --adapter adapter",
        "score --reward hf:model:x",
        "dpo --model model --chosen_column summary --rejected_column worse --batch_size 2 --output out",
        "dpo --model TINY --adapter adapter --chosen_column summary --rejected_column worse --batch_size 2 --output out",
        "export --model model --output out",
        "export --model TINY --adapter adapter --output out",
        "serve --model model --port 0 --guard false",
        "serve --model TINY --adapter adapter --port 0 --guard false",
        "serve --model TINY --judge hf:model:x --port 0",
        "score --serve 127.0.0.1:1 --reward hf:model:x",
    ],
)
def test_no_command_runs_it(
    command: str,
    place: Path,
    tiny_t5: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("softspoken.rewards.server.require_free", lambda host, port: None)
    rows = [] if command.startswith(("summarize", "score", "export", "serve")) else ["--dataset", "rows.jsonl"]
    if command.startswith("train"):
        rows += ["--batch_size", "2", "--output", "out"]

    assert cli.main([*command.replace("TINY", str(tiny_t5)).split(), *rows]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert "softspoken runs no such code" in said[-1]
    assert "softspoken: error: " in said[-1]
    assert not (place / "ran").exists()


@pytest.mark.parametrize("source", ["model", "tokenizer"])
def test_code_beside_what_transformers_has_a_class_for_is_left_alone_and_that_is_said(
    source: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if source == "model":
        _edit(place / "model" / "config.json", model_type="t5")
    assert cli.main(["summarize", "rows.jsonl", "--model", source]) == 0
    assert capsys.readouterr().err.count(f"{source} brings code of its own, which is not run") == 1
    assert not (place / "ran").exists()


def test_decoding_that_is_code_to_be_fetched_is_refused(
    place: Path, tiny_t5: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tiny_t5, place / "contrastive")
    _edit(place / "contrastive" / "generation_config.json", penalty_alpha=0.6, top_k=4)
    assert cli.main(["summarize", "rows.jsonl", "--model", "contrastive"]) == 2
    assert "asks for contrastive search, which transformers has as code to be fetched" in capsys.readouterr().err


@pytest.mark.parametrize("source", ["model", "adapter"])
def test_nor_does_the_legacy_door(place: Path, source: str) -> None:
    with pytest.raises(InputError, match="softspoken runs no such code"):
        AutoModelForSeq2SeqLMWithValueHead.from_pretrained(source)
    with pytest.raises(InputError, match="trust_remote_code is not taken"):
        AutoModelForSeq2SeqLMWithValueHead.from_pretrained(source, trust_remote_code=True)
    assert not (place / "ran").exists()


def test_a_prompt_adapter_names_a_tokenizer_that_is_not_loaded(place: Path, tiny_t5: Path) -> None:
    prompt = PromptTuningConfig(task_type=TaskType.SEQ_2_SEQ_LM, num_virtual_tokens=2)
    get_peft_model(AutoModelForSeq2SeqLM.from_pretrained(tiny_t5), prompt).save_pretrained(place / "prompt")
    _edit(
        place / "prompt" / "adapter_config.json",
        prompt_tuning_init="TEXT",
        prompt_tuning_init_text="y",
        tokenizer_name_or_path=str(place / "tokenizer"),
        base_model_name_or_path=str(tiny_t5),
    )
    with pytest.raises(InputError, match="learns a prompt or prefix"):
        AutoModelForSeq2SeqLMWithValueHead.from_pretrained("prompt", is_trainable=True)
    rows = ["--dataset", "rows.jsonl", "--batch_size", "2", "--output", "out"]
    assert cli.main(["train", "--model", str(tiny_t5), "--adapter", "prompt", *rows]) == 2
    assert not (place / "ran").exists()


def test_a_dataset_script_of_the_hub_does_not_run(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`datasets` refuses scripts by an exception of no kind of its own."""
    import datasets

    def load(name: str, *_: object, **__: object) -> None:
        raise RuntimeError("Dataset scripts are no longer supported, but found theirs.py\nmore")

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(reading, "require_on_hub", lambda *_: None)
    with pytest.raises(InputError, match="Dataset scripts are no longer supported"):
        reading.load_examples("owner/theirs", "train")


def test_a_classifier_checkpoint_may_name_such_a_model(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hub import build_detoxify
    from softspoken.rewards import judges

    path = build_detoxify(tmp_path / "torch")
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["config"]["arch"]["args"] |= {"model_type": str(place / "model"), "tokenizer_name": "AutoTokenizer"}
    torch.save(checkpoint, path)
    monkeypatch.setattr(judges, "_fetch_checkpoint", lambda *_: path)
    with pytest.raises(InputError, match="softspoken runs no such code"):
        judges.load_judge("detoxify:original")
    assert not (place / "ran").exists()
