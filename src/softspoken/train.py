"""The training loop: sample, score, shape, optimise, measure, and what comes before and after it."""

from __future__ import annotations

import importlib.metadata
import logging
import shlex
import sys
import time
from contextlib import closing
from copy import deepcopy
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from softspoken.config import EvaluateConfig, TrainConfig
from softspoken.config.ranges import factors, reward_weights
from softspoken.data.batches import one_ahead, padding_share, prompt_batches, require_a_batch
from softspoken.data.prompts import PromptFormat
from softspoken.data.reading import is_given, name_of, read_examples, record_of, require_references
from softspoken.evaluation.evaluate import measure_prepared, prepare, recorded, require_examples
from softspoken.evaluation.rows import ROWS_FILE, OtherEvaluation, discard, is_started
from softspoken.evaluation.systems import TUNED
from softspoken.interrupt import Interrupted, finishing
from softspoken.models.adapters import adapter_folder
from softspoken.models.cpu import tune_cpu
from softspoken.models.learning_rates import learning_rates
from softspoken.models.pretrained import prompt_format_for, require_seq2seq, resolve_device
from softspoken.report.report import CARD_FILE, EVAL_FILE, REPORT_FILE, model_card, read_report, report_page
from softspoken.rewards.terms import WeightedReward, default_judge, judge_term, load_judge, load_reward
from softspoken.rl import groups, numerics, ppo
from softspoken.rl.checkpoint import Progress, load_checkpoint, save_checkpoint, saved_config
from softspoken.rl.numerics import masked_mean
from softspoken.rl.policy import VALUE_HEAD_FILE, Policy, load_policy, require_moved
from softspoken.rl.ppo import next_kl_coef
from softspoken.rl.rollout import generate_rollout, require_finite, too_short, with_floor
from softspoken.rl.tracking import METRICS_FILE, Tracker
from softspoken.run_folder import RunFolder, require_place
from softspoken.tasks.task import Task, asked, load_task, reward_of, told
from softspoken.types import Example, Experience, InputError, Rollout, RunError, Scores, UpdateStats

log = logging.getLogger(__name__)

CONFIG_FILE = "config.yaml"
ADAPTER = "adapter"
PACKAGES = ("softspoken", "torch", "transformers", "peft", "accelerate", "datasets", "tokenizers")


def train(config: TrainConfig) -> Path:
    """Run `config` (or go on with the run it resumes), write the run's folder (design: config, metrics, checkpoints, adapter,
    evaluation, report) and return it. Raises InputError before anything is written if something it needs is missing."""
    resumed = config.resume is not None
    with _folder(config) as folder:
        if config.resume:
            config = _with_rows(saved_config(folder.path / CONFIG_FILE), config)
        task = load_task(config.task)
        if config.reward is None:
            config = replace(config, reward=reward_of(task, config.measure))
        try:
            _run(config, task, folder)
        except Interrupted as stopped:
            if resumed or folder.has(CONFIG_FILE):
                stopped.go_on = f"softspoken train --resume {shlex.quote(str(folder.path))}"
            raise
        return folder.path


def _run(config: TrainConfig, task: Task, folder: RunFolder) -> None:
    if config.fast:
        tune_cpu()
    require_seq2seq(config.model)
    examples = read_examples(config, task, config.max_examples)
    require_a_batch(examples, config.batch_size)
    assert config.reward
    prompt_format = _prompt_format(config, task)
    if config.eval_limit != 0:
        _require_evaluation(config, _evaluation(config, task, prompt_format, folder.path))
    reward = load_reward(config.reward, device=config.device, detoxify_sha256=config.detoxify_sha256)
    if reward.needs_references:
        require_references(examples, config.dataset, reward.needs_references[0])
    _learn(config, task, prompt_format, folder, examples, reward)
    if config.eval_limit != 0:
        _evaluate(_evaluation(config, task, prompt_format, folder.path), folder)
    card = model_card(folder.path)
    folder.write(CARD_FILE, card)
    folder.write(f"{ADAPTER}/{CARD_FILE}", card)
    folder.write(REPORT_FILE, report_page(folder.path))


