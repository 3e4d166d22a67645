"""From words to settings and exit statuses; no command runs here."""

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import softspoken
from softspoken import cli, flags
from softspoken.config import EvaluateConfig, ScoreConfig, SftConfig, SummarizeConfig, TrainConfig, presets
from softspoken.flags import parse
from softspoken.types import InputError, RunError


def fails(*argv: str) -> str:
    with pytest.raises(InputError) as caught:
        parse(argv)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


# --------------------------------------------------------------------------------------------------- what is read


def test_no_flags_are_the_defaults() -> None:
    assert parse(["train"]) == ("train", TrainConfig())
    assert parse(["sft", "--output", "o"]) == ("sft", SftConfig(output="o"))
    assert parse(["evaluate", "--output", "o"]) == ("evaluate", EvaluateConfig(output="o"))
    assert parse(["summarize"]) == ("summarize", SummarizeConfig())
    assert parse(["score"]) == ("score", ScoreConfig())
    assert parse(["report", "runs/x"]) == ("report", flags.ReportConfig("runs/x"))


@pytest.mark.parametrize(
    ("argv", "field", "value"),
    [
        (["--steps", "7"], "steps", 7),
        (["--steps=7"], "steps", 7),
        (["--batch-size", "7"], "batch_size", 7),
        (["--learning_rate", "1e-5"], "learning_rate", 1e-5),
        (["--target_kl", "null"], "target_kl", None),
        (["--seed", "-3"], "seed", -3),
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
    assert parse(["train", *argv])[1] == dataclasses.replace(TrainConfig(), **{field: value})


@pytest.mark.parametrize("command", ["summarize", "score"])
def test_file_may_stand_anywhere(command: str) -> None:
    assert parse([command, "x.txt", "--batch_size", "3"])[1].file == "x.txt"
    assert parse([command, "--batch_size", "3", "x.txt"])[1].file == "x.txt"
    assert parse([command, "-"])[1].file == "-"


def test_precedence_is_preset_then_file_then_flags_in_any_order(tmp_path: Path) -> None:
    preset = presets()["flan-t5-base"]
    assert parse(["train", "--preset", "flan-t5-base"])[1] == TrainConfig(**preset)
    file = tmp_path / "c.yaml"
    file.write_text("steps: 3\nbatch_size: 4\nlearning_rate: 1e-4\n")  # YAML reads 1e-4 as text
    for argv in (
        ["--preset", "flan-t5-base", "--config", str(file), "--batch_size", "5"],
        ["--batch_size", "5", "--config", str(file), "--preset", "flan-t5-base"],
    ):
        expected = TrainConfig(**{**preset, "steps": 3, "batch_size": 5, "learning_rate": 1e-4})
        assert parse(["train", *argv])[1] == expected
    assert expected.max_new_tokens == preset["max_new_tokens"] != TrainConfig().max_new_tokens


def test_a_runs_own_config_file(tmp_path: Path) -> None:
    config = TrainConfig(steps=3, judge=["mini"], reward={"mini": 1.0}, output="runs/x", lora_targets=["q", "v"])
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({"config": dataclasses.asdict(config), "versions": {"torch": "2"}, "command": "x"}))
    assert parse(["train", "--config", str(file)])[1] == config
    assert parse(["train", "--config", str(file), "--output", "y"])[1] == dataclasses.replace(config, output="y")


def test_a_required_field_may_come_from_the_file(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("output: o\nepochs: 2\n")
    assert parse(["sft", "--config", str(tmp_path / "c.yaml")])[1] == SftConfig(output="o", epochs=2)


def test_every_preset_holds_only_what_there_is() -> None:
    for name in presets():
        assert isinstance(parse(["train", "--preset", name])[1], TrainConfig)


# ------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ([], "no command given; there is train, sft, evaluate, summarize, score, report, compare (softspoken --help explains them)"),
        (["trian"], "there is no command 'trian' (did you mean 'train'?); there is train, sft, evaluate, summarize, score, report, compare (softspoken --help explains them)"),
        (["trian", "--help"], "there is no command 'trian' (did you mean 'train'?); there is train, sft, evaluate, summarize, score, report, compare (softspoken --help explains them)"),
        (["train", "--batch-sise", "3"], "train has no setting 'batch_sise' (did you mean 'batch_size'?); softspoken train --help lists them all"),
        (["train", "--step", "3"], "train has no setting 'step' (did you mean 'steps'?); softspoken train --help lists them all"),
        (["train", "--foo=3"], "train has no setting 'foo'; softspoken train --help lists them all"),
        (["train", "x"], "train does not take 'x'; softspoken train --help says what it takes"),
        (["train", "-x"], "train does not take '-x'; softspoken train --help says what it takes"),
        (["train", "--steps"], "--steps needs a value: give a whole number"),
        (["train", "--judge"], "--judge needs a value: give a list"),
        (["train", "--steps", "abc"], "steps 'abc' cannot be used: give a whole number"),
        (["train", "--steps", "1.5"], "steps '1.5' cannot be used: give a whole number"),
        (["train", "--max_dialogues", "ten"], "max_dialogues 'ten' cannot be used: give a whole number"),
        (["train", "--kl_coef", "low"], "kl_coef 'low' cannot be used: give a number"),
        (["train", "--overwrite", "maybe"], "overwrite 'maybe' cannot be used: give true or false"),
        (["train", "--dtype", "float16"], "dtype 'float16' cannot be used: give float32 or bfloat16"),
        (["train", "--truncation_side", "up"], "truncation_side 'up' cannot be used: give left or right"),
        (["train", "--steps", "0"], "steps 0 cannot be used: give a number above 0"),
        (["train", "--preset", "flan-t5-bace"], "there is no preset 'flan-t5-bace' (did you mean 'flan-t5-base'?); there is " + ", ".join(sorted(presets()))),
        (["sft"], "sft needs --output: folder to write the model to (or, with --lora true, the adapter)"),
        (["report"], "report needs DIR: folder of the run or the evaluation"),
        (["summarize", "a", "b"], "summarize does not take 'b'; softspoken summarize --help says what it takes"),
        (["score", "--preset", "x"], "score has no setting 'preset'; softspoken score --help lists them all"),
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


# --------------------------------------------------------------------------------------------------------- help


@pytest.mark.parametrize("command", flags.CONFIGS)
def test_help_teaches(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([command, "--help"])
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert flags.CONFIGS[command].__doc__ in text
    assert text.count(f"softspoken {command}") >= 3  # usage and two examples
    for name, doc in flags._field_docs(flags.CONFIGS[command]).items():
        assert doc, f"{name} has no help"
        assert doc in text
    if command == "train":
        assert "(default: 50)" in text


@pytest.mark.parametrize("command", flags.CONFIGS)
def test_examples_are_right(command: str) -> None:
    whole_lines = flags.EXAMPLES[command].replace(" \\\n     ", "")  # a backslash at a line's end carries it on
    for line in whole_lines.splitlines():
        words = line[line.index("softspoken") :].split("  ")[0].split(">")[0].split()
        if "--config" in words:  # names a file that is not here
            continue
        assert parse(words[1:])[0] == command


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"softspoken {softspoken.__version__}\n"


def test_help_and_usage_errors_load_nothing_heavy() -> None:
    code = """
import sys, time, softspoken
from softspoken.cli import main
for argv in (["--help"], ["train", "--help"], ["train", "--stepz", "1"], ["train", "--preset", "x"]):
    try:
        main(argv)
    except SystemExit:
        pass
heavy = {"torch", "transformers", "datasets", "numpy", "peft"} & {*sys.modules}
assert not heavy, heavy
assert time.process_time() < 2, time.process_time()  # of the processor, for all four; one takes 0.4 s on an idle machine
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


# ------------------------------------------------------------------------------------------------- exit statuses


def outcome(monkeypatch: pytest.MonkeyPatch, error: BaseException | None) -> int:
    def run(command: str, config: Any) -> None:
        if error:
            raise error

    monkeypatch.setattr(cli, "_run", run)
    monkeypatch.setattr(cli, "_quiet", lambda debug: None)
    return cli.main(["train"])


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (None, 0, ""),
        (InputError("no file at x; give one"), 2, "softspoken: error: no file at x; give one\n"),
        (RunError("step 3: loss is not finite"), 1, "softspoken: error: step 3: loss is not finite\n"),
        (KeyboardInterrupt(), 130, ""),
        (KeyError("x\ny"), 1, r"softspoken: error: KeyError: 'x\ny' (set SOFTSPOKEN_DEBUG=1 for the traceback)" + "\n"),
        (OSError("disk\nfull"), 1, "softspoken: error: OSError: disk (set SOFTSPOKEN_DEBUG=1 for the traceback)\n"),
    ],
)
def test_statuses(
    error: BaseException | None,
    status: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("SOFTSPOKEN_DEBUG", raising=False)
    assert outcome(monkeypatch, error) == status
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", said)


def test_debug_shows_the_traceback_of_a_bug_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOFTSPOKEN_DEBUG", "1")
    with pytest.raises(KeyError):
        outcome(monkeypatch, KeyError("x"))
    assert outcome(monkeypatch, InputError("x")) == 2


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_ctrl_c_is_quiet() -> None:
    """A command that waits for input, interrupted."""
    # A shell starts what it runs in the background with SIGINT ignored, and children inherit that.
    command = [sys.executable, "-c", "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); from softspoken import cli; cli._run = lambda *_: (print('on', flush=True), sys.stdin.read()); sys.exit(cli.main(['score']))"]  # fmt: skip
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline() == "on\n"
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == ""
        assert process.wait(timeout=30) == 130


def test_results_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli._show_result(tmp_path)  # a run without an evaluation
    assert capsys.readouterr().out == f"report: {tmp_path}/report.html\n"


# --------------------------------------------------------------------------------------------------- the package


def test_public_names() -> None:
    code = """
import softspoken, sys
assert "torch" not in sys.modules
assert set(softspoken.__all__) <= set(dir(softspoken))
from softspoken import *
import importlib
module = importlib.import_module("softspoken.sft")
assert softspoken.sft is module.sft and callable(softspoken.sft), softspoken.sft
from softspoken.sft import sft
assert softspoken.sft is sft
from softspoken import data  # rooms that are no public name are still reached
assert data.__name__ == "softspoken.data" and softspoken.mini.path.name == "summarizer"
try:
    softspoken.nonsense
except AttributeError as error:
    assert "no attribute 'nonsense'" in str(error)
else:
    raise AssertionError
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
