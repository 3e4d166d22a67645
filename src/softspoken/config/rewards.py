"""What is to be raised: sums and products of terms by their names, and functions that are given in Python.

A function goes by the name it can be imported by, `module:function`, which is what a record holds of it and a resumed run finds it
by. A lambda, a function made inside another, one of a notebook or of the script that is run has no such name: it goes by its own, and
the record says what it was, so that whoever goes on with the run gives it again.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from softspoken.types import InputError

if TYPE_CHECKING:  # flags and YAML name rewards; in Python, functions can be given as they are
    Function: TypeAlias = Callable[..., Any]
    Weighted: TypeAlias = tuple[str | Function, float]
    Reward: TypeAlias = (
        str
        | Function
        | Sequence[str | Function | Weighted]
        | Mapping[str, float | Function | Weighted]
        | Mapping[Function, float]
        | Mapping[str | Function, float]
    )
else:
    Reward = str | dict[str, float]

TIMES = " * "
LARGEST_WEIGHT = 1_000_000
"""Of a reward in a sum."""
GIVEN_FUNCTION = "function given in Python: "
"""How the record of one begins that cannot be imported."""
FORM = "give functions as reward=function, a list of them, or a mapping of function to weight"


def reward_weights(reward: Reward) -> dict[str, float]:
    """`"detoxify:original + 0.2*rouge:rougeL"` → `{"detoxify:original": 1.0, "rouge:rougeL": 0.2}`; a product's name has all its
    factors in it, and a function's is as `reward_functions` has it."""
    if isinstance(reward, str):
        return _read(reward)
    weights: dict[str, float] = {}
    for name, (_, weight) in _terms(reward).items():
        weights[name] = _weight(weight, name)
    if not weights:
        raise InputError("reward is empty, and needs at least one term with a weight other than 0; or leave it out")
    return weights


def reward_functions(reward: Reward) -> dict[str, Function]:
    """The functions that are given in Python, by the names their scores go by."""
    return (
        {} if isinstance(reward, str) else {name: term for name, (term, _) in _terms(reward).items() if callable(term)}
    )


def recorded_reward(reward: Reward | None) -> str | dict[str, float] | None:
    """What a record holds of it: functions that can be imported by their names, others by what they were."""
    if reward is None or isinstance(reward, str):
        return reward
    functions, weights = reward_functions(reward), reward_weights(reward)
    return {_recorded(functions[name], name) if name in functions else name: weight for name, weight in weights.items()}


def is_given_function(name: str) -> bool:
    return name.startswith(GIVEN_FUNCTION)


def factors(term: str) -> list[str]:
    """`"mini * chrf"` → `["mini", "chrf"]`; of a term that is no product itself alone."""
    return [factor.strip() for factor in term.split("*")]


# ------------------------------------------------------------------------------------------------------------ text


def _read(reward: str) -> dict[str, float]:
    weights: dict[str, float] = {}
    for term in re.split(r"\s+\+\s+", reward.strip()):
        match = re.fullmatch(r"(?:([0-9.eE+-]+)\s*\*\s*)?([^\s*]+(?:\s*\*\s*[^\s*]+)*)", term)
        if not match:
            raise InputError(
                f"reward {reward!r} cannot be read at {term!r}; write it like 'detoxify:original + 0.2*rouge:rougeL'"
            )
        name = TIMES.join(factors(match[2]))
        if name in weights:
            raise InputError(f"reward {reward!r} names {name} twice; give it one weight")
        weights[name] = _weight(match[1] or 1.0, name)
    return weights


def _weight(weight: Any, term: str) -> float:
    """A negative one lowers what the term raises; at 0 the term is logged and no more."""
    try:
        number = float(weight)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not abs(number) <= LARGEST_WEIGHT:
        raise InputError(
            f"reward {term!r} has the weight {weight!r}; give a finite number, like 0.2, of at most {LARGEST_WEIGHT:,}"
        )
    return number


# ------------------------------------------------------------------------------------------------------- functions


