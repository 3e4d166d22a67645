"""Train the embedded summarizer with TRL 0.11.4, on softspoken's data, prompts and reward; leave an adapter that it evaluates.

.venv/bin/python -m benchmarks.effect.legacy_train --output FOLDER --steps 50 --seed 0 --learning_rate 1.41e-5

TRL works in a process of its own, with the legacy environment's Python (made where it is missing: some minutes). This process
prepares prompts and scores summaries. FOLDER then holds adapter/, metrics.jsonl and seconds.json; with --save_every also
snapshots/step-000010/, each an adapter with its seconds.json. Seconds are those of sampling, scoring and TRL's step alone.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jsonargparse import auto_cli, set_parsing_settings

from benchmarks.effect.settings import RECIPE
from benchmarks.records import Record, append, write_json
from benchmarks.workers import LEGACY_PYTHON, Ended, Worker, make_legacy_environment
from softspoken import mini
from softspoken.data.batches import prompt_batches
from softspoken.data.prompts import PromptFormat
from softspoken.data.reading import load_examples
from softspoken.models.pretrained import load_generation_config, load_tokenizer, prompt_format_for
from softspoken.progress import progress_bar
from softspoken.rewards.terms import judge_term, load_reward
from softspoken.types import PromptBatch

SECONDS_FILE = "seconds.json"
DIVERGED = "probability tensor contains"
"""The last words of TRL's process where logits are no longer numbers."""


@dataclass(frozen=True)
class Settings:
    output: str
    """folder to write to; one that holds a finished run is refused"""
    steps: int = RECIPE.steps
    """training steps"""
    seed: int = 0
    """of order, sampling and initialization"""
    learning_rate: float = 1.41e-5
    """TRL's default is 1.41e-5"""
    batch: int = RECIPE.batch_size
    """dialogues a step"""
    samples: int = RECIPE.samples_per_prompt
    """summaries of each dialogue"""
    save_every: int = 0
    """steps between snapshots; 0 leaves them out"""
    max_new_tokens: int = RECIPE.max_new_tokens
    """longest summary"""
    mini_batch: int = 8
    """summaries for each of TRL's optimizer steps"""
    ppo_epochs: int = 4
    """passes over the samples of a step; TRL's default is 4"""

    def __post_init__(self) -> None:
        if (self.batch * self.samples) % self.mini_batch:
            raise SystemExit(f"mini_batch {self.mini_batch} must divide batch x samples ({self.batch * self.samples})")


def start_trl(settings: Settings, log: Path) -> Worker:
    given = {
        "folder": str(mini.path),
        "scope": "all",
        "lora_r": RECIPE.lora_r,
        "lora_alpha": RECIPE.lora_alpha,
        "batch_size": settings.batch * settings.samples,
        "mini_batch_size": settings.mini_batch,
        **{name: getattr(settings, name) for name in ("seed", "learning_rate", "ppo_epochs", "max_new_tokens")},
    }
    return Worker(LEGACY_PYTHON, "benchmarks.effect.legacy_loop", given, log, torch.get_num_threads())


def train(settings: Settings, watch: Callable[[Path], bool] | None = None) -> Record:
    """The record that FOLDER/seconds.json holds as well: seconds, steps, whether it diverged, versions.

    `watch` is shown each snapshot as it is written, in time that does not count, and ends the run by true.
    """
    make_legacy_environment()
    output = _fresh_folder(Path(settings.output))
    tokenizer, prompt_format = load_tokenizer("mini"), prompt_format_for("mini")
    legacy = start_trl(settings, output / "trl.log")
    seconds, step, diverged = 0.0, 0, False

    def save(folder: Path) -> None:
        legacy.ask(save=str(folder))
        _complete(folder, tokenizer, prompt_format, settings.max_new_tokens)
        write_json(folder / SECONDS_FILE, {"seconds": seconds, "steps": step})

    try:
        for step, (taken, metrics) in enumerate(_steps(settings, legacy, tokenizer, prompt_format), start=1):
            seconds += taken
            append(output / "metrics.jsonl", {"step": step, **metrics, "seconds": seconds})
            if settings.save_every and step % settings.save_every == 0:
                snapshot = output / "snapshots" / f"step-{step:06d}"
                save(snapshot)
                if watch and watch(snapshot):
                    break
        save(output / "adapter")
    except Ended as ended:
        if DIVERGED not in str(ended):
            raise
        diverged = True
    finally:
        legacy.stop()
    record = {"seconds": seconds, "steps": step, "diverged": diverged, "versions": legacy.versions}
    write_json(output / SECONDS_FILE, record)
    return record


def _steps(
    settings: Settings, legacy: Worker, tokenizer: Any, prompt_format: PromptFormat
) -> Iterator[tuple[float, Record]]:
    """The seconds that each step took, and its metrics."""
    dialogues = load_examples(RECIPE.dataset, RECIPE.split)
    reward, judge = load_reward(RECIPE.reward), judge_term(RECIPE.reward)
    order = {"batch_size": settings.batch, "seed": settings.seed, "first_step": 0, "steps": settings.steps}
    batches = prompt_batches(dialogues, tokenizer, prompt_format, **order)
    with progress_bar("TRL 0.11.4") as progress:
        for step, prompts in enumerate(progress.track(batches, total=settings.steps), start=1):
            begun = time.perf_counter()
            answered = [one for one in prompts.examples for _ in range(settings.samples)]
            seed = settings.seed * 1_000_003 + step
            responses = legacy.ask(queries=_queries(prompts, settings.samples), seed=seed)["responses"]
            texts = [text.strip() for text in tokenizer.batch_decode(responses, skip_special_tokens=True)]
            scores = reward(texts, answered)
            kl = legacy.ask(scores=scores.total.tolist())["kl"]
            taken = time.perf_counter() - begun
            toxicity = {"toxicity": 1 - scores.terms[judge].mean().item()} if judge else {}
            yield taken, {"score": scores.total.mean().item(), "kl": kl, **toxicity}


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


def main() -> None:
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    settings = auto_cli(Settings, as_positional=False, description=__doc__)
    record = train(settings)
    if record["diverged"]:
        raise SystemExit(f"TRL diverged after {record['steps']} steps (learning rate {settings.learning_rate})")
    print(f"{record['steps']} steps in {record['seconds']:.0f} s of training; adapter in {settings.output}/adapter")


if __name__ == "__main__":
    main()
