"""The real recipe's path, from a hub on loopback: real names, real formats, tiny random weights; and a hub that is not there."""

import hashlib
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSeq2SeqLM

from commands import Commands, Done
from conftest import build_tiny_t5
from hub import build_bert, build_detoxify, build_flan_t5, build_samsum, serve
from softspoken.cli.flags import presets
from softspoken.data.prompts import PromptFormat
from softspoken.hub import hub_file
from softspoken.models.pretrained import prompt_format_for
from softspoken.types import InputError

SMALLER = {"steps": 1, "eval_limit": 4, "eval_samples": 1, "max_new_tokens": 8, "max_examples": 12}
PRESET = [
    "train",
    "--preset",
    "flan-t5-base-recipe",
    *(word for name, value in SMALLER.items() for word in (f"--{name}", str(value))),
]
DIALOGUE = (
    json.dumps({"id": "1", "dialogue": "Nora: Tea at four?\nFelix: Make it five.", "summary": "Tea is at five."}) + "\n"
)


@dataclass(frozen=True)
class World:
    softspoken: Commands
    repositories: Path
    checkpoint: Path
    port: int
    """Where commands look for the hub; there is one only inside `with serve(world.repositories, world.port)`."""

    @property
    def checkpoint_sha256(self) -> str:
        return hashlib.sha256(self.checkpoint.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("hub")
    build_flan_t5(root / "models" / "google" / "flan-t5-base")
    build_samsum(root / "datasets" / "knkarthick" / "samsum")
    build_bert(root / "models" / "google-bert" / "bert-base-uncased")
    home = tmp_path_factory.mktemp("home")
    checkpoint = build_detoxify(home / "torch")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        "HF_ENDPOINT": f"http://127.0.0.1:{port}",
        "HF_HOME": str(home / "huggingface"),
        "TORCH_HOME": str(home / "torch"),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_VERBOSITY": "warning",  # says when a request is tried again
    }
    with Commands(environment) as softspoken:
        yield World(softspoken, root, checkpoint, port)