def _terms(reward: Any) -> dict[str, tuple[str | Function, Any]]:
    """Name → (its term, its weight), of a function, a list or a mapping; a name of the user's own goes before a function's."""
    found: dict[str, tuple[str | Function, Any]] = {}
    for own, term, weight in _listed(reward):
        name = own or (TIMES.join(factors(term)) if isinstance(term, str) else _name(term))
        if name in found and (own or isinstance(term, str) or found[name][0] is term):
            raise InputError(f"reward names {name} twice; give it one weight")
        same = sum(other == name or other.startswith(f"{name}-") for other in found)
        found[f"{name}-{same + 1}" if same and callable(term) else name] = (term, weight)
    return found


def _listed(reward: Any) -> list[tuple[str | None, str | Function, Any]]:
    if callable(reward):
        return [(None, reward, 1.0)]
    if isinstance(reward, Mapping):
        return [_named(key, value) for key, value in reward.items()]
    if isinstance(reward, Sequence) and not isinstance(reward, bytes):
        pairs = [one if isinstance(one, tuple) and len(one) == 2 else (one, 1.0) for one in reward]
        return [(None, _term(term), weight) for term, weight in pairs]
    raise InputError(f"reward {reward!r} cannot be used: {FORM}")


def _named(key: Any, value: Any) -> tuple[str | None, str | Function, Any]:
    """`{function: weight}`, `{spec: weight}`, `{name: function}` or `{name: (function, weight)}`."""
    if isinstance(key, str) and callable(value):
        return key, value, 1.0
    if isinstance(key, str) and isinstance(value, tuple) and len(value) == 2 and callable(value[0]):
        return key, value[0], value[1]
    return None, _term(key), value


def _term(term: Any) -> str | Function:
    if callable(term) or (isinstance(term, str) and term.strip()):
        found: str | Function = term
        return found
    raise InputError(f"reward: {term!r} is neither the name of a reward nor a function; {FORM}")


def _name(function: Any) -> str:
    """`module:function` where that is found again by importing, else the function's own name."""
    module, path = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if isinstance(module, str) and isinstance(path, str) and module != "__main__" and "<" not in path:
        try:
            if functools.reduce(getattr, path.split("."), sys.modules.get(module)) is function:
                return f"{module}:{path}"
        except AttributeError:
            pass
    plain = getattr(function, "func", function)  # of a functools.partial
    name = getattr(plain, "__name__", None) or type(plain).__name__
    return re.sub(r"[^\w.-]", "", name) or "function"


def _recorded(function: Any, name: str) -> str:
    return name if _name(function) == name and ":" in name else f"{GIVEN_FUNCTION}{name}, SHA-256 {_digest(function)}"


def _digest(function: Any) -> str:
    """By its source or, where there is none (python -c), by its code: whether it is the same function as before."""
    plain = getattr(function, "func", function)
    plain = plain if hasattr(plain, "__code__") else type(plain)
    try:
        said = inspect.getsource(plain)
    except (OSError, TypeError):
        code = getattr(plain, "__code__", None)
        said = repr((code.co_code, code.co_names)) if code else repr(plain)
    return hashlib.sha256(said.encode()).hexdigest()[:16]


# ------------------------------------------------------------------------------------------------- kinds, by the name

OPTIONS = ("pair", "logit")
"""What may stand after a label: the classifier reads text and response together; its raw output is the score."""


def is_classified(spec: str) -> bool:
    """Whether it names a classifier that is no judge of a response alone (rewards/classified.py)."""
    kind, *rest = spec.split(":")
    return kind == "entails" or (kind == "hf" and len(rest) > 2 and rest[-1] in OPTIONS)


def is_judge(spec: str) -> bool:
    """Whether it names a classifier of a response alone that gives probabilities (rewards/judges.py)."""
    named = spec in ("mini", "profanity") or spec.partition(":")[0] in ("detoxify", "hf")
    return named and not is_classified(spec)
