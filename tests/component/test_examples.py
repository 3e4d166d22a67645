"""examples/, as they stand: the commands of their README on a hub of loopback, which serves the real names with tiny weights."""

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas
import pytest

from commands import Commands, Done
from hub import build_bert, build_detoxify, build_flan_t5, build_samsum, serve
from softspoken.inference.generator import Summarizer
from tiny_classifiers import build_classifier
from tiny_marian import build_marian
from tiny_run import metrics_of
from tiny_tokenizers import build_sentencepiece

EXAMPLES = Path(__file__).parents[2] / "examples"
LINES = EXAMPLES.joinpath("README.md").read_text(encoding="utf-8").splitlines()
ROWS = [line.strip("|").split(" | ") for line in LINES if line.startswith("| [")]
COMMANDS = {re.findall(r"\((.+?)\)", row[0])[0]: row[2].strip(" `") for row in ROWS}
"""Example → how README says it is run."""
SMALL = "--steps 1 --batch_size 2 --samples_per_prompt 2 --max_new_tokens 6 --max_examples 8 --eval_limit 4 --eval_samples 0"


@pytest.fixture(scope="module")
def softspoken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    root, home = tmp_path_factory.mktemp("hub"), tmp_path_factory.mktemp("home")
    models, datasets = root / "models", root / "datasets"
    build_flan_t5(models / "google" / "flan-t5-base")
    build_bert(models / "google-bert" / "bert-base-uncased")
    build_classifier(
        models / "MoritzLaurer" / "DeBERTa-v3-base-mnli-fever-anli", ["entailment", "neutral", "contradiction"]
    )
    pieces = build_sentencepiece(tmp_path_factory.mktemp("pieces"))
    build_marian(models / "Helsinki-NLP" / "opus-mt-en-fr", pieces)
    build_samsum(datasets / "knkarthick" / "samsum")
    build_opus(datasets / "Helsinki-NLP" / "opus-100")
    checkpoint = build_detoxify(home / "torch")
    digits = hashlib.sha256(checkpoint.read_bytes()).hexdigest()[:8]
    checkpoint.rename(checkpoint.with_name(f"toxic_original-{digits}.ckpt"))
    with serve(root) as hub:
        environment = {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(home / "huggingface"),
            "TORCH_HOME": str(home / "torch"),
            "OMP_NUM_THREADS": "1",
        }
        with Commands(environment, "softspoken.train", "softspoken.inference.generator") as commands:
            yield commands


def build_opus(folder: Path) -> None:
    """Helsinki-NLP/opus-100: a folder for each pair of languages, and nested rows."""
    (folder / "en-fr").mkdir(parents=True)
    names = "configs:\n- config_name: en-fr\n  data_files:\n"
    for split in ("train", "test"):
        pairs = [{"translation": {"en": f"The bus {n} is late.", "fr": f"Le bus {n} a du retard."}} for n in range(12)]
        pandas.DataFrame(pairs).to_parquet(folder / "en-fr" / f"{split}-00000-of-00001.parquet")
        names += f"  - split: {split}\n    path: en-fr/{split}-*\n"
    (folder / "README.md").write_text(f"---\n{names}---\n", encoding="utf-8")


def run(softspoken: Commands, folder: Path, example: str, smaller: str) -> Done:
    """The example's command as README has it, with settings of a test behind it, in a folder of its own with examples/ in it."""
    folder.joinpath("examples").symlink_to(EXAMPLES)
    words = shlex.split(COMMANDS[example])
    done = softspoken(folder, *words[1:], *shlex.split(smaller))
    assert done.status == 0, done.stderr
    return done


def test_every_example_is_in_the_readme_and_its_own_text_says_the_same() -> None:
    there = {
        path.name + "/" * path.is_dir() for path in EXAMPLES.iterdir() if not path.name.startswith(("README", "__"))
    }
    assert there == {name.partition("/")[0] + "/" * ("/" in name) for name in COMMANDS}
    for name, command in COMMANDS.items():
        if name.endswith(".py"):
            said = EXAMPLES.joinpath(name).read_text(encoding="utf-8").partition('"""\n\n')[0]
            assert command in " ".join(said.replace("\\\n", " ").split()), name


def test_own_reward(softspoken: Commands, tmp_path: Path) -> None:
    done = run(softspoken, tmp_path, "own_reward.py", "--model google/flan-t5-base --steps 1 --eval_limit 2")
    # "Tea tea at 5." of the ten words of the text and "They will have tea at 5.": 4 words of 10, the number kept, one echo.
    assert re.findall(r"^(?:brief|keeps_numbers|no_echo): .*", done.stdout, re.MULTILINE) == [
        "brief: 1.00", "keeps_numbers: 1.00", "no_echo: 0.75",
    ]  # fmt: skip
    [row] = metrics_of(tmp_path / "runs/own-reward")
    assert {"objective/score/brief", "objective/score/no_echo"} <= set(row)
    assert row["objective/no_opinion/keeps_numbers"] in range(
        6, 49, 6
    )  # of 8 × 6 samples, those of texts without a number


