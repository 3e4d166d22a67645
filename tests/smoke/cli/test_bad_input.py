"""Bad input to real commands: exit status 2, one sentence on stderr, nothing on stdout, nothing half-written."""

import io
import json
from pathlib import Path

import pytest

from softspoken.cli import main as cli

GOOD = '{"id": "a", "dialogue": "Leon: hi", "summary": "Leon says hi."}\n'
FILES: dict[str, bytes] = {
    "good.jsonl": "".join(GOOD.replace("Leon", name) for name in ("Leon", "Nora", "Felix")).encode(),
    "empty.jsonl": b"",
    "latin.csv": b"id,dialogue,summary\na,sch\xf6n,x\n",
    "columns.csv": b"id,said,summary\na,Leon: hi,x\n",
    "blank.jsonl": GOOD.encode() + b'{"dialogue": "", "summary": "x"}\n',
    "number.jsonl": GOOD.encode() + b'{"dialogue": 5, "summary": "x"}\n',
    "broken.jsonl": b'{"dialogue"\n',
    "note.txt": b"\n\n",
    "latin.txt": b"Leon: sch\xf6n\n",
    "settings.yaml": b"stepz: 3\n",
}
INCOMPLETE = {
    "no_config": ["token*", "model*"],
    "no_weights": ["token*", "*config*"],
    "no_tokenizer": ["config*", "model*"],
}
"""Folders that lack a part of the tiny model, and what they have of it."""
TINY = "TINY"
"""Stands for the folder of a tiny model."""