def _learn(
    config: TrainConfig,
    task: Task,
    prompt_format: PromptFormat,
    folder: RunFolder,
    examples: list[Example],
    reward: WeightedReward,
) -> None:
    """The steps, and the adapter they end in; a function of its own, so that their memory is free for the evaluation."""
    # The largest comes last: what is wrong with the rest is said in seconds.
    policy = load_policy(config, prompt_format)
    optimizer, scheduler = _optimizer(policy, config)

    folder.begin()
    if not folder.has(CONFIG_FILE):
        folder.write(CONFIG_FILE, _record(config, task))
    progress = load_checkpoint(folder.path, policy, optimizer) or Progress(0, config.kl_coef, scheduler.state_dict())
    if progress.step < config.steps:  # what an end that is none any more left
        discard(folder)
        folder.remove(ADAPTER, EVAL_FILE, ROWS_FILE, CARD_FILE, REPORT_FILE)
    scheduler.load_state_dict(progress.schedule)
    for group, rate in zip(optimizer.param_groups, scheduler.get_last_lr(), strict=True):
        group["lr"] = rate  # a scheduler's state does not bring the optimizer's rate with it
    kl_coef = progress.kl_coef
    algorithm = ppo if config.algorithm == "ppo" else groups
    seen_to_move = False

    batches = prompt_batches(
        examples,
        deepcopy(policy.tokenizer),  # another thread may use it
        policy.prompt_format,
        batch_size=config.batch_size,
        seed=config.seed,
        first_step=progress.step,
        steps=config.steps,
    )
    if config.fast and policy.device.type == "cuda":  # on a CPU the thread would take from what it runs beside
        batches = one_ahead(batches, policy.device)
    with (
        finishing() as stop,
        closing(batches),
        Tracker(folder, first_step=progress.step, steps=config.steps) as tracker,
    ):
        for step, prompts in enumerate(batches, start=progress.step + 1):
            clock = _Clock()
            rollout = generate_rollout(policy, prompts, config, _generator(config, step, purpose=0))  # 1 sample
            require_finite(rollout.old_logprobs, f"step {step}")
            short = too_short(rollout, config.min_response_chars)
            clock.lap("sample")
            if not short.all():
                scores = _scores(reward, rollout, short, config)  # 2 score
                clock.lap("score")
                experience = algorithm.build_experience(rollout, scores, config, kl_coef)  # 3 shape: KL, advantages
                stats = algorithm.update(  # 4 optimise
                    policy, optimizer, experience, config, _generator(config, step, purpose=1)
                )
                clock.lap("update")
                # Samples that all score alike teach nothing: the first step with an advantage is the proof.
                if not seen_to_move and stats.optimizer_steps and experience.advantages.any():
                    require_moved(policy)
                    seen_to_move = True
                metrics = _metrics(experience, stats, config)
            else:  # every summary was too short: none is better than another
                metrics = {"ppo/skipped": 1.0}
            metrics |= {
                "ppo/kl_coef": kl_coef,
                "ppo/learning_rate": scheduler.get_last_lr()[0],
                "tokens/padding_share": padding_share(prompts),
                "tokens/prompts_truncated": float(prompts.truncated),
                "tokens/short": float(short.sum()),
            }
            tracker.log(step, metrics | clock.times())  # 5 measure
            kl_coef = next_kl_coef(
                kl_coef, metrics.get("objective/kl", config.kl_target), len(rollout.responses), config
            )
            scheduler.step()
            stopped_by = stop.asked
            due = stopped_by or step % config.save_every == 0 or step == config.steps
            if due:  # 6 evaluate and checkpoint when due
                tracker.sync()
                save_checkpoint(folder, Progress(step, kl_coef, scheduler.state_dict()), policy, optimizer)
            # A run that is resumed here starts without one and must give the same last digits; and hardly a text comes twice.
            reward.clear_cache()
            if stopped_by:
                raise Interrupted(stopped_by)
        if not tracker.optimizer_steps:
            raise RunError(
                f"none of the {config.steps} steps of {folder.path} trained: all their summaries were shorter than min_response_chars "
                f"{config.min_response_chars} (tokens/short in its {METRICS_FILE}), or their updates were left out (ppo/skipped)"
            )

    if not folder.has(f"{ADAPTER}/adapter_config.json"):
        with folder.replacing(ADAPTER) as beside:
            policy.save(beside, config.max_new_tokens)
    policy.sampling_buffers.clear()  # they refer to the policy, and it to them


# ------------------------------------------------------------------------------------------------- before the loop


