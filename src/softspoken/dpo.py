"""DPO on preferences that are given: rows of a text, the response that is preferred, and the one that is not (Rafailov et al. 2023).

The loss is that of `train --algorithm dpo`, the reference the frozen start; one step a batch of pairs.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from softspoken.config import DpoConfig, TrainConfig
from softspoken.config.idle import say_what_is_idle
from softspoken.config.kinds import require_config
from softspoken.data.batches import prompt_batches, require_a_batch
from softspoken.data.columns import columns_of_pairs, value_of
from softspoken.data.labels import ended, label_ids
from softspoken.data.prompts import PromptFormat
from softspoken.data.reading import load_examples, name_of
from softspoken.models.adapters import adapter_folder
from softspoken.models.cpu import tune_cpu
from softspoken.models.languages import require_target
from softspoken.models.learning_rates import next_rate
from softspoken.models.pretrained import prompt_format_for, require_seq2seq
from softspoken.models.trained import read_peft_config
from softspoken.rl import chosen
from softspoken.rl.checkpoint import Progress, checkpoint_bytes, load_checkpoint, save_checkpoint
from softspoken.rl.given import given_rollout
from softspoken.rl.loading import load_policy
from softspoken.rl.policy import Policy
from softspoken.rl.tracking import METRICS_FILE, Tracker
from softspoken.runtime import processes
from softspoken.runtime.interrupt import Interrupted, finishing
from softspoken.storage.run_folder import RunFolder, require_room
from softspoken.storage.unfinished import begin, require_same, settings_file, to_its_end
from softspoken.tasks.task import Task, asked, load_task
from softspoken.training.measuring import Clock
from softspoken.training.resuming import go_on_from
from softspoken.training.start import optimizer_of
from softspoken.types import Example, InputError, RunError, Scores, UpdateStats

log = logging.getLogger(__name__)

CHOSEN, REJECTED = "chosen", "rejected"


def dpo(config: DpoConfig) -> Path:
    """Train and write the adapter (or the model, where its own weights train) to `config.output`; returns that folder.

    While it trains, its checkpoints lie in OUTPUT/checkpoints; `resume` goes on from the last of them that is whole.

    >>> pairs = [{"text": f"Ann: Tea at {n}?", "chosen": f"Tea at {n}.", "rejected": "Tea."} for n in range(4)]
    >>> config = softspoken.DpoConfig(output="adapters/preferred", dataset=pairs, batch_size=2)
    >>> (softspoken.dpo(config) / "adapter_model.safetensors").is_file()
    True
    """
    require_config(config, DpoConfig, "dpo")
    say_what_is_idle(config)
    with_peft = replace(config, peft_config=read_peft_config(config.peft_config))
    inputs = [config.model, config.adapter, name_of(config.dataset)]
    with processes.joined(config.device):
        return to_its_end("dpo", config, inputs, partial(_train, with_peft))


def _train(config: DpoConfig, folder: RunFolder) -> None:
    tune_cpu()
    require_seq2seq(config.model)
    task = load_task(config.task)
    pairs = read_pairs(config, task)
    require_a_batch(pairs, config.batch_size)
    rows = [[pair.text, pair.columns[CHOSEN], pair.columns[REJECTED]] for pair in pairs]
    if config.resume and processes.first():
        require_same(config, rows, folder.path / settings_file("dpo"))
    settings = training_of(config, len(pairs))
    start = adapter_folder(config.adapter) if config.adapter else None
    asking = prompt_format_for(config.model, start, default=PromptFormat(task.template), **asked(task, config))
    policy = load_policy(settings, asking)
    require_target(policy.tokenizer, policy.seq2seq.generation_config)
    pairs = _encoded(pairs, policy, config.max_new_tokens)
    optimizer, scheduler = optimizer_of(policy, settings)
    require_room(folder.path, checkpoint_bytes(policy.trainable().values(), best=False), "its checkpoints")

    begin(folder, "dpo", config, rows)
    progress = load_checkpoint(folder.path, policy, optimizer) or Progress(0, config.beta, scheduler.state_dict())
    go_on_from(progress.schedule, optimizer, scheduler)
    batches = prompt_batches(
        pairs,
        deepcopy(policy.tokenizer),
        policy.prompt_format,
        batch_size=config.batch_size,
        seed=config.seed,
        first_step=progress.step,
        steps=settings.steps,
    )
    tracking = Tracker(folder, first_step=progress.step, steps=settings.steps, command="dpo")
    with finishing() as stop, tracking as tracker:
        for step, prompts in enumerate(batches, start=progress.step + 1):
            clock = Clock()
            stats = _step(policy, optimizer, prompts, settings)
            tracker.log(step, _metrics(stats, scheduler.get_last_lr()[0]) | clock.times())
            next_rate(scheduler)
            stopped_by = int(processes.largest(stop.asked or 0))  # whoever was asked, all stop at the same step
            if stopped_by or step % config.save_every == 0 or step == settings.steps:
                tracker.sync()
                save_checkpoint(folder, Progress(step, config.beta, scheduler.state_dict()), policy, optimizer)
            if stopped_by:
                raise Interrupted(stopped_by)
        if not tracker.optimizer_steps:
            raise RunError(
                f"none of the {settings.steps} steps of {folder.path} trained: the gradient of each was no finite number (ppo/skipped in "
                f"its {METRICS_FILE}); lower learning_rate or beta, and start again with --overwrite true"
            )
    with folder.replacing(".") as beside:
        policy.save(beside, config.max_new_tokens)


def _step(policy: Policy, optimizer: torch.optim.Optimizer, prompts: Any, settings: TrainConfig) -> UpdateStats:
    """One update by a batch of pairs: each prompt with two responses, the preferred one first."""
    labels = [pair.columns[kind] for pair in prompts.examples for kind in (CHOSEN, REJECTED)]
    index = [number for number in range(len(prompts.examples)) for _ in range(2)]
    rollout = given_rollout(policy, prompts, index, labels, settings)
    preference = Scores(torch.tensor([1.0, 0.0] * len(prompts.examples)), {})
    experience = chosen.build_experience(rollout, preference, settings, settings.kl_coef)
    return chosen.update(policy, optimizer, experience, settings, torch.Generator().manual_seed(settings.seed))


def _metrics(stats: UpdateStats, rate: float) -> dict[str, float]:
    return {
        "dpo/loss": stats.policy_loss,
        **{f"dpo/{name}": value for name, value in stats.own.items()},
        "dpo/kl": stats.approx_kl,
        "ppo/grad_norm": stats.grad_norm,
        "ppo/learning_rate": rate,
        "ppo/skipped": float(stats.skipped),
        "ppo/optimizer_steps": float(stats.optimizer_steps),
    }


def training_of(config: DpoConfig, pairs: int) -> TrainConfig:
    """What `train` would be told for the same updates."""
    return TrainConfig(
        algorithm="dpo",
        kl_coef=config.beta,
        kl_in="loss",
        task=config.task,
        model=config.model,
        adapter=config.adapter,
        steps=math.ceil(config.epochs * math.ceil(pairs / config.batch_size)),
        batch_size=config.batch_size,
        samples_per_prompt=2,
        ppo_epochs=1,
        target_kl=None,
        mini_batch_size=2 * config.batch_size,
        micro_batch_size=config.micro_batch_size,
        max_new_tokens=config.max_new_tokens,
        learning_rate=config.learning_rate,
        schedule=config.schedule,
        warmup_steps=config.warmup_steps,
        max_grad_norm=config.max_grad_norm,
        **config.shared(),
        device=config.device,
        seed=config.seed,
    )


# ------------------------------------------------------------------------------------------------------------ pairs


def read_pairs(config: DpoConfig, task: Task) -> list[Example]:
    """Examples whose columns hold the two responses, as `chosen` and `rejected`; pairs of the same response are left out, and counted.

    Raises InputError for a row that lacks one, unless those are to be skipped.
    """
    examples = load_examples(
        config.dataset,
        config.split,
        dataset_config=config.dataset_config,
        columns=columns_of_pairs(config, task),
        on_bad_row=config.on_bad_row,
        limit=config.max_examples,
        cleaned=task.clean,
    )
    pairs = list(_paired(examples, config))
    differing = [pair for pair in pairs if pair.columns[CHOSEN] != pair.columns[REJECTED]]
    if len(differing) < len(pairs):
        log.warning("left out %d of %d rows whose two responses are the same", len(pairs) - len(differing), len(pairs))
    if not differing:
        raise InputError(f"dataset {name_of(config.dataset)!r} has no row with two different responses; give one")
    return differing


def _paired(examples: list[Example], config: DpoConfig) -> Iterator[Example]:
    skipped = 0
    for example in examples:
        try:
            both = {
                kind: _response(example, column, config)
                for kind, column in ((CHOSEN, config.chosen_column), (REJECTED, config.rejected_column))
            }
        except InputError as error:
            if config.on_bad_row == "error":
                raise
            skipped += 1
            log.debug("skipped: %s", error)
        else:
            yield replace(example, columns=both)
    if skipped:
        log.warning("skipped %d rows of %s that lack a response", skipped, name_of(config.dataset))


def _response(example: Example, column: str, config: DpoConfig) -> str:
    found = value_of(example.columns, column)
    if not isinstance(found, str) or not found.strip():
        what = "a conversation; give its last message as text" if isinstance(found, list | dict) else "no text"
        flag = "chosen_column" if column == config.chosen_column else "rejected_column"
        raise InputError(
            f"{name_of(config.dataset)}: in the row of id {example.id!r} the column {column!r} ({flag}) holds {what}"
            + ("" if what != "no text" else f"; fill it in, name another with --{flag}, or pass --on_bad_row skip")
        )
    return found


def _encoded(pairs: list[Example], policy: Policy, max_new_tokens: int) -> list[Example]:
    """With the responses' ids in place of their texts; how many were cut is said, and how many ids the model can never write."""
    generation, end, cut = policy.seq2seq.generation_config, policy.tokenizer.eos_token_id, 0
    ids: dict[str, list[list[int]]] = {}
    for kind in (CHOSEN, REJECTED):
        whole = label_ids([pair.columns[kind] for pair in pairs], policy.tokenizer, generation)
        ids[kind] = [ended(label, end, max_new_tokens) for label in whole]
        cut += sum(len(before) > len(after) for before, after in zip(whole, ids[kind], strict=True))
    if cut:
        log.warning("cut %d of %d responses to %d tokens (max_new_tokens)", cut, 2 * len(pairs), max_new_tokens)
    never = sum(int(policy.forbidden[torch.tensor(label)].sum()) for labels in ids.values() for label in labels)
    if never:
        log.warning("left out %d tokens of the responses that this model can never write (suppress_tokens, say)", never)
    return [replace(pair, columns={kind: ids[kind][row] for kind in ids}) for row, pair in enumerate(pairs)]
