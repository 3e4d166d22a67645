"""The user's own function as a term: found by its name or its file, or given in Python; in our form or in that of TRL's GRPO.

Ours is `(responses, examples) -> numbers`. TRL's is called by keywords alone, `(completions, prompts, **columns) -> numbers`: prompts are the
texts, and every column of the rows is a list under its own name. Either may be `async`, return a list, an array, a tensor or a
generator, and None for a response that it has no opinion on.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import inspect
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from softspoken.config.rewards import is_given_function
from softspoken.runtime.own_code import module_of_file
from softspoken.types import Example, InputError

FORMS = "(responses, examples) or, as for TRL's GRPO, (completions, prompts, **columns)"
TRLS = ("prompts", "completions")
"""What TRL gives by keyword beside the columns."""


def load_function(spec: str) -> OwnFunction:
    """`module:function`, of an installed package or the current folder, or `path/to/file.py:function`."""
    if is_given_function(spec):
        raise InputError(
            f"reward: the configuration was made with a {spec}, which is not here; give it again, as TrainConfig(reward=function)"
        )
    place, _, path = spec.rpartition(":")
    try:
        module = module_of_file(Path(place), "reward") if place.endswith(".py") else _imported(place)
        function: Any = functools.reduce(getattr, path.split("."), module)
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # importing runs the user's code, which can fail in any way
        raise InputError(
            f"reward {spec!r} cannot be imported ({type(error).__name__}: {error}); give package.module:function or ./file.py:function"
        ) from error
    return as_term(spec, function)


def as_term(name: str, function: Any) -> OwnFunction:
    """The function as a term. Raises InputError where it cannot be called as one."""
    if not callable(function):
        raise InputError(f"reward {name!r} is not a function; it must be one of {FORMS} that returns a list of numbers")
    try:
        signature = inspect.signature(function)
    except ValueError:  # a built-in that does not tell
        return OwnFunction(name, function, None)
    if _is_trls(signature):
        return OwnFunction(name, function, signature)
    try:
        signature.bind([], [])
    except TypeError as error:
        raise InputError(f"reward {name!r} must take {FORMS}: {error}") from error
    return OwnFunction(name, function, None)


@dataclass(frozen=True)
class OwnFunction:
    name: str
    function: Callable[..., Any]
    trls: inspect.Signature | None
    """Of one in TRL's form, which is called by keywords; None for one of ours."""
    known: dict[str, None] = field(default_factory=dict, compare=False)
    """Columns of the rows that it is going to be asked about, of which those of one call may lack some."""

    def require_columns(self, examples: list[Example]) -> None:
        """Raises InputError where it asks for a column that none of them has."""
        if self.trls is not None:
            self.known.update(dict.fromkeys(_names(examples)))
            self._require(self.trls, [*self.known, *TRLS])

    def __call__(self, responses: list[str], examples: list[Example]) -> Any:
        if self.trls is None:
            returned = self.function(responses, examples)
        else:
            returned = self.function(**self._keywords(self.trls, responses, examples))
        return _awaited(returned) if inspect.isawaitable(returned) else returned

    def _keywords(self, signature: inspect.Signature, responses: list[str], examples: list[Example]) -> dict[str, Any]:
        absent: dict[str, list[Any]] = {name: [None] * len(examples) for name in self.known}
        given = {"prompts": [example.text for example in examples], "completions": responses}
        columns = absent | columns_of(examples) | given
        self._require(signature, list(columns))
        parameters = signature.parameters.values()
        if any(one.kind is one.VAR_KEYWORD for one in parameters):
            return columns
        return {one.name: columns[one.name] for one in parameters if one.name in columns}

    def _require(self, signature: inspect.Signature, columns: list[str]) -> None:
        for one in signature.parameters.values():
            required = one.default is one.empty and one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)
            if required and one.name not in columns:
                raise InputError(
                    f"reward {self.name!r} asks for {one.name!r}, and no row has a column of that name; there is "
                    f"{', '.join(columns)}"
                )


def columns_of(examples: list[Example]) -> dict[str, list[Any]]:
    """Every column that a row has, by its name: one value a row, None where that row has none."""
    rows = [{**example.row, **example.columns} for example in examples]
    return {name: [row.get(name) for row in rows] for name in _names(examples)}


def _names(examples: list[Example]) -> list[str]:
    return list(dict.fromkeys(name for example in examples for name in (*example.row, *example.columns)))


def _is_trls(signature: inspect.Signature) -> bool:
    by_keyword = [
        one for one in signature.parameters.values() if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
    ]
    only_rest = not by_keyword and [one.kind for one in signature.parameters.values()] == [
        inspect.Parameter.VAR_KEYWORD
    ]
    return only_rest or any(one.name in TRLS for one in by_keyword)


def _awaited(returned: Any) -> Any:
    """In a thread of its own: a notebook has a loop that runs in this one."""

    async def wait() -> Any:
        return await returned

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, wait()).result()


def _imported(module: str) -> Any:
    if str(Path.cwd()) not in sys.path:  # the softspoken command, unlike python, does not look there
        sys.path.append(str(Path.cwd()))
    return importlib.import_module(module)