def _optimizer(policy: Policy, config: TrainConfig) -> tuple[torch.optim.Optimizer, Any]:
    groups = [
        {"params": list(policy.adapter_parameters().values()), "lr": config.learning_rate},
        {"params": list(policy.value_head.parameters()), "lr": config.value_learning_rate},
    ]
    optimizer = torch.optim.AdamW(groups, eps=config.adam_epsilon, weight_decay=config.weight_decay)
    # One step more than there are, so that the last one still trains.
    return optimizer, learning_rates(optimizer, config.schedule, config.warmup_steps, config.steps + 1)


def _folder(config: TrainConfig) -> RunFolder:
    if config.resume is not None:
        path = Path(config.resume) / CONFIG_FILE
        if not path.is_file():
            raise InputError(f"resume: no run at {path.parent} (it has no {CONFIG_FILE}); give the folder of a run")
        return RunFolder(path.parent, add=True)
    if config.output is None:
        name = f"{Path(config.model).name}-{datetime.now().strftime('%Y%m%d-%H%M%S')}"
        return RunFolder(Path("runs") / name, numbered=True)
    sets = [name_of(rows) for rows in (config.dataset, config.eval_dataset) if rows is not None]
    rewards = list(reward_weights(config.reward)) if config.reward else []
    require_place(config.output, [config.model, config.adapter, *sets, *rewards, *(config.judge or [])])
    return RunFolder(config.output, replace=config.overwrite, go_on=f"--resume {config.output}")


def _record(config: TrainConfig, task: Task) -> str:
    record = {
        "config": asdict(_named(config)),
        "task": told(task),
        "versions": {"python": sys.version.split()[0], **{name: importlib.metadata.version(name) for name in PACKAGES}},
        "threads": torch.get_num_threads(),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }
    return yaml.safe_dump(record, sort_keys=False)


def _named(config: TrainConfig) -> TrainConfig:
    """With names for rows that were given in Python."""
    others = config.eval_dataset
    return replace(
        config, dataset=record_of(config.dataset), eval_dataset=None if others is None else record_of(others)
    )


def _with_rows(saved: TrainConfig, given: TrainConfig) -> TrainConfig:
    """The configuration of a run; rows that it was given in Python must be `given` again."""
    rows: dict[str, Any] = {}
    for field in ("dataset", "eval_dataset"):
        name, now = getattr(saved, field), getattr(given, field)
        if is_given(name):
            if now is None or record_of(now) != name:
                raise InputError(
                    f"resume: {field} of {given.resume} is {name}; give the same again, as "
                    f"train(TrainConfig(resume=…, {field}=rows))"
                )
            rows[field] = now
    return replace(saved, **rows)


def _prompt_format(config: TrainConfig, task: Task) -> PromptFormat:
    start = adapter_folder(config.adapter) if config.adapter else None
    return prompt_format_for(config.model, start, default=PromptFormat(task.template), **asked(task, config))


def _require_evaluation(config: TrainConfig, evaluation: EvaluateConfig) -> None:
    """Open what the evaluation after the training will need, and let it go again; the reward's own judges are opened anyway."""
    assert config.reward
    require_examples(evaluation)
    device = str(resolve_device(config.device))
    for spec in {*(evaluation.judge or [])} - {
        factor for term in reward_weights(config.reward) for factor in factors(term)
    }:
        load_judge(spec, device=device, detoxify_sha256=config.detoxify_sha256)


def _start_name(adapter: str) -> str:
    """What the adapter that training went on from is called: a warm start is an alternative to all that came after it."""
    return "start" if (adapter_folder(adapter) / VALUE_HEAD_FILE).is_file() else "sft"


def _evaluation(config: TrainConfig, task: Task, prompt_format: PromptFormat, run: Path) -> EvaluateConfig:
    assert config.reward
    term = judge_term(config.reward)
    judge = config.judge or ([default_judge(config.reward)] if term or task.judge else None)
    start = [f"{_start_name(config.adapter)}={config.adapter}"] if config.adapter else []
    return EvaluateConfig(
        output=str(run),
        task=config.task,
        model=config.model,
        adapter=[*start, f"{TUNED}={run / ADAPTER}"],
        dataset=config.dataset if config.eval_dataset is None else config.eval_dataset,
        split=config.eval_split or "test",
        dataset_config=config.dataset_config if config.eval_dataset is None else None,
        text_column=config.text_column,
        reference_column=config.reference_column,
        judge=judge,
        measure=config.measure,
        baseline=(list(task.baselines) if config.eval_baseline is None else config.eval_baseline) or None,
        detoxify_sha256=config.detoxify_sha256,
        limit=config.eval_limit,
        on_bad_row=config.on_bad_row,
        samples=config.eval_samples,
        max_new_tokens=config.max_new_tokens,  # the base's own limit may be another, as may its prompt
        prompt_template=prompt_format.template,
        max_prompt_tokens=prompt_format.max_prompt_tokens,
        truncation_side=prompt_format.truncation_side,
        source_language=prompt_format.source_language,
        target_language=prompt_format.target_language,
        batch_size=config.eval_batch_size,
        device=config.device,
        seed=config.seed,
    )


