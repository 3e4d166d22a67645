"""Settings that make no difference beside the others. A preset, a run's record or a sweep over algorithms may bring such along, so they are
said and not refused; what contradicts another setting is refused where its configuration is made."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

log = logging.getLogger(__name__)

CRITIC = ("value_coef", "value_learning_rate", "clip_range_value", "value_head_detached", "gamma", "gae_lambda")
ADVANTAGES = ("sibling_baseline", "whiten_advantages", "whiten_rewards")
LAST = ("eval_dataset", "eval_dataset_config", "eval_split", "eval_share", "eval_baseline", "eval_samples", "eval_batch_size")  # fmt: skip


@dataclass(frozen=True)
class Idle:
    """`names` make no difference where `holds`; `why` goes on after “makes no difference”, with settings in braces."""

    names: tuple[str, ...]
    holds: Callable[[Any], Any]
    why: str


OF_WHAT_TRAINS = (
    Idle(
        ("lora_r", "lora_alpha"),
        lambda c: c.trained != "lora" or c.peft_config or _start(c),
        "where no fresh LoRA is made",
    ),
    Idle(("lora_targets",), lambda c: c.trains_whole_model or c.peft_config or _start(c), "where no adapter is placed"),
    Idle(("adapter_scope",), lambda c: c.trained == "full" or _start(c), "where nothing is placed by it"),
    Idle(("last_layers",), lambda c: c.trained != "last_layers", "with trained {trained}"),
)
OF_UPLOADS = (Idle(("private",), lambda c: not c.push_to_hub, "without push_to_hub"),)
RULES: dict[str, tuple[Idle, ...]] = {
    "TrainConfig": (
        Idle((*CRITIC, *ADVANTAGES), lambda c: c.algorithm != "ppo", "with algorithm {algorithm}, which has no critic"),
        Idle(
            ("clip_range",),
            lambda c: c.algorithm in ("best_of_n", "dpo") or (c.surrogate == "cispo" and c.clip_range_high is not None),
            "where no ratio is clipped by it",
        ),
        Idle(("kl_target", "kl_horizon"), lambda c: c.kl_controller == "fixed", "with kl_controller fixed"),
        Idle(("kl_in", "kl_estimator"), lambda c: not c.kl_coef, "at kl_coef 0"),
        Idle(("focus_share", "focus_rest"), lambda c: c.focus == "none", "without focus heat"),
        Idle(("short_margin",), lambda c: not c.min_response_chars, "at min_response_chars 0"),
        Idle(LAST, lambda c: c.eval_limit == 0, "at eval_limit 0, where nothing is evaluated at the end"),
        Idle(("eval_share",), lambda c: c.eval_dataset is not None, "beside eval_dataset"),
        Idle(("eval_every_limit", "keep"), lambda c: not c.eval_every, "without eval_every"),
        *OF_WHAT_TRAINS,
        *OF_UPLOADS,
    ),
    "SftConfig": OF_WHAT_TRAINS,
    "DpoConfig": OF_WHAT_TRAINS,
    "ExportConfig": (Idle(("check_limit",), lambda c: c.format != "ctranslate2", "with format {format}"), *OF_UPLOADS),
    "ServeConfig": (
        Idle(
            ("judge", "detoxify_sha256", "guard_threshold", "guard_samples", "guard_refusal"),
            lambda c: not c.guard,
            "with guard false",
        ),
    ),
}
"""Of each command's settings, by the name of their class."""


def idle(config: Any) -> list[str]:
    """A sentence for each reason for which settings that are not the defaults make no difference."""
    defaults = {field.name: field.default for field in fields(config)}
    said = []
    for rule in RULES.get(type(config).__name__, ()):
        lost = [f"{name} {_written(vars(config)[name])}" for name in rule.names if vars(config)[name] != defaults[name]]
        if lost and rule.holds(config):
            verb = "makes" if len(lost) == 1 else "make"
            said.append(f"{', '.join(lost)} {verb} no difference {rule.why.format_map(vars(config))}")
    return said


def say_what_is_idle(config: Any) -> None:
    for sentence in idle(config):
        log.warning("%s", sentence)


def _start(config: Any) -> str | None:
    """The adapter that a training goes on from, where the command has such a setting."""
    found: str | None = getattr(config, "adapter", None)
    return found


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else str(value) if isinstance(value, int | float) else "(given)"
