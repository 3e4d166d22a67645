"""What a setting may be: its kind, from its annotation, and for a number its bounds; the same from Python, YAML and flags."""

from __future__ import annotations

import dataclasses
import math
import numbers
import os
import re
import typing
from collections.abc import Mapping
from typing import Any, Literal

from softspoken.types import InputError


@dataclasses.dataclass(frozen=True)
class Bounds:
    low: float
    high: float
    above: bool = False
    """Whether `low` itself is left out."""

    def hold(self, value: float) -> bool:
        return self.low <= value <= self.high and not (self.above and value == self.low)

    def __str__(self) -> str:
        return (
            f"above {_short(self.low)}, up to {_short(self.high)}"
            if self.above
            else f"{_short(self.low)} to {_short(self.high)}"
        )

    def remedy(self, value: float) -> str:
        """What to give in place of `value`."""
        if value != value or abs(value) == math.inf:  # math.isfinite would make a float of a whole number of 400 digits
            return "give a finite number"
        if (self.low, self.high) == (0, 1):
            return "give a number from 0 to 1"
        if value > self.high:
            return f"give {_short(self.high)} or less"
        if self.above or self.low == 1:
            return "give a number above 0"
        return f"give {_short(self.low)} or more"


def _short(number: float) -> str:
    whole = float(number).is_integer()
    return f"{number:g}" if abs(number) >= 1e12 or not whole else f"{number:,.0f}"


COUNT = Bounds(1, 1_000_000_000)
SIZE = Bounds(1, 1_000_000)
NONE_OR_MORE = Bounds(0, 1_000_000_000)
SHARE = Bounds(0, 1)
WEIGHT = Bounds(0, 1_000_000)
POSITIVE = Bounds(0, 1_000_000, above=True)

BOUNDS: Mapping[str, Bounds] = {
    **dict.fromkeys(("eval_every", "eval_every_limit", "patience", "trials"), COUNT),
    **dict.fromkeys(("steps", "save_every", "kl_horizon", "limit", "max_examples", "tokens_per_microbatch"), COUNT),
    **dict.fromkeys(
        ("batch_size", "mini_batch_size", "micro_batch_size", "eval_batch_size", "samples_per_prompt"), SIZE
    ),
    **dict.fromkeys(("max_new_tokens", "max_prompt_tokens", "lora_r", "lora_alpha", "last_layers", "ppo_epochs"), SIZE),
    **dict.fromkeys(("eval_limit", "warmup_steps", "min_response_chars", "samples", "eval_samples"), NONE_OR_MORE),
    **dict.fromkeys(("check_limit", "dynamic_sampling", "guard_samples"), NONE_OR_MORE),
    **dict.fromkeys(
        ("processes", "workers", "queue_size", "connections", "most_texts", "most_beams", "most_samples"), SIZE
    ),
    **dict.fromkeys(("most_text_chars", "most_body_bytes", "most_new_tokens"), COUNT),
    "port": Bounds(0, 65_535),
    **dict.fromkeys(("deadline", "memory"), POSITIVE),
    "guard_threshold": SHARE,
    "epochs": POSITIVE,
    # Below, the logits are divided into infinities.
    "temperature": Bounds(1e-4, 10_000),
    **dict.fromkeys(("learning_rate", "value_learning_rate"), Bounds(0, 100, above=True)),
    # A smaller one is 0 in float32, and 0 / 0 where there is no gradient.
    "adam_epsilon": Bounds(1e-30, 1),
    "weight_decay": Bounds(0, 100),
    **dict.fromkeys(
        ("max_grad_norm", "clip_range", "clip_range_high", "clip_range_value", "kl_target", "target_kl"), POSITIVE
    ),
    "beta": POSITIVE,
    "dual_clip": Bounds(1, 1_000_000, above=True),
    **dict.fromkeys(("kl_coef", "value_coef", "missing_eos_penalty", "short_margin"), WEIGHT),
    # Something is left to train on.
    **dict.fromkeys(("eval_share", "held_out"), Bounds(0, 0.9)),
    **dict.fromkeys(("gamma", "gae_lambda"), SHARE),
    **dict.fromkeys(("max_kl", "max_response_tokens"), POSITIVE),
    **dict.fromkeys(("min_entropy", "min_response_tokens"), WEIGHT),
    "min_distinct": SHARE,
    "lora_dropout": Bounds(0, 0.95),  # of what is left out, the rest is scaled up by as much
    "focus_share": Bounds(0, 1, above=True),
    "focus_rest": Bounds(0, 0.99),
    "seed": Bounds(0, 2**32 - 1),  # what numpy takes
}
"""Of every number among the settings, by its name: it means the same in each command."""

NEVER_EMPTY = ("judge", "lora_targets", "measure", "adapter", "system")
PLACES = ("{text}", "{dialogue}")
"""Where a prompt template has the text, by its name now and by its first one (which files may still hold)."""
OF_ANY_KIND = ("dataset", "eval_dataset")
"""In Python, rows can be given as they are."""