def _evaluate(evaluation: EvaluateConfig, folder: RunFolder) -> None:
    """Unless a run that was stopped has it already, whole or in part."""
    prepared = prepare(evaluation)
    whole = folder.has(EVAL_FILE) and not is_started(folder.path)
    if whole and read_report(folder.path).config == recorded(prepared.config):
        return
    try:
        measure_prepared(prepared, folder, resume=True)
    except OtherEvaluation as error:
        log.warning("%s; measuring again", str(error).partition(";")[0])
        measure_prepared(prepared, folder, resume=False)


# --------------------------------------------------------------------------------------------------- in the loop


def _generator(config: TrainConfig, step: int, purpose: int) -> torch.Generator:
    """Random numbers of one step for one purpose, the same whether or not the run was stopped before it."""
    return torch.Generator().manual_seed((config.seed * 1_000_003 + step) * 2 + purpose)


def _scores(reward: WeightedReward, rollout: Rollout, short: Tensor, config: TrainConfig) -> Scores:
    """The reward's, which is asked about the summaries that are long enough, and a floor under them for the others."""
    asked, index = (~short).nonzero().squeeze(1).tolist(), rollout.prompt_index.tolist()
    scores = reward([rollout.responses[row] for row in asked], [rollout.prompts.examples[index[row]] for row in asked])
    return with_floor(scores, short, rollout, config.short_margin)


def _metrics(experience: Experience, stats: UpdateStats, config: TrainConfig) -> dict[str, float]:
    rollout, scores, mask = experience.rollout, experience.scores, experience.rollout.response_mask
    logratio = rollout.old_logprobs - rollout.ref_logprobs
    metrics = {
        "objective/score": scores.total.mean().item(),
        "objective/score_std": scores.total.std(correction=0).item(),
    }
    if judge := judge_term(config.reward or {}):
        metrics["objective/toxicity"] = 1 - scores.terms[judge].nanmean().item()
    if rollout.mismatch is not None:
        metrics["objective/sampling_mismatch"] = rollout.mismatch
    if experience.returns is not None:
        metrics |= {
            "ppo/value/loss": stats.value_loss,
            "ppo/value/explained_variance": stats.explained_variance,
            "ppo/value/grad_norm": stats.value_grad_norm,
        }
    return metrics | {
        **{f"objective/score/{name}": term.nanmean().item() for name, term in scores.terms.items()},
        "objective/kl": masked_mean(logratio, mask).item(),
        "objective/kl_stderr": (numerics.masked_var(logratio, mask) / mask.sum()).sqrt().item(),
        "objective/kl_k2": masked_mean(numerics.kl_k2(logratio), mask).item(),
        "objective/kl_k3": masked_mean(numerics.kl_k3(logratio), mask).item(),
        "objective/entropy": stats.entropy,
        "ppo/policy/loss": stats.policy_loss,
        "ppo/policy/clip_fraction": stats.clip_fraction,
        "ppo/policy/approx_kl": stats.approx_kl,
        "ppo/policy/ratio_mean": stats.ratio_mean,
        "ppo/grad_norm": stats.grad_norm,
        "ppo/skipped": float(stats.skipped),
        "ppo/optimizer_steps": float(stats.optimizer_steps),
        "tokens/response_mean": mask.sum(dim=1).float().mean().item(),
        "tokens/truncated_share": rollout.truncated.float().mean().item(),
    }


class _Clock:
    def __init__(self) -> None:
        self.start = self.last = time.perf_counter()
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[f"time/{name}"], self.last = now - self.last, now

    def times(self) -> dict[str, float]:
        return {**self.laps, "time/step": time.perf_counter() - self.start}
