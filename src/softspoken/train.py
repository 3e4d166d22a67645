"""The training loop: sample, score, shape, optimise, measure, and what comes before and after it."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from softspoken.config import TrainConfig
from softspoken.config.kinds import require_config
from softspoken.data.batches import one_ahead, padding_share, prompt_batches, require_a_batch
from softspoken.data.holding_out import TRAINED_ON, digests
from softspoken.data.prompts import PromptFormat
from softspoken.data.reading import require_references
from softspoken.hub import push, require_pushable
from softspoken.models.cpu import tune_cpu
from softspoken.models.generation import require_finite
from softspoken.models.learning_rates import next_rate
from softspoken.models.pretrained import require_seq2seq
from softspoken.models.trained import read_peft_config
from softspoken.report.report import CARD_FILE, REPORT_FILE, model_card, report_page
from softspoken.rewards.terms import WeightedReward, load_reward
from softspoken.rl import chosen, groups, ppo
from softspoken.rl.checkpoint import FOLDER as CHECKPOINTS
from softspoken.rl.checkpoint import Progress, checkpoint_bytes, load_checkpoint, prune, save_checkpoint, saved_config
from softspoken.rl.loading import load_policy
from softspoken.rl.optimise import require_moved
from softspoken.rl.policy import Policy
from softspoken.rl.ppo import next_kl_coef
from softspoken.rl.rollout import generate_rollout
from softspoken.rl.scaling import scaled, too_short, with_floor, with_opinions
from softspoken.rl.tracking import METRICS_FILE, Tracker
from softspoken.runtime import processes
from softspoken.runtime.interrupt import Interrupted, finishing
from softspoken.runtime.repeating import repeatable
from softspoken.storage.run_folder import RunFolder, require_room
from softspoken.tasks.task import Task, load_task, reward_of
from softspoken.training.boards import Boards, require_boards
from softspoken.training.final_evaluation import evaluate_run, evaluation_of, require_evaluation
from softspoken.training.focus import FOCUS_FILE, focus_on, sizes
from softspoken.training.fresh import sample_fresh, with_fresh_texts
from softspoken.training.keeping import end, forget_end, start_figures
from softspoken.training.measuring import Clock, metrics_of
from softspoken.training.resuming import Changes, continued, go_on_from, reopened, require_steps_left
from softspoken.training.start import (
    CONFIG_FILE,
    Evaluated,
    folder_of,
    judges_of,
    optimizer_of,
    prompt_format_of,
    record,
    result_of,
    say_how_it_begins,
    training_examples,
)
from softspoken.training.validation import Validation, held_out, validation_of
from softspoken.training.watch import Watched, after_evaluation, after_step, is_good, watched_of
from softspoken.types import Example, InputError, PromptBatch, Rollout, RunError, Scores, Step

log = logging.getLogger(__name__)

ALGORITHMS: dict[str, Any] = {"ppo": ppo, "rloo": groups, "grpo": groups, "best_of_n": chosen, "dpo": chosen}
"""Where each algorithm's steps 3 and 4 are."""


OnStep = Callable[[Step], Any]


def train(
    config: TrainConfig,
    *,
    on_step: OnStep | None = None,
    on_evaluate: OnStep | None = None,
    on_end: Callable[[Path], Any] | None = None,
) -> Path:
    """Run `config` (or go on with the run it resumes), write the run's folder (design: config, metrics, checkpoints, adapter,
    evaluation, report) and return it. Raises InputError before anything is written if something it needs is missing.

    `on_step` is called with each Step, `on_evaluate` with those that were evaluated (eval_every), `on_end` with the folder when all is
    written. A callback that returns False ends the training there, as patience does: what was trained is evaluated and reported. Of
    several processes the first alone calls them.

    >>> config = softspoken.TrainConfig(steps=2, batch_size=4, max_examples=8, eval_limit=0, output="runs/tiny")
    >>> run = softspoken.train(config, on_step=lambda step: print(step.number))
    1
    2
    >>> (run / "adapter" / "adapter_model.safetensors").is_file()
    True
    """
    for name, callback in (("on_step", on_step), ("on_evaluate", on_evaluate), ("on_end", on_end)):
        if not (callback is None or callable(callback)):
            raise InputError(f"{name} {callback!r} cannot be used: give a function")
    answer: bool | None = None
    with closing(_running(config)) as running:
        while True:
            try:
                step = running.send(answer)
            except StopIteration as end:
                path: Path = end.value
                break
            if not processes.first():
                continue
            said = [on_step(step) if on_step else None]
            said += [on_evaluate(step)] if on_evaluate and step.evaluation else []
            answer = None if all(one is not False for one in said) else False
    if on_end and processes.first():
        on_end(path)
    return path