def check_settings(config: Any) -> None:
    """Raises InputError for a setting of another kind than its annotation says, not finite, or out of its bounds.

    What means the same is made the same: a path is its text, an integer of numpy's an int.
    """
    for field, hint in typing.get_type_hints(type(config)).items():
        value = getattr(config, field)
        if field in OF_ANY_KIND and not isinstance(value, os.PathLike | str | None):
            require_rows(field, value)
            continue
        if field == "reward" and hint is not str and not isinstance(value, str | None):  # reward_weights reads it
            continue
        try:
            taken = _as(hint, value)
        except ValueError:
            raise InputError(f"{field} {value!r} cannot be used: {remedy(hint)}") from None
        if any(isinstance(text, str) and not text.strip() for text in (taken if isinstance(taken, list) else [taken])):
            raise InputError(f"{field} is empty; give a value or leave it out (is a shell variable not set?)")
        if taken == [] and field in NEVER_EMPTY:
            raise InputError(f"{field} is an empty list; name one, or leave it out")
        if field == "prompt_template" and taken is not None:
            require_one_place(taken)
        object.__setattr__(config, field, taken)
        if isinstance(taken, int | float) and not isinstance(taken, bool):
            check_number(field, taken, BOUNDS)


def require_rows(field: str, value: Any) -> None:
    """Of a dataset that is no name: a list of dicts, a datasets.Dataset, or splits of them by name."""
    if isinstance(value, list | tuple):
        wrong = next((number for number, row in enumerate(value, start=1) if not isinstance(row, Mapping)), None)
        if not value or wrong:
            what = f"row {wrong} is no dict" if wrong else "it has no rows"
            raise InputError(f"{field} cannot be used: {what}; give a list of dicts, each with the columns of a row")
    elif isinstance(value, dict):
        if not value or not all(hasattr(rows, "__len__") and not isinstance(rows, str) for rows in value.values()):
            raise InputError(
                f"{field} is a dict whose values are no sets of rows; give a list of dicts, or splits by their names"
            )
    elif hasattr(value, "iloc"):
        raise InputError(f"{field} is a table of pandas'; give its rows, with table.to_dict('records')")
    elif not hasattr(value, "__len__") or isinstance(value, bytes | set):
        raise InputError(
            f"{field} {value!r} cannot be used: give a name, a path, a list of dicts or a datasets.Dataset"
        )


def require_one_place(template: str) -> None:
    if sum(template.count(place) for place in PLACES) != 1:
        raise InputError(f"prompt_template {template!r} must contain {{text}} exactly once")


def check_number(field: str, value: float, bounds: Mapping[str, Bounds], owner: str = "") -> None:
    if not bounds[field].hold(value):
        raise InputError(f"{owner}{field} {value!r} cannot be used: {bounds[field].remedy(value)}")


def name_or_path(field: str, given: Any) -> str:
    """As text. Raises InputError for what is neither."""
    if (text := _text(given)) is _NO:
        raise InputError(f"{field} {given!r} cannot be used: give a hub id or a path")
    return str(text)


def _as(hint: Any, value: Any) -> Any:
    """`value` as one of the kinds that `hint` names. Raises ValueError where it is none of them."""
    for kind in _kinds(hint):
        if typing.get_origin(kind) is Literal:
            if isinstance(value, str) and value in typing.get_args(kind):
                return value
        elif (found := _AS[typing.get_origin(kind) or kind](value)) is not _NO:
            return found
    raise ValueError


def _kinds(hint: Any) -> tuple[Any, ...]:
    return (hint,) if typing.get_origin(hint) in (None, Literal, list, dict) else typing.get_args(hint)


_NO = object()


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, numbers.Integral) and not isinstance(value, bool) else _NO


def _number(value: Any) -> Any:
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return _NO
    try:
        return float(value)
    except OverflowError:  # a whole number of 400 digits
        return math.inf


def _text(value: Any) -> Any:
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    return text if isinstance(text, str) and "\0" not in text else _NO  # no path has one in it


def _texts(value: Any) -> Any:
    if not isinstance(value, list | tuple):
        return _NO
    texts = [_text(one) for one in value]
    return _NO if _NO in texts else texts


_AS: dict[Any, Any] = {
    int: _whole,
    float: _number,
    bool: lambda value: value if isinstance(value, bool) else _NO,
    str: _text,
    list: _texts,
    dict: lambda value: (
        dict(value) if isinstance(value, Mapping) and all(isinstance(key, str) for key in value) else _NO
    ),
    type(None): lambda value: value if value is None else _NO,
}

_WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    list: "a list",
    dict: "a mapping",
}


def remedy(hint: Any) -> str:
    """What kind of value to give."""
    said = []
    for kind in _kinds(hint):
        if typing.get_origin(kind) is Literal:
            said.append(" or ".join(map(str, typing.get_args(kind))))
        elif kind is not type(None):
            said.append(_WORDS[typing.get_origin(kind) or kind])
    return f"give {' or '.join(said)}"


# ------------------------------------------------------------------------------------------ settings with a grammar

BASELINES = ("banned_words", "masked_words", "copy", "delete")


def check_baselines(config: Any, field: str, samples: int) -> None:
    for baseline in getattr(config, field) or []:
        best_of = re.fullmatch(r"best_of_([1-9]\d*)", baseline)
        if not best_of and baseline not in BASELINES:
            *some, last = BASELINES
            raise InputError(
                f"{field} {baseline!r} cannot be used: give best_of_N (such as best_of_4), {', '.join(some)} or {last}"
            )
        if best_of and not 2 <= int(best_of[1]) <= samples:
            raise InputError(
                f"{field} {baseline!r} cannot be used: N is 2 or more, and no more than samples ({samples})"
            )