def test_the_preset_runs_a_step_on_what_the_hub_serves_and_is_uploaded(world: World, tmp_path: Path) -> None:
    checked, pushed = ("--detoxify_sha256", world.checkpoint_sha256), ("--push_to_hub", "me/calm")
    with serve(world.repositories, world.port) as hub:
        done = world.softspoken(tmp_path, *PRESET, *checked, "--output", "run", *pushed, HF_TOKEN="hf_of_a_test")
        assert done.status == 0, done.stderr
        assert f"uploaded to {hub.url}/me/calm" in done.stderr
        _is_uploaded(world, tmp_path / "run" / "adapter")
        _is_exported(world, tmp_path)

    run = tmp_path / "run"
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))["config"]
    recipe = {**presets()["flan-t5-base-recipe"], **SMALLER}
    assert {name: config[name] for name in recipe} == recipe
    assert (config["model"], config["dataset"], config["reward"]) == (
        "google/flan-t5-base",
        "knkarthick/samsum",
        "detoxify:original",
    )
    assert (config["learning_rate"], config["lora_r"], config["lora_alpha"], config["lora_targets"]) == (
        1.41e-5,
        8,
        16,
        ["q", "v"],
    )

    (metrics,) = map(json.loads, (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    assert metrics["step"] == 1
    assert 0 < metrics["objective/score/detoxify:original"] < 1
    # What is too short to be judged scores below the rest.
    assert metrics["objective/score"] <= metrics["objective/score/detoxify:original"]
    assert (metrics["tokens/short"] == 0) == (
        metrics["objective/score"] == metrics["objective/score/detoxify:original"]
    )
    assert metrics["objective/kl"] == pytest.approx(0, abs=1e-5)

    adapter = json.loads((run / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    assert adapter["base_model_name_or_path"] == "google/flan-t5-base"
    assert (adapter["r"], adapter["lora_alpha"], set(adapter["target_modules"])) == (8, 16, {"q", "v"})
    for name in (
        "adapter_model.safetensors",
        "tokenizer.json",
        "generation_config.json",
        "value_head.safetensors",
        "README.md",
    ):
        assert (run / "adapter" / name).is_file()

    evaluation = json.loads((run / "eval.json").read_text(encoding="utf-8"))
    assert (evaluation["dataset"]["id"], evaluation["dataset"]["split"], evaluation["dataset"]["n"]) == (
        "knkarthick/samsum",
        "test",
        4,
    )
    assert evaluation["judges"] == ["detoxify:original"]
    assert evaluation["config"]["max_new_tokens"] == 8  # base and tuned alike, though the base's own limit is another
    assert {system["name"] for system in evaluation["systems"]} == {"human", "base", "tuned"}
    rows = [json.loads(line) for line in (run / "eval_rows.jsonl").read_text(encoding="utf-8").splitlines()]
    assert rows[0]["dialogue"].count("\n") == 2  # CRLF inside a quoted field of the CSV
    assert "<!doctype html>" in (run / "report.html").read_text(encoding="utf-8")[:200].lower()

    served = {
        line.split()[1].rpartition("/")[2] for line in hub.asked if line.startswith("GET") and line.endswith("200")
    }
    assert {"model.safetensors", "train.csv", "test.csv"} <= served

    # What is cached can be used without the hub.
    (tmp_path / "dialogues.jsonl").write_text(DIALOGUE, encoding="utf-8")
    summarize = ["summarize", "dialogues.jsonl", "--model", "google/flan-t5-base", "--adapter", "run/adapter"]
    offline = world.softspoken(tmp_path, *summarize)
    assert offline.status == 0, offline.stderr
    assert list(json.loads(offline.stdout)) == ["id", "summary"]


def _is_uploaded(world: World, adapter: Path) -> None:
    there = world.repositories / "models" / "me" / "calm"
    assert {path.name for path in there.iterdir()} == {path.name for path in adapter.iterdir()}
    weights = "adapter_model.safetensors"
    assert (there / weights).read_bytes() == (adapter / weights).read_bytes()
    card = (there / "README.md").read_text(encoding="utf-8")
    head = yaml.safe_load(card.split("---")[1])
    assert head["base_model"] == "google/flan-t5-base"
    assert {"softspoken", "lora", "reinforcement-learning"} <= {*head["tags"]}
    assert {one["type"] for one in head["model-index"][0]["results"][0]["metrics"]} == {"toxicity", "rougeL"}
    assert 'adapter="me/calm"' in card


def _is_exported(world: World, folder: Path) -> None:
    words = ["export", "--model", "google/flan-t5-base", "--adapter", "me/calm", "--output", "whole"]
    done = world.softspoken(folder, *words, "--push_to_hub", "me/whole", HF_TOKEN="hf_of_a_test")
    assert done.status == 0, done.stderr
    whole = world.repositories / "models" / "me" / "whole"
    assert (whole / "model.safetensors").read_bytes() == (folder / "whole" / "model.safetensors").read_bytes()
    assert (
        yaml.safe_load((whole / "README.md").read_text("utf-8").split("---")[1])["base_model"] == "google/flan-t5-base"
    )


def test_a_models_own_prompt_and_an_adapter_come_from_the_hub(world: World, tmp_path: Path) -> None:
    own = build_tiny_t5(world.repositories / "models" / "someone" / "own")
    PromptFormat(template="Own: {dialogue}", max_prompt_tokens=99).save(own)
    lora = LoraConfig(task_type="SEQ_2_SEQ_LM", r=3, target_modules=["q", "v"])
    start = world.repositories / "models" / "someone" / "start"
    get_peft_model(AutoModelForSeq2SeqLM.from_pretrained(own), lora).save_pretrained(start)
    (tmp_path / "dialogues.jsonl").write_text(DIALOGUE, encoding="utf-8")
    argv = ["train", "--model", "someone/own", "--adapter", "someone/start", "--dataset", "dialogues.jsonl"]
    argv += ["--reward", "length:1-5", "--batch_size", "1", "--steps", "1", "--eval_limit", "0", "--output", "run"]
    with serve(world.repositories, world.port):
        done = world.softspoken(tmp_path, *argv)
    assert done.status == 0, done.stderr
    saved = PromptFormat.load(tmp_path / "run" / "adapter")
    assert saved == PromptFormat(template="Own: {dialogue}", max_prompt_tokens=99)
    assert json.loads((tmp_path / "run" / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))["r"] == 3


def test_an_upload_that_cannot_be_is_said_before_the_training(world: World, tmp_path: Path) -> None:
    with serve(world.repositories, world.port):
        done = world.softspoken(tmp_path, *PRESET, "--output", "run", "--push_to_hub", "me/calm", HF_TOKEN="")
    assert done.status == 2
    assert "there is no token of the hub; log in with hf auth login" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_configuration_of_a_hub_set(world: World, tmp_path: Path) -> None:
    folder = world.repositories / "datasets" / "someone" / "two"
    folder.mkdir(parents=True)
    configs = "".join(f"- config_name: {name}\n  data_files: {name}.csv\n" for name in ("calm", "loud"))
    (folder / "README.md").write_text(f"---\nconfigs:\n{configs}---\n", encoding="utf-8")
    for name in ("calm", "loud"):
        (folder / f"{name}.csv").write_text(f"article,highlights\na {name} text,{name}\n", encoding="utf-8")
    argv = ["train", "--model", "mini", "--dataset", "someone/two", "--batch_size", "9", "--eval_limit", "0"]
    with serve(world.repositories, world.port):
        unnamed = world.softspoken(tmp_path, *argv)
        named = world.softspoken(tmp_path, *argv, "--dataset_config", "loud")
        unknown = world.softspoken(tmp_path, *argv, "--dataset_config", "low")
    assert "Please pick one among the available configs: ['calm', 'loud'] (with --dataset_config)" in unnamed.stderr
    assert "text from 'article', reference from 'highlights'" in named.stderr
    assert "larger than the dataset (1 " in named.stderr
    assert "'calm', 'loud'" in unknown.stderr
    assert {unnamed.status, named.status, unknown.status} == {2}
    assert unnamed.stderr.count("\n") == unknown.stderr.count("\n") == 1


def test_rows_are_held_out_of_a_hub_set_that_has_a_training_split_alone(world: World, tmp_path: Path) -> None:
    folder = world.repositories / "datasets" / "someone" / "alone"
    folder.mkdir(parents=True)
    rows = "".join(f"{n},Nora: number {n}?,It is {n}.\n" for n in range(10))
    (folder / "train.csv").write_text(f"id,dialogue,summary\n{rows}", encoding="utf-8")
    argv = ["train", "--dataset", "someone/alone", "--eval_share", "0.2", "--batch_size"]
    with serve(world.repositories, world.port):
        trained = world.softspoken(tmp_path, *argv, "9")
        evaluated = world.softspoken(tmp_path, *argv, "8", "--judge", "hf:no/judge:toxic")
        named = world.softspoken(tmp_path, *argv, "8", "--eval_split", "test")
    assert "batch_size 9 is larger than the dataset (8 " in trained.stderr
    assert "has no model 'no/judge'" in evaluated.stderr  # which is looked for after the rows to evaluate on
    assert "(--split, or --eval_split for what train evaluates on)" in named.stderr


def test_a_file_of_a_hub_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("has", "lacks", "later"):
        (tmp_path / "models" / "someone" / name).mkdir(parents=True)
        (tmp_path / "models" / "someone" / name / "config.json").write_text("{}")
    PromptFormat(template="Own: {dialogue}").save(tmp_path / "models" / "someone" / "has")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with serve(tmp_path) as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        assert prompt_format_for("someone/has").template == "Own: {dialogue}"
        assert prompt_format_for("someone/lacks") == PromptFormat()
        assert hub_file("someone/later", "config.json", "") is not None
        asked = len(hub.asked)
        assert prompt_format_for("someone/has", template="{dialogue}").template == "{dialogue}"
        assert prompt_format_for("someone/lacks") == PromptFormat()
        assert len(hub.asked) == asked  # both are known
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    assert prompt_format_for("someone/lacks") == PromptFormat()
    assert not caplog.records
    assert prompt_format_for("someone/later") == PromptFormat()
    assert "the hub cannot be asked whether someone/later has a softspoken.json" in caplog.text
    with pytest.raises(InputError, match=r"cannot reach the hub at .* for model 'someone/never'"):
        prompt_format_for("someone/never")


def test_a_checkpoint_that_is_not_the_release_is_refused(world: World, tmp_path: Path) -> None:
    with serve(world.repositories, world.port):
        done = world.softspoken(tmp_path, *PRESET, "--output", "run")
    said = refused(done, tmp_path)
    assert str(world.checkpoint) in said
    assert f"has SHA-256 {world.checkpoint_sha256}, but c1212f89… is expected" in said


COMMANDS = {
    "train": ["train", "--preset", "flan-t5-base-recipe", "--model", "google/flan-t5-small", "--output", "run"],
    "train, dataset": ["train", "--dataset", "knkarthick/dialogsum", "--output", "run"],
    "evaluate": [
        "evaluate",
        "--model",
        "google/flan-t5-small",
        "--dataset",
        "dialogues.jsonl",
        "--output",
        "evaluation",
    ],
    "evaluate, judge": ["evaluate", "--judge", "hf:someone/judge:rude", "--output", "evaluation"],
    "evaluate, adapter": ["evaluate", "--adapter", "someone/adapter", "--output", "evaluation"],
    "summarize": ["summarize", "dialogues.jsonl", "--model", "google/flan-t5-small"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_hub_that_cannot_be_reached(name: str, world: World, tmp_path: Path) -> None:
    said = refused(run_with_dialogues(world, tmp_path, COMMANDS[name]), tmp_path)
    assert f"cannot reach the hub at http://127.0.0.1:{world.port} for " in said
    names_the_ways_on(name, said)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_repository_that_is_not_on_the_hub(name: str, world: World, tmp_path: Path) -> None:
    with serve(world.repositories, world.port) as hub:
        said = refused(run_with_dialogues(world, tmp_path, COMMANDS[name]), tmp_path)
    assert f"the hub at {hub.url} has no " in said
    assert "check the name" in said
    names_the_ways_on(name, said)


def run_with_dialogues(world: World, folder: Path, argv: list[str]) -> Done:
    (folder / "dialogues.jsonl").write_text(DIALOGUE, encoding="utf-8")
    done = world.softspoken(folder, *argv)
    (folder / "dialogues.jsonl").unlink()
    return done


def refused(done: Done, folder: Path) -> str:
    """The one sentence on stderr, after checking that there is nothing else, anywhere; no word of a request tried again either."""
    assert (done.status, done.stdout) == (2, "")
    assert done.stderr.startswith("softspoken: error: ")
    assert done.stderr.count("\n") == 1
    assert not list(folder.iterdir())
    return done.stderr


def names_the_ways_on(name: str, said: str) -> None:
    assert "give the folder of a local copy" in said or "give a local file" in said
    assert "mini" in said or "adapter" in name  # no adapter is embedded