@pytest.fixture
def folder(tmp_path: Path, tiny_t5: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "no_model").mkdir()
    for name, patterns in INCOMPLETE.items():
        (tmp_path / name).mkdir()
        for file in {file for pattern in patterns for file in tiny_t5.glob(pattern)}:
            (tmp_path / name / file.name).symlink_to(file)
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "adapter_config.json").write_text("{}")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("config: {}\nversions: {}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    return tmp_path


@pytest.mark.parametrize(
    ("command", "words"),
    [
        # usage
        ("score --reward hf:a?b:x", "'a?b' is neither a folder here nor a name that a hub could have"),
        ("train --dataset a?b", "'a?b' is neither a folder here nor a name that a hub could have"),
        ("generate good.jsonl --model a?b", "'a?b' is neither a folder here nor a name that a hub could have"),
        ("", "no command given"),
        ("trian", "did you mean 'train'?"),
        ("train --preset flan", "no preset 'flan'; there is"),
        ("train --stepz 3", "no setting 'stepz' (did you mean 'steps'?)"),
        ("train --config settings.yaml", "settings.yaml: train has no setting 'stepz'"),
        ("train --config nothing.yaml", "nothing.yaml cannot be read"),
        ("train --steps 0", "steps 0 cannot be used"),
        # files
        ("summarize nothing.txt", "no file at nothing.txt"),
        ("summarize nothing.jsonl", "no file at nothing.jsonl"),
        ("summarize .", "no file at ."),
        ("summarize", "standard input has no text in it"),
        ("summarize note.txt", "note.txt has no text in it"),
        ("summarize empty.jsonl", "empty.jsonl is empty"),
        ("summarize latin.csv", "latin.csv is not UTF-8"),
        ("summarize latin.txt", "latin.txt is not UTF-8"),
        ("summarize columns.csv", "none of its columns is known to be the text"),
        ("summarize blank.jsonl", "row 2 has an empty 'dialogue'"),
        ("summarize number.jsonl", "row 2 has int 5 where text should be"),
        ("summarize broken.jsonl", "line 1 is not JSON"),
        ("score nothing.txt", "no file at nothing.txt"),
        ("sft --output out --model TINY --dataset nothing.csv", "no file at nothing.csv"),
        ("sft --output out --model TINY --dataset columns.csv", "none of its columns is known to be the text"),
        ("evaluate --output out --model TINY --dataset blank.jsonl", "row 2 has an empty 'dialogue'"),
        # folders
        ("summarize good.jsonl --model ./nothing", "no folder at ./nothing"),
        ("summarize good.jsonl --model ./no_model", "./no_model is not a complete model folder: it has no config.json; give a folder"),
        ("summarize good.jsonl --model no_config", "no_config is not a complete model folder: it has no config.json; give a folder"),
        ("summarize good.jsonl --model no_weights", "no_weights is not a complete model folder: it has no weights; put its model.safetensors there"),
        ("summarize good.jsonl --model no_tokenizer", "no_tokenizer is not a complete model folder: it has no tokenizer; save the model's tokenizer there"),
        ("sft --output out --model no_model --dataset good.jsonl", "it has no config.json"),
        ("evaluate --output out --model no_weights --dataset good.jsonl", "it has no weights"),
        ("evaluate --output out --model no_tokenizer --dataset good.jsonl", "it has no tokenizer"),
        ("train --output out --model no_tokenizer --batch_size 1 --dataset good.jsonl", "it has no tokenizer"),
        ("summarize good.jsonl --model lora", "pass --adapter lora, and as --model the model that it was made for"),
        ("train --output out --model TINY --adapter run --batch_size 1 --dataset good.jsonl", "adapter run has no adapter_config.json"),
        ("train --output out --model TINY --batch_size 1 --dataset good.jsonl --reward 1e*length:1-9", "reward 'length:1-9' has the weight '1e'; give a finite number"),
        ("summarize good.jsonl --model TINY --adapter ./nothing", "no adapter folder at ./nothing"),
        ("summarize good.jsonl --model TINY --adapter TINY", "has no adapter_config.json"),
        ("sft --output run --model TINY --dataset good.jsonl", "run is not empty"),
        ("train --output run --model TINY --dataset good.jsonl", "--overwrite"),
        ("train --resume out", "no run at out"),
        # places
        ("train --output .", "output '.' is the working folder"),
        ("train --output= --overwrite", "output is empty"),
        ("train --resume=", "resume is empty"),
        ("train --adapter=", "adapter is empty"),
        ("train --config=", "config is empty"),
        ("report ..", "neither metrics.jsonl nor eval.json"),
        ("train --output TINY --model TINY --overwrite", "which is read; give another folder"),
        ("sft --output .. --overwrite", "output '..' is the working folder or a folder above it"),
        ("sft --output no_config --overwrite --model TINY --dataset good.jsonl", "no record"),
        ("train --output lora --overwrite --model TINY --dataset good.jsonl", "no record of writing (such as 'adapter_config.json')"),
        ("evaluate --output lora --overwrite --model TINY --dataset good.jsonl", "no record of writing (such as 'adapter_config.json')"),
        ("evaluate --output . --overwrite --model TINY --dataset good.jsonl", "output '.' is the working folder"),
        ("train --output good.jsonl --model TINY --dataset mini", "good.jsonl is not a folder"),
        ("train --output good.jsonl/run --model TINY --dataset mini", "cannot be written"),
        ("train --output out --model TINY --dataset good.jsonl --reward rouge:rougeL --batch_size 4", "larger than the dataset ("),
        ("train --output out --model TINY --batch_size 1 --dataset good.jsonl --reward nonsense", "nonsense"),
        ("train --output out --model TINY --batch_size 1 --dataset good.jsonl --lora_targets nonsense", "lora_targets"),
    ],
)  # fmt: skip
def test_one_sentence_and_status_2(
    command: str, words: str, folder: Path, tiny_t5: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(folder.rglob("*"))
    argv = command.replace(TINY, str(tiny_t5)).split()
    assert cli.main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    *before_it, sentence = captured.err.splitlines()
    assert sentence.startswith("softspoken: error: ")
    assert [line for line in before_it if line != "softspoken: good.jsonl: text from 'dialogue'"] == []
    assert words in sentence
    assert sorted(folder.rglob("*")) == before


LOUD = "\x1b[2J\x1b]0;owned\x07\nsoftspoken: all is well\r" * 100_000
"""4.3 MB that clear a terminal, rename it and speak in our name."""


@pytest.mark.parametrize(
    "command",
    [
        ["train", "--reward", LOUD],
        ["train", "--steps", LOUD],
        ["train", "--model", LOUD],
        ["train", "--dataset", LOUD],
        ["train", "--preset", LOUD],
        ["train", "--config", LOUD],
        ["train", "--" + LOUD, "1"],
        ["train", LOUD],
        [LOUD],
        ["sft", "--output", "out", "--model", LOUD],
        ["evaluate", "--output", "out", "--judge", LOUD],
        ["evaluate", "--output", "out", "--adapter", LOUD],
        ["evaluate", "--output", "out", "--system", LOUD],
        ["evaluate", "--output", "out", "--system", f"{LOUD[:40]}=good.jsonl"],
        ["summarize", LOUD],
        ["score", LOUD],
        ["score", "--reward", LOUD],
        ["report", LOUD],
        ["compare", LOUD, "run"],
        ["train", "--dataset", "loud.jsonl"],
    ],
)
def test_what_the_user_gave_is_shown_short_and_escaped(
    command: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "loud.jsonl").write_text(json.dumps({"dialogue": "hi", "summary": [LOUD], LOUD: LOUD}))
    assert cli.main(command) == 2
    said = capsys.readouterr().err
    assert said.startswith("softspoken: error: ")
    assert said.count("\n") == 1
    assert len(said) < 5000
    assert said[:-1].isprintable()