def test_a_reward_written_for_trl(softspoken: Commands, tmp_path: Path) -> None:
    run(softspoken, tmp_path, "trl_reward.py", f"--model google/flan-t5-base {SMALL} --output run")
    [row] = metrics_of(tmp_path / "run")
    assert 0 <= row["objective/score/./examples/trl_reward.py:near_in_length"] <= 1


def test_entailment_is_a_guard_of_the_report(softspoken: Commands, tmp_path: Path) -> None:
    run(softspoken, tmp_path, "nli_guard.py", SMALL)
    report = json.loads((tmp_path / "runs/entailed/eval.json").read_text(encoding="utf-8"))
    assert [(guard["metric"], guard["margin"]) for guard in report["task"]["guards"]] == [
        ("rougeL", 1.0),
        ("entailed", 0.02),
    ]
    assert all(0 < system["metrics"]["entailed"]["mean"] < 1 for system in report["systems"])
    assert "Entailed" in (tmp_path / "runs/entailed/report.html").read_text(encoding="utf-8")


def test_translation(softspoken: Commands, tmp_path: Path) -> None:
    done = run(softspoken, tmp_path, "translation.py", "--steps 1 --eval_limit 2")
    assert "chrF" in done.stdout
    assert re.findall(r"^(base|tuned): ", done.stdout, re.MULTILINE) == ["base", "tuned"]
    report = json.loads((tmp_path / "runs/en-fr/eval.json").read_text(encoding="utf-8"))
    assert report["dataset"]["id"] == "Helsinki-NLP/opus-100"


def test_own_preferences(softspoken: Commands, tmp_path: Path) -> None:
    small = "--model google/flan-t5-base --dataset knkarthick/samsum --texts 10 --samples 4"
    run(softspoken, tmp_path, "own_preferences.py", small)
    rows = [json.loads(line) for line in (tmp_path / "runs/preferences.jsonl").read_text(encoding="utf-8").splitlines()]
    assert rows
    assert all(set(row) == {"text", "chosen", "rejected"} and row["chosen"] != row["rejected"] for row in rows)
    assert (tmp_path / "runs/preferred/adapter_model.safetensors").is_file()


def test_the_notebook(softspoken: Commands, tmp_path: Path) -> None:
    """Its cells one after the other, all but the one that installs; the last value of each is shown as a notebook shows it."""
    notebook = json.loads(EXAMPLES.joinpath("flan_t5_samsum.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in cells)
    assert "".join(cells[0]["source"]).startswith("%pip install")
    script = [SHOW]
    for cell in cells[1:]:
        script.append(f"cell({''.join(cell['source'])!r})")
        if "parameters" in cell["metadata"].get("tags", []):
            script.append("cell('STEPS, EXAMPLES, EVAL_LIMIT = 1, 8, 4')")
    (tmp_path / "cells.py").write_text("\n".join(script), encoding="utf-8")
    done = softspoken(tmp_path, "cells.py")
    assert done.status == 0, done.stderr
    shown = done.stdout.split("shown: ")
    assert [part.partition("\n")[0] for part in shown[1:]] == ["ShownRun", "Charts", "DataFrame"]
    assert "tuned:" in shown[-1]
    assert (tmp_path / "runs/flan-t5-samsum/report.html").is_file()


SHOW = """
import ast
from pathlib import Path

import torch
from detoxify.detoxify import MODEL_URLS

[checkpoint] = Path(torch.hub.get_dir(), "checkpoints").iterdir()
MODEL_URLS["original"] = f"https://a.test/{checkpoint.name}"  # whose last digits are its own
names = {}

def cell(source):
    body = ast.parse(source).body
    last = body.pop() if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), "cell", "exec"), names)
    value = eval(compile(ast.Expression(last.value), "cell", "eval"), names) if last else None
    if value is not None:
        assert "<" in value._repr_html_()
        print("shown:", type(value).__name__)
"""


def test_ray_data(tiny_t5: Path, tmp_path: Path) -> None:
    """A local Ray in a process of its own, with one worker."""
    pytest.importorskip("ray", reason="Ray is not installed (pip install 'softspoken[ray]')")
    rows = [{"id": n, "dialogue": f"Nora: number {n}?\nFelix: yes."} for n in range(5)]
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    tmp_path.joinpath("examples").symlink_to(EXAMPLES)
    words = shlex.split(COMMANDS["ray_batch.py"])[1:]
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_ADDRESS": "local"}
    command = [sys.executable, *words, "--workers", "1", "--model", str(tiny_t5)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for file in (tmp_path / "responses").iterdir() for line in file.read_text().splitlines()]
    expected = Summarizer.from_pretrained(str(tiny_t5))([row["dialogue"] for row in rows])
    assert sorted(found, key=lambda row: row["id"]) == [
        {**row, "response": response} for row, response in zip(rows, expected, strict=True)
    ]
