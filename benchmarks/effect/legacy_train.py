"""Train the embedded summarizer with TRL 0.11.4, on softspoken's data, prompts and reward; leave an adapter that it evaluates.

.venv/bin/python -m benchmarks.effect.legacy_train --output FOLDER --steps 50 --seed 0 --learning_rate 1.41e-5

TRL works in a process of its own, with the legacy environment's Python (made where it is missing: some minutes). This process
prepares prompts and scores summaries. FOLDER then holds adapter/, metrics.jsonl and seconds.json; with --save_every also
snapshots/step-000010/, each an adapter with its seconds.json. Seconds are those of sampling, scoring and TRL's step alone.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from benchmarks.provenance import ROOT
from benchmarks.records import append
from benchmarks.speed.rounds import LEGACY, end
from softspoken import mini
from softspoken.config import TrainConfig
from softspoken.data.batches import prompt_batches
from softspoken.data.prompts import PromptFormat
from softspoken.data.reading import load_examples
from softspoken.models.pretrained import load_generation_config, load_tokenizer, prompt_format_for
from softspoken.progress import progress_bar
from softspoken.rewards.terms import judge_term, load_reward
from softspoken.types import PromptBatch

OURS = TrainConfig()
"""Where both sides must be alike, softspoken's defaults are what TRL gets too."""
SECONDS_FILE = "seconds.json"


@dataclass(frozen=True)
class Settings:
    output: str = field(metadata={"help": "folder to write to; one that holds a finished run is refused"})
    steps: int = field(default=OURS.steps, metadata={"help": "training steps"})
    seed: int = field(default=0, metadata={"help": "of order, sampling and initialization"})
    learning_rate: float = field(default=1.41e-5, metadata={"help": "TRL's default is 1.41e-5"})
    batch: int = field(default=OURS.batch_size, metadata={"help": "dialogues a step"})
    samples: int = field(default=OURS.samples_per_prompt, metadata={"help": "summaries of each dialogue"})
    save_every: int = field(default=0, metadata={"help": "steps between snapshots; 0 leaves them out"})
    max_new_tokens: int = field(default=OURS.max_new_tokens, metadata={"help": "longest summary"})
    mini_batch: int = field(default=8, metadata={"help": "summaries for each of TRL's optimizer steps"})
    ppo_epochs: int = field(default=4, metadata={"help": "passes over the samples of a step; TRL's default is 4"})
    max_seconds: float = field(default=math.inf, metadata={"help": "end after so many seconds of training"})

    def __post_init__(self) -> None:
        if (self.batch * self.samples) % self.mini_batch:
            raise SystemExit(f"mini_batch {self.mini_batch} must divide batch x samples ({self.batch * self.samples})")


class Diverged(Exception):
    """TRL's process ended in the middle of a step: as a rule, logits that are no longer numbers."""


