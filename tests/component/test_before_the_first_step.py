"""What will be needed is opened and checked before anything is computed or written: room on the disk, weights, what measures."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file, save_file

from softspoken.cli import main as cli

TRAIN = (
    "train --model t5 --dataset rows.jsonl --output out --steps 1 --batch_size 2 --samples_per_prompt 2 --max_new_tokens 3 "
    "--min_response_chars 0 --reward length:1-5 --eval_share 0 --eval_dataset rows.jsonl --eval_split train --eval_limit 2 --device cpu"
)
EVALUATE = "evaluate --model t5 --dataset rows.jsonl --output out --limit 2 --max_new_tokens 3 --device cpu"


@pytest.fixture
def place(tiny_t5: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("t5").symlink_to(tiny_t5)
    rows = [{"id": str(n), "dialogue": f"Nora: {n}?", "summary": f"It is {n}."} for n in range(4)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs = [{"text": f"Nora: {n}?", "chosen": f"It is {n}.", "rejected": "No."} for n in range(4)]
    Path("pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    return tmp_path


def refused(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The sentence; nothing was written for it."""
    assert cli.main(command.split()) == 2
    assert not Path("out").exists()
    return capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("command", "what"),
    [
        (TRAIN, "its evaluation"),
        (f"{TRAIN} --eval_limit 0", "its checkpoints"),
        ("sft --model t5 --dataset rows.jsonl --output out", "its checkpoints"),
        ("dpo --model t5 --dataset pairs.jsonl --output out --batch_size 2 --device cpu", "its checkpoints"),
        (EVALUATE, "its rows"),
        ("export --model t5 --output out", "what is written"),
    ],
)
def test_a_disk_without_room(
    command: str, what: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    assert f"MB are free on its disk, and {what} will take" in refused(command, capsys)


@pytest.mark.parametrize(
    "command", [TRAIN, EVALUATE, "sft --model t5 --dataset rows.jsonl --output out", "generate rows.jsonl --model t5"]
)
def test_a_model_that_lacks_a_weight(
    command: str, place: Path, tiny_t5: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """transformers makes it up at random, and says so where nobody sees it."""
    shutil.copytree(tiny_t5, "lacking")
    weights = load_file("lacking/model.safetensors")
    name = next(name for name in weights if "decoder.block.1" in name)
    save_file(
        {other: weights[other] for other in weights if other != name}, "lacking/model.safetensors", {"format": "pt"}
    )
    if command == EVALUATE:  # as one of several
        said = refused(f"{EVALUATE} --system other=lacking", capsys)
    else:
        said = refused(command.replace("--model t5", "--model lacking"), capsys)
    assert f"lacking is not a complete model: its files lack the weights of {name} (1 such)" in said


def test_what_the_evaluation_after_a_training_measures(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measure = " --task detoxification --measure similarity=similarity:nowhere/at/all"
    assert "no folder at nowhere/at/all" in refused(TRAIN + measure, capsys)
    Path("one.jsonl").write_text('{"dialogue": "Nora: hi"}\n')
    no_references = TRAIN.replace("--eval_dataset rows.jsonl", "--eval_dataset one.jsonl") + " --task detoxification"
    assert "one.jsonl: 1 rows have no reference" in refused(f"{no_references} --text_column dialogue", capsys)
    assert "measure 'x=mini' cannot be used" in refused(f"{TRAIN} --measure x=mini", capsys)
