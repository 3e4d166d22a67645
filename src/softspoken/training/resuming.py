"""Going on with a run: what may change in it, what may not, and where its schedule stands."""

from __future__ import annotations

import shlex
from dataclasses import fields, replace
from typing import Any

import torch

from softspoken.config import TrainConfig
from softspoken.config.rewards import is_given_function, recorded_reward, reward_weights
from softspoken.data.reading import is_given, record_of
from softspoken.models.trained import read_peft_config
from softspoken.training.watch import Watched
from softspoken.types import InputError

MAY_CHANGE = {
    *("steps", "save_every", "learning_rate", "value_learning_rate", "schedule", "warmup_steps"),
    *("judge", "measure", "detoxify_sha256"),
    *(
        "eval_dataset",
        "eval_dataset_config",
        "eval_split",
        "eval_limit",
        "eval_baseline",
        "eval_samples",
        "eval_batch_size",
    ),
    *("eval_every", "keep", "patience"),
    *("max_kl", "min_entropy", "min_distinct", "min_response_tokens", "max_response_tokens"),
    *("device", "micro_batch_size", "tokens_per_microbatch", "gradient_checkpointing", "report_to"),
    *("push_to_hub", "private"),
}
"""Settings that a run can go on with in another way: what is left to do, how it is judged, where it is computed."""
REOPENS = {"steps", "learning_rate", "keep", "patience", "eval_every", "max_kl"} | {
    *("min_entropy", "min_distinct", "min_response_tokens", "max_response_tokens")
}
"""Those after whose change an end that came early is none any more."""

Changes = dict[str, tuple[Any, Any]]
"""Setting → as it was, as it is now."""


def continued(saved: TrainConfig, given: TrainConfig) -> tuple[TrainConfig, Changes]:
    """A run's configuration with what was `given` anew, and what that changes. Raises InputError for what may not change within a run,
    and for rows given in Python that are not given again."""
    rows: dict[str, Any] = {}
    for name in ("dataset", "eval_dataset"):
        was, now = getattr(saved, name), getattr(given, name)
        if is_given(was) and not (name == "eval_dataset" and name in given.given and now is not None):
            if now is None or record_of(now) != was:
                raise InputError(
                    f"resume: {name} of {given.resume} is {was}; give the same again, as "
                    f"train(TrainConfig(resume=…, {name}=rows))"
                )
            rows[name] = now
    if any(map(is_given_function, reward_weights(saved.reward or {}))):
        if recorded_reward(given.reward) != saved.reward:
            raise InputError(
                f"resume: reward of {given.resume} is {', '.join(reward_weights(saved.reward or {}))}; give the same again, as "
                "train(TrainConfig(resume=…, reward=function)), for what cannot be imported cannot be found again"
            )
        rows["reward"] = given.reward
    elif recorded_reward(given.reward) == saved.reward:
        rows["reward"] = saved.reward
    changes: Changes = {}
    for field in fields(TrainConfig):
        name = field.name
        if name not in given.given or name in rows or name in ("resume", "overwrite"):
            continue
        was, now = getattr(saved, name), getattr(given, name)
        now = read_peft_config(now) if name == "peft_config" else now
        if was == now:
            continue
        held = name == "eval_every" and (was is None or now is None)
        if name not in MAY_CHANGE or held:
            why = "it holds examples out of the training set, and " if held else ""
            other = shlex.quote(str(given.resume).rstrip("/"))
            raise InputError(
                f"resume: {name} of {given.resume} is {was!r}, not {now!r}: {why}it cannot change within a run; leave it out, or start "
                f"another with --config {other}/config.yaml --{name} … --output …"
            )
        changes[name] = (was, now)
    new = {name: now for name, (_, now) in changes.items()}
    return replace(saved, **rows, **new), changes


def require_steps_left(config: TrainConfig, done: int, changes: Changes) -> None:
    if "steps" in changes and config.steps < done:
        raise InputError(f"resume: steps {config.steps} is fewer than the {done} that are done; give more")


def reopened(watched: Watched, changes: Changes) -> Watched:
    """Without an end that came early, where what decided it has changed."""
    if not watched.ended or not REOPENS & {*changes}:
        return watched
    return replace(watched, ended="", collapsed=False, crossed=0, ended_step=0)


def go_on_from(schedule: dict[str, Any], optimizer: torch.optim.Optimizer, scheduler: Any) -> None:
    """Put the scheduler where the saved one stood, on the way that today's settings describe."""
    scheduler.load_state_dict(schedule | {"base_lrs": scheduler.base_lrs})
    factors = [factor(scheduler.last_epoch) for factor in scheduler.lr_lambdas]
    rates = [base * factor for base, factor in zip(scheduler.base_lrs, factors, strict=True)]
    scheduler._last_lr = rates
    for group, base, rate in zip(optimizer.param_groups, scheduler.base_lrs, rates, strict=True):
        group["lr"], group["initial_lr"] = rate, base  # a scheduler's state does not bring the optimizer's rate with it