def steps(config: TrainConfig) -> Iterator[Step]:
    """The same, a Step at a time, to look at and plot: `for step in softspoken.steps(config)`.

    Who leaves the loop leaves a run that `train(TrainConfig(resume=...))` goes on with; at its end all is written, as by `train`.

    >>> config = softspoken.TrainConfig(steps=1, batch_size=4, max_examples=8, eval_limit=0, output="runs/looked-at")
    >>> [step.number for step in softspoken.steps(config)]
    [1]
    """
    with closing(_running(config)) as running:
        yield from running


Running = Generator[Step, "bool | None", Path]
"""Steps; it is sent False where training is to end; the run's folder at the end."""


def _running(config: TrainConfig) -> Running:
    require_config(config, TrainConfig, "train")
    resumed = config.resume is not None
    with processes.joined(config.device), folder_of(config) as folder, ExitStack() as held:
        changes: Changes = {}
        if config.resume:
            config, changes = continued(saved_config(folder.path / CONFIG_FILE), config)
        held.enter_context(repeatable(config.deterministic))
        task = load_task(config.task)
        config = replace(config, peft_config=read_peft_config(config.peft_config))
        if config.reward is None:
            config = replace(config, reward=reward_of(task, config.measure))
        try:
            yield from _run(config, task, folder, changes)
        except Interrupted as stopped:
            if resumed or folder.has(CONFIG_FILE):
                stopped.go_on = f"softspoken train --resume {shlex.quote(str(folder.path))}"
            raise
        return folder.path


def _run(config: TrainConfig, task: Task, folder: RunFolder, changes: Changes) -> Generator[Step, bool | None, None]:
    prepared = _prepare(config, task, folder, changes)
    yield from _learn(prepared, folder)
    if config.eval_limit != 0:
        evaluate_run(evaluation_of(config, task, prepared.prompt_format, folder.path, prepared.at_end), folder)
    card = model_card(folder.path)
    folder.write(CARD_FILE, card)
    folder.write(f"{result_of(config)}/{CARD_FILE}", card)
    folder.write(REPORT_FILE, report_page(folder.path))
    if config.push_to_hub and processes.first():
        result = folder.path / result_of(config)
        files = sorted(path.name for path in result.iterdir() if path.is_file())
        log.info("uploaded to %s", push(result, config.push_to_hub, files=files, private=config.private))


@dataclass(frozen=True)
class _Prepared:
    """What a run is made of, opened and checked."""

    config: TrainConfig
    task: Task
    prompt_format: PromptFormat
    examples: list[Example]
    """What is trained on."""
    at_end: Evaluated
    focus: str | None
    """What becomes of it in a file: how hot each text is."""
    reward: WeightedReward
    validation: Validation | None
    changes: Changes


def _prepare(config: TrainConfig, task: Task, folder: RunFolder, changes: Changes) -> _Prepared:
    """Nothing is written yet. Raises InputError for whatever the run would miss later, its evaluation too."""
    if config.fast:
        tune_cpu()
    require_seq2seq(config.model)
    require_boards(config)
    if config.push_to_hub:
        require_pushable(config.push_to_hub)
    examples, at_end = training_examples(config, task)
    examples, apart = held_out(examples, config)
    require_a_batch(
        examples[: sum(sizes(len(examples), config))] if config.focus != "none" else examples, config.batch_size
    )
    assert config.reward
    prompt_format = prompt_format_of(config, task)
    if config.eval_limit != 0:
        require_evaluation(config, evaluation_of(config, task, prompt_format, folder.path, at_end), task)
    reward = load_reward(config.reward, device=config.device, detoxify_sha256=config.detoxify_sha256)
    if reward.needs_references:
        require_references([*examples, *apart], config.dataset, reward.needs_references[0])
    reward.require_columns([*examples, *apart])
    validation = validation_of(config, task, apart, reward, judges_of(config, task))
    examples, focus = focus_on(config, task, examples, folder.path)
    return _Prepared(config, task, prompt_format, examples, at_end, focus, reward, validation, changes)


