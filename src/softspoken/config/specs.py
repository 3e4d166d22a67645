"""What names a term of a reward, or a judge: whether it is written as one is, before anything is loaded by it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from softspoken.config.rewards import (
    OPTIONS,
    factors,
    is_classified,
    is_given_function,
    is_judge,
    reward_functions,
    reward_weights,
)
from softspoken.types import InputError

JUDGES = "mini, detoxify:VARIANT, detoxify:VARIANT:LABEL, profanity, hf:MODEL:LABEL, hf:MODEL:-LABEL"
REWARDS = (
    f"{JUDGES}, hf:MODEL:LABEL:pair, hf:MODEL:LABEL:logit, entails:MODEL, rouge:rougeL, chrf, bleu, similarity:MODEL, cosine:MODEL, "
    "length:MIN-MAX, http://HOST/PATH, or your own as package.module:function or ./file.py:function"
)
VARIANTS = ("original", "unbiased", "multilingual", "original-small", "unbiased-small")
"""Detoxify's."""
ROUGES = ("rouge1", "rouge2", "rougeL", "rougeLsum")
OVERLAPS = ("chrf", "bleu")
OWN = re.compile(r"(.+\.py|[^\W\d][\w.]*):[^\W\d][\w.]*")
SERVED = ("http://", "https://")


def check_reward(reward: Any) -> None:
    """Raises InputError for a sum that cannot be read, or a term that there is no kind of."""
    functions = reward_functions(reward)
    for term in reward_weights(reward):
        for factor in factors(term):
            if factor not in functions:
                require_term(factor)


def check_judges(judges: Sequence[str] | None) -> None:
    for judge in judges or ():
        require_judge(judge)


def check_measures(measures: Sequence[str] | None) -> None:
    """NAME=REWARD; whether the task has a measure of that name is the task's to say."""
    for one in measures or ():
        name, _, spec = one.partition("=")
        if not (name.strip() and spec.strip()):
            raise InputError(f"measure {one!r} cannot be used: write NAME=REWARD, as in style=hf:MODEL:LABEL")
        check_reward(spec)


def require_judge(spec: str) -> None:
    if is_classified(spec):
        raise InputError(f"{spec!r} is a reward and no judge, which reads a response alone; use one of {JUDGES}")
    kind, *rest = spec.split(":", maxsplit=2)
    if kind == "detoxify":
        variant = rest[0] if rest else ""
        if variant not in VARIANTS:
            raise InputError(
                f"detoxify has no variant {variant!r}; use detoxify:VARIANT with one of {', '.join(VARIANTS)}"
            )
    elif spec not in ("mini", "profanity") and not (kind == "hf" and len(rest) == 2 and all(rest)):
        raise InputError(f"{spec!r} is not a classifier; use one of {JUDGES}")


def require_term(spec: str) -> None:
    kind, _, rest = spec.partition(":")
    if is_given_function(spec) or spec.startswith(SERVED) or spec in OVERLAPS:
        return
    if is_classified(spec):
        _require_classified(spec)
    elif is_judge(spec):
        require_judge(spec)
    elif kind == "rouge":
        if rest not in ROUGES:
            raise InputError(
                f"reward {spec!r}: no such ROUGE; use one of {', '.join(f'rouge:{name}' for name in ROUGES)}"
            )
    elif kind == "length":
        length_bounds(spec)
    elif not (kind in ("similarity", "cosine") and rest) and not OWN.fullmatch(spec):
        raise InputError(f"unknown reward {spec!r}; use {REWARDS}")


def _require_classified(spec: str) -> None:
    kind, _, rest = spec.partition(":")
    if kind == "entails":
        if not rest:
            raise InputError(
                "reward 'entails:' names no model; write entails:MODEL, with a cross-encoder for inference (NLI)"
            )
        return
    named, options = classified_options(rest)
    model, _, label = named.partition(":")
    if not (model and label):
        raise InputError(f"reward {spec!r} names no label; write hf:MODEL:LABEL:{':'.join(sorted(options))}")


def classified_options(rest: str) -> tuple[str, set[str]]:
    """`MODEL:LABEL:pair:logit` → `MODEL:LABEL` and what stands after it."""
    options = set()
    while rest.rpartition(":")[2] in OPTIONS:
        rest, _, option = rest.rpartition(":")
        options.add(option)
    return rest, options


def length_bounds(spec: str) -> tuple[int, int]:
    """`length:5-30` → (5, 30)."""
    match = re.fullmatch(r"length:(\d+)-(\d+)", spec)
    if not match or not 0 < int(match[2]) >= int(match[1]):
        raise InputError(f"reward {spec!r}: give the bounds in words, the shorter first, like length:5-30")
    return int(match[1]), int(match[2])
