"""Train the embedded summarizer with TRL 0.11.4, on softspoken's data, prompts and reward, in adapters that softspoken evaluates.

TRL works in a process of its own, with the legacy environment's Python (made where it is missing: some minutes). This process
prepares prompts and scores summaries. Seconds are those of sampling, scoring and TRL's step alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import torch

from benchmarks.recipe import RECIPE
from benchmarks.workers import LEGACY_PYTHON, Worker, make_legacy_environment
from softspoken import mini
from softspoken.data.batches import prompt_batches
from softspoken.data.reading import load_examples
from softspoken.models.pretrained import load_generation_config, load_tokenizer, prompt_format_for
from softspoken.rewards.terms import load_reward
from softspoken.runtime.progress import progress_bar
from softspoken.types import PromptBatch

DIVERGED = "probability tensor contains"
"""The last words of TRL's process where logits are no longer numbers."""
MINI_BATCH, EPOCHS = 8, 4
"""Summaries for each of TRL's optimizer steps, and its passes over a step's samples: its default."""
LONGEST = 100_000
"""Steps; whoever takes them ends them."""


def start(seed: int, learning_rate: float, log: Path) -> Worker:
    make_legacy_environment()
    given = {
        "folder": str(mini.path),
        "scope": "all",
        "lora_r": RECIPE.lora_r,
        "lora_alpha": RECIPE.lora_alpha,
        "batch_size": RECIPE.batch_size * RECIPE.samples_per_prompt,
        "mini_batch_size": MINI_BATCH,
        "ppo_epochs": EPOCHS,
        "seed": seed,
        "learning_rate": learning_rate,
        "max_new_tokens": RECIPE.max_new_tokens,
    }
    return Worker(LEGACY_PYTHON, "benchmarks.time_to_effect.trl_loop", given, log, torch.get_num_threads())


def steps(trl: Worker, seed: int) -> Iterator[float]:
    """The seconds that each step took."""
    assert RECIPE.reward
    tokenizer, samples = load_tokenizer("mini"), RECIPE.samples_per_prompt
    dialogues, reward = load_examples(RECIPE.dataset, RECIPE.split), load_reward(RECIPE.reward)
    order = {"batch_size": RECIPE.batch_size, "seed": seed, "first_step": 0, "steps": LONGEST}
    batches = prompt_batches(dialogues, tokenizer, prompt_format_for("mini"), **order)
    with progress_bar("TRL 0.11.4") as progress:
        bar = progress.add_task("steps", total=None)
        for step, prompts in enumerate(batches, start=1):
            progress.advance(bar)
            begun = time.perf_counter()
            answered = [one for one in prompts.examples for _ in range(samples)]
            responses = trl.ask(queries=queries(prompts, samples), seed=seed * 1_000_003 + step)["responses"]
            texts = [text.strip() for text in tokenizer.batch_decode(responses, skip_special_tokens=True)]
            trl.ask(scores=reward(texts, answered).total.tolist())
            yield time.perf_counter() - begun


def queries(prompts: PromptBatch, samples: int) -> list[list[int]]:
    """Each prompt's ids without padding, once for every summary that is asked of it."""
    rows = zip(prompts.input_ids, prompts.attention_mask, strict=True)
    return [ids[: int(mask.sum())].tolist() for ids, mask in rows for _ in range(samples)]


def save(trl: Worker, folder: Path) -> None:
    """TRL's adapter, with what softspoken's own adapter folders hold beside it."""
    trl.ask(save=str(folder))
    load_tokenizer("mini").save_pretrained(folder)
    generation = deepcopy(load_generation_config("mini"))
    generation.max_new_tokens, generation.max_length = RECIPE.max_new_tokens, None
    generation.save_pretrained(folder)
    prompt_format_for("mini").save(folder)
