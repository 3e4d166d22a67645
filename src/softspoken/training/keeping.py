"""How a run's training ends: which weights are kept, what is written of that, and what an end that is none any more leaves."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, replace

import torch

from softspoken.config import TrainConfig
from softspoken.evaluation.rows import ROWS_FILE, discard
from softspoken.report.end_record import END_FILE, read_end
from softspoken.report.report import CARD_FILE, EVAL_FILE, REPORT_FILE
from softspoken.rl.checkpoint import load_checkpoint, load_weights, save_checkpoint
from softspoken.rl.policy import VALUE_HEAD_FILE, Policy
from softspoken.runtime import processes
from softspoken.storage.run_folder import RunFolder
from softspoken.tasks.task import Task
from softspoken.training.start import ADAPTER, MODEL, result_of
from softspoken.training.validation import Validation, require_objective
from softspoken.training.watch import Watched
from softspoken.types import InputError, RunError

log = logging.getLogger(__name__)


def start_figures(validation: Validation, policy: Policy, done: int, task: Task) -> dict[str, float]:
    """Of what training started from, for a run that is to be evaluated while it trains."""
    if done and not policy.has_reference:
        raise InputError(
            "resume: eval_every needs the weights that this run started from, of which it kept no copy (kl_coef 0); leave it out"
        )
    figures = validation(policy, reference=done > 0)
    require_objective(figures, task)
    return figures


def forget_end(folder: RunFolder) -> None:
    """What was written after the last step of a run that goes on, or ends in other weights."""
    discard(folder)
    folder.remove(ADAPTER, MODEL, END_FILE, EVAL_FILE, ROWS_FILE, CARD_FILE, REPORT_FILE)


def end(
    config: TrainConfig,
    watched: Watched,
    step: int,
    folder: RunFolder,
    policy: Policy,
    optimizer: torch.optim.Optimizer,
) -> None:
    """Write the weights that are kept, and END_FILE, which says after which step training ended and why."""
    kept = _last_good(watched, folder, policy, optimizer) if watched.collapsed else step
    if config.eval_every and config.keep == "best":
        if watched.best_step:
            kept = watched.best_step
        else:
            log.warning("no evaluation was better than the start with the guards held: the last weights are kept")
    why = watched.ended or f"all {config.steps} steps were done"
    result = result_of(config)
    if watched.ended or kept != step:
        log.info("ended after step %d of %d (%s); %s has the weights of step %d", step, config.steps, why, result, kept)
    lacks = not folder.has(f"{result}/{VALUE_HEAD_FILE}") or _kept_before(folder, step) != kept
    if any(processes.gather(lacks)) and kept != step:
        load_weights(folder.path, kept, policy)
    if lacks:
        forget_end(folder)
        with folder.replacing(result) as beside:
            policy.save(beside, config.max_new_tokens)
    told = {"step": step, "of": config.steps, "why": why, "kept": kept, "collapsed": watched.collapsed}
    told |= {"start": watched.start} if watched.start else {}
    folder.write(END_FILE, json.dumps(told, indent=1) + "\n")


def _last_good(watched: Watched, folder: RunFolder, policy: Policy, optimizer: torch.optim.Optimizer) -> int:
    """The step of the last checkpoint, which is from before the collapse; that it was the end is saved with it."""
    good = load_checkpoint(folder.path, policy, optimizer)
    if good is None:
        raise RunError(
            f"{watched.ended}, at step {watched.ended_step}, before the first checkpoint: no good weights are left to keep; lower the "
            "learning rate, raise kl_coef, or give a smaller save_every"
        )
    if good.watched.get("ended") != watched.ended:
        save_checkpoint(folder, replace(good, watched=asdict(watched)), policy, optimizer, watched.best_step)
    return good.step


def _kept_before(folder: RunFolder, step: int) -> int:
    """The step whose weights the run's result has; of a run from before there was such a record, the last."""
    end = read_end(folder.path)
    return int(end["kept"]) if end else step
