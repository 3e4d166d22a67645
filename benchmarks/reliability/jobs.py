"""What is killed, broken and soaked: four commands on a tiny model, their folder, and what must be the same at their end."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoTokenizer, GenerationConfig, T5Config, T5ForConditionalGeneration

from benchmarks.reliability.children import run
from softspoken import mini
from softspoken.data.prompts import PromptFormat
from softspoken.storage.run_folder import PRIVATE

OUT = "out"
ROWS = 20
TINY = "--model ../inputs/t5 --device cpu"
DATA = "--dataset ../inputs/rows.jsonl"
TRAIN = "--batch_size 2 --samples_per_prompt 2 --max_new_tokens 3 --lora_r 2 --learning_rate 1e-2 --min_response_chars 0 --reward length:1-5"


@dataclass(frozen=True)
class Job:
    begin: list[str]
    go_on: list[str]


JOBS = {
    "train": Job(
        f"train {TINY} {DATA} {TRAIN} --steps 3 --save_every 1 --eval_limit 2 --eval_samples 0 --eval_baseline copy --judge mini --output {OUT}".split(),
        f"train --resume {OUT}".split(),
    ),
    "sft": Job(
        begin
        := f"sft --model ../inputs/t5 {DATA} --batch_size 2 --save_every 1 --max_examples 8 --trained lora --lora_r 2 --learning_rate 1e-2 --output {OUT}".split(),
        [*begin, "--resume", "true"],
    ),
    "evaluate": Job(
        begin := f"evaluate {TINY} {DATA} --limit 2 --max_new_tokens 3 --samples 1 --judge mini --output {OUT}".split(),
        [*begin, "--resume", "true"],
    ),
    "generate": Job(
        begin := f"generate ../inputs/rows.jsonl {TINY} --max_new_tokens 3 --batch_size 1 --output {OUT}".split(),
        [*begin, "--resume", "true"],
    ),
}
CLOCKS = re.compile(r'"time/\w+": [^,}]+,? ?|\d+(\.\d+)? s/step|"(train_\w+_per_second|train_runtime)": [^,}]+')


def make_inputs(work: Path) -> Path:
    """A T5 of width 16 with the embedded tokenizer, and a few dialogues."""
    folder = work / "inputs"
    if (folder / "pairs.jsonl").is_file():
        return folder
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(mini.path)
    ids = {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1}
    size = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_heads": 2, "num_layers": 2, "num_decoder_layers": 2}
    model = T5ForConditionalGeneration(
        T5Config(vocab_size=len(tokenizer), feed_forward_proj="gated-gelu", **size, **ids)
    )
    model.generation_config = GenerationConfig(max_new_tokens=12, **ids)
    model.save_pretrained(folder / "t5")
    tokenizer.save_pretrained(folder / "t5")
    PromptFormat(template="{dialogue}").save(folder / "t5")
    write_rows(folder / "rows.jsonl", ROWS)
    pairs = ({"text": f"Nora: {n}?", "chosen": f"It is {n}.", "rejected": "No."} for n in range(ROWS))
    (folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    return folder


def make_a_run(work: Path) -> None:
    """Beside the model: a run, its adapter, and one row."""
    inputs = work / "inputs"
    if not (inputs / "one.jsonl").is_file():
        ended = run(fresh(work / "made"), JOBS["train"].begin)
        assert ended.status == 0, ended.stderr
        shutil.rmtree(work / "made" / OUT / PRIVATE)
        shutil.copytree(work / "made" / OUT, inputs / "run")
        shutil.copytree(work / "made" / OUT / "adapter", inputs / "adapter")
        write_rows(inputs / "one.jsonl", 1)


def write_rows(path: Path, count: int) -> None:
    rows = [
        {"id": str(n), "dialogue": f"Nora: number {n}?\nFelix: yes" + " indeed" * (n % 7), "summary": f"It is {n}."}
        for n in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def fresh(folder: Path) -> Path:
    """The folder of a trial, with neighbours of the output that nobody may touch."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in NEIGHBOURS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"mine: {name}\n", encoding="utf-8")
    return folder


NEIGHBOURS = ("notes.txt", "out.txt", "out-2/config.yaml", ".out.saving/mine", "runs/other/metrics.jsonl")
SENTINEL = f"{OUT}/mine.txt"


def place_sentinel(folder: Path) -> None:
    """A file of the user's in the output, once there is one that is on record."""
    record = folder / OUT / PRIVATE / "written"
    if record.is_file() and any((folder / OUT / json.loads(line)).is_file() for line in _whole_lines(record)):
        (folder / SENTINEL).write_text(f"mine: {SENTINEL}\n", encoding="utf-8")


def _whole_lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith('"\n')]


def damaged(folder: Path) -> list[str]:
    """Files of the user's that are gone or changed, and what was left behind in the folder that should not be."""
    names = [*NEIGHBOURS, *([SENTINEL] if (folder / OUT / PRIVATE).is_dir() and _had_sentinel(folder) else [])]
    wrong = [name for name in names if not _is_mine(folder, name)]
    known = {name.partition("/")[0] for name in NEIGHBOURS} | {OUT}
    return wrong + sorted(path.name for path in folder.iterdir() if path.name not in known)


def _had_sentinel(folder: Path) -> bool:
    return (folder / SENTINEL).exists()


def _is_mine(folder: Path, name: str) -> bool:
    return (folder / name).is_file() and (folder / name).read_text(encoding="utf-8") == f"mine: {name}\n"


def digest(folder: Path) -> dict[str, str]:
    """Each file of the output without what clocks say: name → SHA-256."""
    out = folder / OUT
    files = [out] if out.is_file() else sorted(path for path in out.rglob("*") if path.is_file())
    found = {}
    for path in files:
        name = path.relative_to(folder).as_posix()
        if name == SENTINEL or PRIVATE in path.parts or "tensorboard" in path.parts:
            continue
        content = path.read_bytes()
        with_clocks = content.decode("utf-8", "replace") if path.suffix in (".jsonl", ".json", ".html", ".md") else None
        stripped = CLOCKS.sub("", with_clocks).encode() if with_clocks is not None else content
        found[name] = hashlib.sha256(stripped).hexdigest()
    return found
