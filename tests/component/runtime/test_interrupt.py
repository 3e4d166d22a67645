"""Real signals to real processes: at an import, while loading, in a step, twice; and what goes on from there."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from commands import Commands, Done

pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX signals")

FINISHING = "softspoken: the step in hand is finished and saved first; a second time ends at once\n"
SEND = """
import os, signal, sys
for one in (signal.SIGINT, signal.SIGTERM):  # a shell's `&` has children ignore the first
    signal.signal(one, signal.SIG_DFL)
def when(owner, name, count, times=1, signum=signal.SIGTERM):
    '''Send the signal in a function's call of this number.'''
    real, calls = getattr(owner, name), []
    def function(*args, **named):
        calls.append(None)
        if len(calls) == count:
            for _ in range(times):
                os.kill(os.getpid(), signum)
        return real(*args, **named)
    setattr(owner, name, function)
"""
IN_A_STEP = SEND + "import softspoken.train\nwhen(sys.modules['softspoken.train'], '_scores', 3"


@pytest.fixture(scope="module")
def softspoken() -> Iterator[Commands]:
    with Commands({"OMP_NUM_THREADS": "1"}, "softspoken.train", "softspoken.sft") as commands:
        yield commands


@pytest.fixture
def rows(tmp_path: Path) -> str:
    lines = [json.dumps({"dialogue": f"Nora: number {n}?\nFelix: yes", "summary": f"It is {n}."}) for n in range(8)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return "rows.jsonl"


def train(softspoken: Commands, model: Path, cwd: Path, output: str, before: str = "") -> Done:
    # Every other step would be a checkpoint, and the third is none; the judge remembers texts from one to the next.
    settings = "--reward mini --steps 5 --save_every 2 --batch_size 4 --samples_per_prompt 2 --max_new_tokens 6 --lora_r 2 --mini_batch_size 4 --learning_rate 1e-2 --min_response_chars 0 --eval_limit 0 --device cpu"  # fmt: skip
    named = ("--model", str(model), "--dataset", "rows.jsonl", "--output", output)
    return softspoken(cwd, "train", *settings.split(), *named, BEFORE=before)


def metrics(run: Path) -> list[dict[str, Any]]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [{name: value for name, value in line.items() if not name.startswith("time/")} for line in lines]


@pytest.mark.parametrize(
    ("module", "name", "status"), [("softspoken.types", "SIGINT", 130), ("transformers", "SIGTERM", 143)]
)
def test_while_something_is_imported(module: str, name: str, status: int, tmp_path: Path) -> None:
    code = f"""{SEND}
signal.signal(signal.SIGINT, signal.default_int_handler)
import runpy
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.{name})
sys.meta_path.insert(0, Finder())
sys.argv[1:] = ["train", "--output", "run"]
runpy.run_module("softspoken", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", "")
    assert not [*tmp_path.iterdir()]


def test_what_an_import_makes_of_a_signal_is_not_said(softspoken: Commands, tmp_path: Path) -> None:
    """NumPy's C code, for one, says ImportError."""
    before = f"""{SEND}
from softspoken.cli import main
def run(command, config):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except BaseException:
        raise ImportError("multiarray failed to import")
main._run = run
"""
    done = softspoken(tmp_path, "score", BEFORE=before)
    assert (done.status, done.stderr) == (143, "")


def test_where_nothing_can_be_raised_it_ends_all_the_same(softspoken: Commands, tmp_path: Path) -> None:
    before = f"""{SEND}
from softspoken.cli import main
class Thing:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        len([])
main._run = lambda *_: Thing() and print("lived on", file=sys.stderr)
"""
    done = softspoken(tmp_path, "score", BEFORE=before)
    assert (done.status, done.stderr) == (143, "")


def test_while_loading_nothing_is_left(softspoken: Commands, tiny_t5: Path, rows: str, tmp_path: Path) -> None:
    before = SEND + "import softspoken.train\nwhen(sys.modules['softspoken.train'], 'load_policy', 1)"
    done = train(softspoken, tiny_t5, tmp_path, "run", before)
    assert (done.status, done.stderr) == (143, "")
    assert not (tmp_path / "run").exists()


def test_in_a_step_of_train(softspoken: Commands, tiny_t5: Path, rows: str, tmp_path: Path) -> None:
    """It is finished and saved, between two checkpoints too, and the run goes on to the same digits."""
    done = train(softspoken, tiny_t5, tmp_path, "run", IN_A_STEP + ", signum=signal.SIGINT)")
    said = f"{FINISHING}softspoken: stopped; softspoken train --resume run goes on from here\n"
    assert done.status == 130
    assert done.stderr.endswith(said)
    assert "Traceback" not in done.stderr
    assert len(metrics(tmp_path / "run")) == 3
    assert sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir()) == ["step-000002", "step-000003"]

    assert softspoken(tmp_path, "train", "--resume", "run").status == 0
    assert train(softspoken, tiny_t5, tmp_path, "whole").status == 0
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")


def test_a_second_one_ends_at_once(softspoken: Commands, tiny_t5: Path, rows: str, tmp_path: Path) -> None:
    done = train(softspoken, tiny_t5, tmp_path, "run", IN_A_STEP + ", times=2)")
    assert done.status == 143
    assert done.stderr.endswith(FINISHING)
    assert len(metrics(tmp_path / "run")) == 2


def test_in_a_step_of_sft(softspoken: Commands, tiny_t5: Path, rows: str, tmp_path: Path) -> None:
    sft = f"sft --model {tiny_t5} --dataset {rows} --batch_size 2 --save_every 100 --trained lora --lora_r 2 --epochs 1 --learning_rate 1e-2".split()
    before = SEND + "import softspoken.sft\nwhen(sys.modules['softspoken.sft']._Keep, 'on_step_begin', 2)"
    done = softspoken(tmp_path, *sft, "--output", "adapter", BEFORE=before)
    assert done.status == 143
    assert done.stderr.endswith("softspoken: stopped; softspoken sft … --resume true goes on from here\n")
    assert FINISHING in done.stderr
    assert [path.name for path in (tmp_path / "adapter/checkpoints").iterdir()] == ["step-000002"]

    assert softspoken(tmp_path, *sft, "--output", "adapter", "--resume", "true").status == 0
    assert softspoken(tmp_path, *sft, "--output", "whole").status == 0
    tuned, whole = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("adapter", "whole"))
    assert {name: weight.tolist() for name, weight in tuned.items()} == {
        name: weight.tolist() for name, weight in whole.items()
    }


def test_in_an_evaluation(softspoken: Commands, tiny_t5: Path, rows: str, tmp_path: Path) -> None:
    evaluate = f"evaluate --model {tiny_t5} --dataset {rows} --limit 2 --judge mini --max_new_tokens 4 --device cpu --output eval".split()
    before = SEND + "from softspoken.evaluation.rows import RowsFile\nwhen(RowsFile, 'add', 2)"
    done = softspoken(tmp_path, *evaluate, BEFORE=before)
    assert done.status == 143
    assert done.stderr.endswith("softspoken: stopped; softspoken evaluate … --resume true goes on from here\n")