class Legacy:
    """TRL's process."""

    def __init__(self, settings: Settings, log: Path) -> None:
        self.log = log
        threads = torch.get_num_threads()
        with log.open("w") as file:
            self.process = subprocess.Popen(
                [LEGACY / "bin" / "python", "-m", "benchmarks.effect.legacy_loop"],
                cwd=ROOT,
                env=os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
            )
        ours = {
            "model": str(mini.path),
            "targets": ["q", "v"],  # the family's query and value projections, as softspoken takes them
            "scope": "all",
            "lora_r": OURS.lora_r,
            "lora_alpha": OURS.lora_alpha,
            "batch": settings.batch * settings.samples,
            "threads": threads,
        }
        named = ("seed", "learning_rate", "mini_batch", "ppo_epochs", "max_new_tokens")
        self.versions = self.ask({"settings": ours | {name: getattr(settings, name) for name in named}})["versions"]

    def ask(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        self.process.wait()
        lines = self.log.read_text(errors="replace").strip().splitlines()
        if lines and "probability tensor contains" in lines[-1]:
            raise Diverged(lines[-1])
        raise SystemExit(f"TRL's process ended ({' '.join(lines[-1:])}); see {self.log}")

    def stop(self) -> None:
        end(self.process)


def train(settings: Settings, watch: Callable[[Path], bool] | None = None) -> dict[str, Any]:
    """The record that FOLDER/seconds.json holds as well: seconds, steps, whether it diverged, versions.

    `watch` is shown each snapshot as it is written, in time that does not count, and ends the run by true.
    """
    subprocess.run([ROOT / "benchmarks" / "legacy_env.sh", LEGACY], check=True)
    output = _fresh_folder(Path(settings.output))
    tokenizer, prompt_format = load_tokenizer("mini"), prompt_format_for("mini")
    dialogues = load_examples(OURS.dataset, OURS.split)
    reward, judge = load_reward(OURS.reward), judge_term(OURS.reward)
    batches = prompt_batches(
        dialogues,
        tokenizer,
        prompt_format,
        batch_size=settings.batch,
        seed=settings.seed,
        first_step=0,
        steps=settings.steps,
    )
    legacy = Legacy(settings, output / "trl.log")
    seconds, step, diverged = 0.0, 0, False

    def save(folder: Path) -> None:
        legacy.ask({"save": str(folder)})
        _complete(folder, tokenizer, prompt_format, settings.max_new_tokens)
        _write(folder / SECONDS_FILE, {"seconds": seconds, "steps": step})

    try:
        with progress_bar("TRL 0.11.4") as progress:
            task = progress.add_task("TRL 0.11.4", total=settings.steps)
            for step, prompts in enumerate(batches, start=1):
                begun = time.perf_counter()
                answered = [one for one in prompts.examples for _ in range(settings.samples)]
                seed = settings.seed * 1_000_003 + step
                responses = legacy.ask({"queries": _queries(prompts, settings.samples), "seed": seed})["responses"]
                texts = [text.strip() for text in tokenizer.batch_decode(responses, skip_special_tokens=True)]
                scores = reward(texts, answered)
                kl = legacy.ask({"scores": scores.total.tolist()})["kl"]
                seconds += time.perf_counter() - begun
                metrics = {"step": step, "score": scores.total.mean().item(), "kl": kl, "seconds": seconds}
                if judge:
                    metrics["toxicity"] = 1 - scores.terms[judge].mean().item()
                append(output / "metrics.jsonl", metrics)
                progress.advance(task)
                if settings.save_every and step % settings.save_every == 0:
                    snapshot = output / "snapshots" / f"step-{step:06d}"
                    save(snapshot)
                    if watch and watch(snapshot):
                        break
                if seconds >= settings.max_seconds:
                    break
        save(output / "adapter")
    except Diverged:
        diverged, step = True, step - 1
    finally:
        legacy.stop()
    record = {"seconds": seconds, "steps": step, "diverged": diverged, "versions": legacy.versions}
    _write(output / SECONDS_FILE, record)
    return record


def _queries(prompts: PromptBatch, samples: int) -> list[list[int]]:
    """Each prompt's ids without padding, once for every summary that is asked of it."""
    rows = zip(prompts.input_ids, prompts.attention_mask, strict=True)
    return [ids[: int(mask.sum())].tolist() for ids, mask in rows for _ in range(samples)]


def _complete(folder: Path, tokenizer: Any, prompt_format: PromptFormat, max_new_tokens: int) -> None:
    """Put beside the adapter's weights what softspoken's own adapter folders hold."""
    tokenizer.save_pretrained(folder)
    generation = deepcopy(load_generation_config("mini"))
    generation.max_new_tokens, generation.max_length = max_new_tokens, None
    generation.save_pretrained(folder)
    prompt_format.save(folder)


def _fresh_folder(output: Path) -> Path:
    """Emptied where it holds part of a run: TRL cannot go on with one."""
    if (output / SECONDS_FILE).is_file():
        raise SystemExit(f"output {output} holds a finished run; remove it or give another folder")
    if output.exists() and any(output.iterdir()) and not (output / "trl.log").is_file():
        raise SystemExit(f"output {output} is not empty and no run of this benchmark; give another folder")
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    return output


def _write(path: Path, record: dict[str, Any]) -> None:
    path.write_text(json.dumps(record) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = {"str": str, "int": int, "float": float}
    for one in fields(Settings):
        kind, needed = kinds[str(one.type)], one.name == "output"
        options: dict[str, Any] = {"required": True} if needed else {"default": one.default}
        parser.add_argument(f"--{one.name}", type=kind, help=one.metadata["help"], **options)
    settings = Settings(**vars(parser.parse_args()))
    record = train(settings)
    if record["diverged"]:
        raise SystemExit(f"TRL diverged after {record['steps']} steps (learning rate {settings.learning_rate})")
    print(f"{record['steps']} steps in {record['seconds']:.0f} s of training; adapter in {settings.output}/adapter")


if __name__ == "__main__":
    main()
