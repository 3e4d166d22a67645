"""The text under each setting: the help of its flag, and what `help(TrainConfig)` shows."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import textwrap
from collections.abc import Callable
from typing import Any, TypeVar

from softspoken.config.ranges import BOUNDS

Config = TypeVar("Config")


def explained(example: str) -> Callable[[type[Config]], type[Config]]:
    """A configuration whose docstring holds an example and every setting with its default, bounds and help."""

    def explain(config_class: type[Config]) -> type[Config]:
        explanation: Any = _Explanation(config_class.__doc__ or "", example)
        config_class.__doc__ = explanation
        return config_class

    return explain


def purpose_of(config_class: type) -> str:
    """The sentence under the class's name."""
    doc = config_class.__dict__["__doc__"]
    return doc.purpose if isinstance(doc, _Explanation) else doc or ""


@functools.cache
def field_docs(config_class: type) -> dict[str, str]:
    """Setting → the text under it, on one line; of a class whose source is there, with those that it shares with others."""
    found: dict[str, str] = {}
    for one in reversed(config_class.__mro__):
        found |= _docs_of(one) if one is not object else {}
    return found


def settings_of(config_class: type) -> list[dataclasses.Field[Any]]:
    """Its own first, then those that it shares with others."""
    return sorted(dataclasses.fields(config_class), key=lambda field: bool(field.kw_only))


def _docs_of(config_class: type) -> dict[str, str]:
    [definition] = ast.parse(textwrap.dedent(inspect.getsource(config_class))).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for field, text in zip(definition.body, definition.body[1:], strict=False):
        named = isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if named and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            found[field.target.id] = " ".join(str(text.value.value).split())  # type: ignore[attr-defined]
    return found


class _Explanation:
    """Made when it is read: commands have no use for it."""

    def __init__(self, purpose: str, example: str) -> None:
        self.purpose, self.example = purpose, textwrap.dedent(example).strip()

    def __get__(self, instance: Any, owner: type) -> str:
        return "\n\n".join([self.purpose, self.example, "Settings:\n\n" + "\n".join(_lines(owner))])


def _lines(config_class: Any) -> list[str]:
    try:
        docs = field_docs(config_class)
    except (OSError, TypeError):  # a Python without sources
        docs = {}
    found = []
    for field in settings_of(config_class):
        about = [] if field.default is dataclasses.MISSING else [f"default {field.default!r}"]
        about += [str(BOUNDS[field.name])] if field.name in BOUNDS else []
        found.append(f"{field.name}: {field.type}{f' ({chr(59).join(about)})' if about else ''}".replace(";", "; "))
        found += textwrap.wrap(docs.get(field.name, ""), 100, initial_indent="    ", subsequent_indent="    ")
    return found