def _begin(
    run: _Prepared, folder: RunFolder, policy: Policy, optimizer: torch.optim.Optimizer, scheduler: Any
) -> tuple[Progress, Watched]:
    """The run's first files, or the last whole checkpoint of one that goes on."""
    config, changes = run.config, run.changes
    folder.begin()
    progress = load_checkpoint(folder.path, policy, optimizer) or Progress(0, config.kl_coef, scheduler.state_dict())
    watched = reopened(watched_of(progress.watched, folder.path / CHECKPOINTS), changes)
    require_steps_left(config, progress.step, changes)
    if not folder.has(CONFIG_FILE):
        say_how_it_begins(config, len(run.examples), run.at_end)
    # The first file of all: what is stopped before it is begun anew, and what is stopped after it gone on with.
    if changes or not folder.has(CONFIG_FILE):
        folder.write(CONFIG_FILE, record(config, run.task, changes, progress.step, folder.path / CONFIG_FILE))
    if run.focus:
        folder.write(FOCUS_FILE, run.focus)
    if not folder.has(TRAINED_ON):
        folder.write(TRAINED_ON, "\n".join(digests(run.examples)) + "\n")
    if progress.step < config.steps and not watched.ended:  # what an end that is none any more left
        forget_end(folder)
    go_on_from(progress.schedule, optimizer, scheduler)
    return progress, watched


def _batches(run: _Prepared, policy: Policy, done: int, last: int) -> Generator[PromptBatch, None, None]:
    """Those of the steps after `done`, to `last`."""
    config = run.config
    batches = prompt_batches(
        run.examples,
        deepcopy(policy.tokenizer),  # another thread may use it
        policy.prompt_format,
        batch_size=config.batch_size,
        seed=config.seed,
        first_step=done,
        steps=last,
    )
    if config.fast and policy.device.type == "cuda":  # on a CPU the thread would take from what it runs beside
        return one_ahead(batches, policy.device)
    return batches


def _learn(run: _Prepared, folder: RunFolder) -> Generator[Step, bool | None, None]:
    """The steps, and the adapter they end in; a function of its own, so that their memory is free for the evaluation."""
    config, task, reward, validation = run.config, run.task, run.reward, run.validation
    # The largest comes last: what is wrong with the rest is said in seconds.
    policy = load_policy(config, run.prompt_format)
    optimizer, scheduler = optimizer_of(policy, config)
    if processes.first():  # which alone writes
        needed = checkpoint_bytes(policy.trainable().values(), best=validation is not None)
        require_room(folder.path, needed, "its checkpoints")
    progress, watched = _begin(run, folder, policy, optimizer, scheduler)
    kl_coef, seen_to_move = progress.kl_coef, False
    batches = _batches(run, policy, progress.step, progress.step if watched.ended else config.steps)
    step = watched.ended_step if watched.ended else progress.step
    with (
        ExitStack() as after,
        finishing() as stop,
        closing(batches),
        Boards(config, folder) as boards,
        Tracker(folder, first_step=step, steps=config.steps, shown=boards.log) as tracker,
    ):
        # Of what refers to the policy, as it does to that: else both would stay for a while.
        after.callback(policy.let_go)
        if validation and not watched.start:
            watched = replace(watched, start=start_figures(validation, policy, progress.step, task))
        for step, prompts in enumerate(batches, start=progress.step + 1):
            clock, cut_before = Clock(), reward.truncated
            done = _step(
                run, policy, optimizer, prompts, step, kl_coef, clock
            )  # 1 sample, 2 score, 3 shape, 4 optimise
            # Samples that all score alike teach nothing: the first step with an advantage is the proof.
            if not seen_to_move and done.taught:
                require_moved(policy, optimizer)
                seen_to_move = True
            metrics = done.metrics | {
                "ppo/kl_coef": kl_coef,
                "ppo/learning_rate": scheduler.get_last_lr()[0],
                "tokens/padding_share": padding_share(prompts),
                "tokens/reward_cut": float(reward.truncated - cut_before),
            }
            watched, figures = after_step(watched, step, metrics, config), None
            if validation and (step % validation.every == 0 or step == config.steps) and not watched.collapsed:
                figures = validation(policy)
                watched = after_evaluation(watched, step, figures, task, config)
                metrics |= {f"eval/{name}": figure for name, figure in figures.items()}
                clock.lap("evaluate")
            metrics |= clock.times()
            tracker.log(step, metrics)  # 5 measure
            kl_coef = next_kl_coef(
                kl_coef, metrics.get("objective/kl", config.kl_target), len(done.rollout.responses), config
            )
            next_rate(scheduler)
            # A run that is resumed here starts without one and must give the same last digits; and hardly a text comes twice.
            reward.clear_cache()
            left: BaseException | None = None
            enough = False
            try:
                enough = (yield Step(step, config.steps, metrics, *done.said, evaluation=figures)) is False
            except BaseException as error:  # whoever looped over the steps has left
                left = error
            # Whichever process was asked or has had enough, all stop at the same step.
            asked, enough = map(max, zip(*processes.gather([stop.asked or 0, enough]), strict=True))
            if enough and not watched.ended:
                watched = replace(watched, ended="a callback returned False", ended_step=step)
            due = asked or left or watched.ended or watched.best_step == step or step % config.save_every == 0
            if (due or step == config.steps) and is_good(watched, asked or left):  # 6 evaluate and checkpoint when due
                tracker.sync()
                now = Progress(step, kl_coef, scheduler.state_dict(), asdict(watched))
                save_checkpoint(folder, now, policy, optimizer, watched.best_step)
            if left:
                raise left
            if asked:
                raise Interrupted(asked)
            if watched.ended:
                break
        if not tracker.optimizer_steps:
            raise RunError(
                f"none of the {config.steps} steps of {folder.path} trained: all their responses were shorter than min_response_chars "
                f"{config.min_response_chars} (tokens/short in its {METRICS_FILE}), or all that answer a text scored alike (groups/alike), "
                "or their updates were left out (ppo/skipped)"
            )

    prune(folder, watched.best_step)  # a stop may have come in the middle of the last time
    end(config, watched, step, folder, policy, optimizer)


