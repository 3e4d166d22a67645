"""From words to settings, and what is refused; no command runs here."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from softspoken.cli import commands
from softspoken.cli import main as cli
from softspoken.cli.flags import parse, presets
from softspoken.config import EvaluateConfig, GenerateConfig, ScoreConfig, SftConfig, TrainConfig
from softspoken.config.help import field_docs, purpose_of
from softspoken.types import InputError


def fails(*argv: str) -> str:
    with pytest.raises(InputError) as caught:
        parse(argv)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


# --------------------------------------------------------------------------------------------------------- what is read


def test_no_flags_are_the_defaults() -> None:
    assert parse(["train"]) == ("train", TrainConfig())
    assert parse(["sft", "--output", "o"]) == ("sft", SftConfig(output="o"))
    assert parse(["evaluate", "--output", "o"]) == ("evaluate", EvaluateConfig(output="o"))
    assert parse(["summarize"]) == ("summarize", GenerateConfig(task="summarization"))
    assert parse(["score"]) == ("score", ScoreConfig())
    assert parse(["report", "runs/x"]) == ("report", commands.ReportConfig("runs/x"))


@pytest.mark.parametrize(
    ("argv", "field", "value"),
    [
        (["--steps", "7"], "steps", 7),
        (["--steps=7"], "steps", 7),
        (["--batch-size", "7"], "batch_size", 7),
        (["--learning_rate", "1e-5"], "learning_rate", 1e-5),
        (["--target_kl", "null"], "target_kl", None),
        (["--seed", "4294967295"], "seed", 4294967295),
        (["--overwrite"], "overwrite", True),
        (["--whiten_advantages", "false"], "whiten_advantages", False),
        (["--schedule", "cosine"], "schedule", "cosine"),
        (["--judge", "mini", "detoxify:original"], "judge", ["mini", "detoxify:original"]),
        (["--judge", "mini", "--judge", "detoxify:original"], "judge", ["mini", "detoxify:original"]),
        (["--lora_targets", "q"], "lora_targets", ["q"]),
        (["--reward", "detoxify:original + 0.2*rouge:rougeL"], "reward", "detoxify:original + 0.2*rouge:rougeL"),
        (["--reward", '{"mini": 1, "length:5-30": 0.5}'], "reward", {"mini": 1.0, "length:5-30": 0.5}),
        (["--prompt_template", "Summarize: {dialogue}"], "prompt_template", "Summarize: {dialogue}"),
        (["--detoxify_sha256", "123456"], "detoxify_sha256", "123456"),
        (["--model", "1e5"], "model", "1e5"),
    ],
)
def test_flags(argv: list[str], field: str, value: Any) -> None:
    assert parse(["train", *argv])[1] == TrainConfig(**{field: value})


@pytest.mark.parametrize("command", ["summarize", "score"])
def test_file_may_stand_anywhere(command: str) -> None:
    assert parse([command, "x.txt", "--batch_size", "3"])[1].file == "x.txt"
    assert parse([command, "--batch_size", "3", "x.txt"])[1].file == "x.txt"
    assert parse([command, "-"])[1].file == "-"


def test_precedence_is_preset_then_file_then_flags_in_any_order(tmp_path: Path) -> None:
    preset = presets()["flan-t5-base-recipe"]
    assert parse(["train", "--preset", "flan-t5-base-recipe"])[1] == TrainConfig(**preset)
    file = tmp_path / "c.yaml"
    file.write_text("steps: 3\nbatch_size: 4\nlearning_rate: 1e-4\n")  # YAML reads 1e-4 as text
    for argv in (
        ["--preset", "flan-t5-base-recipe", "--config", str(file), "--batch_size", "5"],
        ["--batch_size", "5", "--config", str(file), "--preset", "flan-t5-base-recipe"],
    ):
        expected = TrainConfig(**{**preset, "steps": 3, "batch_size": 5, "learning_rate": 1e-4})
        assert parse(["train", *argv])[1] == expected
    assert expected.max_new_tokens == preset["max_new_tokens"] != TrainConfig().max_new_tokens


def test_a_runs_own_config_file(tmp_path: Path) -> None:
    config = TrainConfig(
        steps=3, judge=["mini"], reward={"mini": 1.0}, output="runs/x", overwrite=True, lora_targets=["q"]
    )
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({"config": dataclasses.asdict(config), "versions": {"torch": "2"}, "command": "x"}))
    own = dataclasses.replace(config, output=None, overwrite=False)
    assert parse(["train", "--config", str(file)])[1] == own, "another run's folder is not written again"
    assert parse(["train", "--config", str(file), "--output", "y"])[1] == dataclasses.replace(own, output="y")


def test_a_required_field_may_come_from_the_file(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("output: o\nepochs: 2\n")
    assert parse(["sft", "--config", str(tmp_path / "c.yaml")])[1] == SftConfig(output="o", epochs=2)


ALL = ", ".join(commands.CONFIGS)


def test_every_preset_holds_only_what_there_is() -> None:
    for name in presets():
        assert isinstance(parse(["train", "--preset", name])[1], TrainConfig)


# ------------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ([], f"no command given; there is {ALL} (softspoken --help explains them)"),
        (["trian"], f"there is no command 'trian' (did you mean 'train'?); there is {ALL} (softspoken --help explains them)"),
        (["trian", "--help"], f"there is no command 'trian' (did you mean 'train'?); there is {ALL} (softspoken --help explains them)"),
        (["train", "--batch-sise", "3"], "train has no setting 'batch_sise' (did you mean 'batch_size'?); softspoken train --help lists them all"),
        (["train", "--step", "3"], "train has no setting 'step' (did you mean 'steps'?); softspoken train --help lists them all"),
        (["train", "--foo=3"], "train has no setting 'foo'; softspoken train --help lists them all"),
        (["train", "x"], "train does not take 'x'; softspoken train --help says what it takes"),
        (["train", "-x"], "train does not take '-x'; softspoken train --help says what it takes"),
        (["train", "--steps"], "--steps needs a value: give a whole number"),
        (["train", "--judge"], "--judge needs a value: give a list"),
        (["train", "--steps", "abc"], "steps 'abc' cannot be used: give a whole number"),
        (["train", "--steps", "1.5"], "steps '1.5' cannot be used: give a whole number"),
        (["train", "--max_examples", "ten"], "max_examples 'ten' cannot be used: give a whole number"),
        (["train", "--kl_coef", "low"], "kl_coef 'low' cannot be used: give a number"),
        (["train", "--overwrite", "maybe"], "overwrite 'maybe' cannot be used: give true or false"),
        (["train", "--dtype", "float16"], "dtype 'float16' cannot be used: give auto or float32 or bfloat16"),
        (["train", "--truncation_side", "up"], "truncation_side 'up' cannot be used: give left or right"),
        (["train", "--steps", "0"], "steps 0 cannot be used: give a number above 0"),
        (["train", "--preset", "flan-t5-bace-recipe"], "there is no preset 'flan-t5-bace-recipe' (did you mean 'flan-t5-base-recipe'?); there is " + ", ".join(sorted(presets()))),
        (["sft"], "sft needs --output: folder to write the model to (or the adapter, where one is trained)"),
        (["sft", "--lora", "true"], "sft takes --trained lora in place of --lora, and the other kinds that train does"),
        (["serve", "--quantization", "int8"], "serve takes --compute_type, CTranslate2's own name for how it computes; quantization is the bits of a base that torch holds (train, sft, dpo, evaluate, generate)"),
        (["report"], "report needs DIR: folder of the run or the evaluation"),
        (["summarize", "a", "b"], "summarize does not take 'b'; softspoken summarize --help says what it takes"),
        (["score", "--kl_coef", "1"], "score has no setting 'kl_coef'; softspoken score --help lists them all"),
    ],
)  # fmt: skip
def test_wrong_usage_is_said_in_one_sentence(argv: list[str], sentence: str) -> None:
    assert fails(*argv) == sentence


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("stepz: 1", "train has no setting 'stepz' (did you mean 'steps'?); softspoken train --help lists them all"),
        (
            "config:\n  stepz: 1",
            "train has no setting 'stepz' (did you mean 'steps'?); softspoken train --help lists them all",
        ),
        ("steps: abc", "steps 'abc' cannot be used: give a whole number"),
        ("steps:", "steps has no value: give a whole number"),
        ("steps: true", "steps True cannot be used: give a whole number"),
        ("judge: mini", "judge 'mini' cannot be used: give a list"),
        ("judge: {a: 1, b: 2}", "judge {'a': 1, 'b': 2} cannot be used: give a list"),
        ("reward: 3", "reward 3 cannot be used: give text or a mapping"),
        ("schedule: up", "schedule 'up' cannot be used: give linear or cosine or constant"),
    ],
)
def test_wrong_settings_in_a_file(content: str, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(content)
    assert fails("train", "--config", str(file)) == f"config file {file}: {sentence}"


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "has no settings"), (b"- 1", "has no settings"), (b"a: [", "is not YAML"), (b"\xff", "is not YAML")],
)
def test_unreadable_config_files(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_bytes(content)
    assert words in fails("train", "--config", str(tmp_path / "c.yaml"))
    assert "cannot be read (No such file or directory)" in fails("train", "--config", str(tmp_path / "none.yaml"))
    assert "cannot be read (Is a directory)" in fails("train", "--config", str(tmp_path))


# ----------------------------------------------------------------------------------------------------------------- help


@pytest.mark.parametrize("command", commands.CONFIGS)
def test_help_teaches(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([command, "--help"])
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert purpose_of(commands.CONFIGS[command]) in text
    assert text.count(f"softspoken {command}") >= 3  # usage and two examples
    for name, doc in field_docs(commands.CONFIGS[command]).items():
        assert doc, f"{name} has no help"
        assert doc in text
    if command == "train":
        assert "(1 to 1,000,000,000; default: 50)" in text


@pytest.mark.parametrize("command", commands.CONFIGS)
def test_examples_are_right(command: str) -> None:
    whole_lines = commands.EXAMPLES[command].replace(" \\\n     ", "")  # a backslash at a line's end carries it on
    for line in whole_lines.splitlines():
        words = line[line.index("softspoken") :].split("  ")[0].split(">")[0].split()
        if "--config" in words:  # names a file that is not here
            continue
        assert parse(words[1:])[0] == command


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a: &a [1, 1]\nb: &b [*a, *a]\nreward: [*b, *b]\n", "has an alias (*name) in it"),
        ("steps: 1\n" + "# much\n" * 200_000, "has more than 1,000,000 bytes"),
        ("reward: " + "[" * 20_000 + "]" * 20_000 + "\n", "nested too deep"),
        ("reward: 2020-13-45\n", "has a value that cannot be read (month must be in 1..12)"),
        ("steps: " + "9" * 5000 + "\n", "has a value that cannot be read (Exceeds the limit (4300"),
        ("kl_coef: " + "9" * 400 + "\n", "is a number that is too long to be read"),
    ],
)
def test_a_config_file_is_bounded(content: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(content)
    assert words in fails("train", "--config", str(file))