# --------------------------------------------------------------------------------------------------- in the loop


@dataclass(frozen=True)
class _Done:
    """What a step came to."""

    rollout: Rollout
    scores: Scores | None
    """None where every response was too short: none is better than another, and nothing was learned."""
    metrics: dict[str, float]
    taught: bool
    """Whether a weight should have moved."""

    @property
    def said(self) -> tuple[list[str], list[str], list[float]]:
        """The text that each response answers, the responses, and their scores."""
        examples, index = self.rollout.prompts.examples, self.rollout.prompt_index.tolist()
        texts = [examples[place].text for place in index]
        return texts, self.rollout.responses, self.scores.total.tolist() if self.scores else []


def _step(
    run: _Prepared,
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    prompts: PromptBatch,
    step: int,
    kl_coef: float,
    clock: Clock,
) -> _Done:
    config, algorithm = run.config, ALGORITHMS[run.config.algorithm]
    draws, replaced = _generator(config, step, purpose=0), 0
    policy.thin(draws)
    rollout = generate_rollout(policy, prompts, config, draws)  # 1 sample
    require_finite(rollout.old_logprobs, f"step {step}")
    short = too_short(rollout, config.min_response_chars)
    clock.lap("sample")
    if short.all():
        return _Done(rollout, None, {"ppo/skipped": 1.0} | _counts(config, rollout, short, replaced), taught=False)
    scores = _scores(run.reward, rollout, short, config)  # 2 score
    clock.lap("score")
    if config.dynamic_sampling:
        draw = partial(sample_fresh, policy, run.examples, partial(_scores, run.reward), config, draws)
        rollout, scores, replaced = with_fresh_texts(rollout, scores, draw, config, policy.pad_id)
        short = too_short(rollout, config.min_response_chars)
        clock.lap("fresh")
    experience = algorithm.build_experience(rollout, scores, config, kl_coef)  # 3 shape: KL, advantages
    stats = algorithm.update(policy, optimizer, experience, config, _generator(config, step, purpose=1))  # 4 optimise
    clock.lap("update")
    metrics = metrics_of(experience, stats, config) | _counts(config, rollout, short, replaced)
    return _Done(rollout, scores, metrics, taught=bool(stats.optimizer_steps and experience.advantages.any()))


def _counts(config: TrainConfig, rollout: Rollout, short: Tensor, replaced: int) -> dict[str, float]:
    return {
        "tokens/prompts_truncated": float(rollout.prompts.truncated),
        "tokens/short": float(short.sum()),
        **({"groups/replaced": float(replaced)} if config.dynamic_sampling else {}),
    }


def _generator(config: TrainConfig, step: int, purpose: int) -> torch.Generator:
    """Random numbers of one step for one purpose, the same whether or not the run was stopped before it."""
    return torch.Generator().manual_seed((config.seed * 1_000_003 + step) * 2 + purpose)


def _scores(reward: WeightedReward, rollout: Rollout, short: Tensor, config: TrainConfig) -> Scores:
    """The reward's, which is asked about the summaries that are long enough, and a floor under them for the others."""
    asked, index = (~short).nonzero().squeeze(1).tolist(), rollout.prompt_index.tolist()
    own = asked[processes.share(len(asked))]
    scores = reward([rollout.responses[row] for row in own], [rollout.prompts.examples[index[row]] for row in own])
    terms = {name: processes.gather_rows(term) for name, term in scores.terms.items()}
    scores = Scores(processes.gather_rows(scores.total), terms)
    prompt_index = rollout.prompt_index.cpu()[~short]
    scores = with_opinions(scaled(scores, reward.weights, prompt_index, config.reward_scaling), prompt_index)
    return with_floor(scores, short, rollout, config.short_margin)
