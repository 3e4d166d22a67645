"""Which column of a row is the text, and which its references: named by the user, else the task's own, else a usual name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count, permutations, takewhile
from typing import Any

from softspoken.types import InputError

USUAL_TEXTS = ("dialogue", "document", "article", "text", "source", "input")
USUAL_REFERENCES = ("summary", "highlights", "target", "output", "reference")


@dataclass(frozen=True)
class Columns:
    """What to look for in a row. `translation.en` is the `en` of a nested column, unless a column has that very name."""

    text: str | None = None
    """As the user named it."""
    reference: str | None = None
    """As the user named it."""
    own_text: str | None = "dialogue"
    """The task's name for it, where it has one; it goes before the usual ones."""
    own_reference: str | None = "summary"
    wants_reference: bool = True
    pair: str | None = None
    """The task's name of a column that holds text and reference by their languages, as the hub's translation sets have."""
    source: str | None = None
    """The text's language, as the user named it."""
    target: str | None = None
    """The reference's."""


def columns_of(config: Any, task: Any) -> Columns:
    own = {"own_text": task.text_column, "own_reference": task.reference_column, "pair": task.pair_column}
    languages = {"source": config.source_language, "target": config.target_language}
    return Columns(config.text_column, config.reference_column, **own, **languages)


def columns_of_pairs(config: Any, task: Any) -> Columns:
    """Of rows whose responses are given, and need no reference."""
    return Columns(config.text_column, None, task.text_column, None, wants_reference=False)


def require_column(row: Mapping[str, Any], name: str, setting: str, source: str) -> None:
    if not has(row, name):
        raise InputError(f"{source}: no column {name!r} ({setting}); {_what_it_has(row)}")


def find_text(row: Mapping[str, Any], columns: Columns, source: str) -> str:
    """The name of the column that is the text. Raises InputError where there is none or it could be one of several."""
    if columns.text is not None:
        require_column(row, columns.text, "text_column", source)
        return columns.text
    if pair := _pair(row, columns, source):
        return pair[0]
    usual = _own_first(columns.own_text, USUAL_TEXTS)
    found = _one_of([name for name in usual if has(row, name)], columns.own_text, "text", source)
    if found is None:
        raise InputError(
            f"{source}: none of its columns is known to be the text ({', '.join(usual)} would be); {_what_it_has(row)}: name "
            "one with --text_column"
        )
    return found


def find_references(row: Mapping[str, Any], columns: Columns, source: str) -> list[str]:
    """The names of the columns that hold references: NAME or, without it, NAME1, NAME2, …; empty where there is none.

    Raises InputError where it could be one of several.
    """
    if columns.reference is not None:
        return _numbered(row, columns.reference)
    if not columns.wants_reference:
        return []
    if pair := _pair(row, columns, source):
        return [pair[1]]
    usual = _own_first(columns.own_reference, USUAL_REFERENCES)
    found = _one_of([name for name in usual if _numbered(row, name)], columns.own_reference, "reference", source)
    return _numbered(row, found) if found else []


def _pair(row: Mapping[str, Any], columns: Columns, source: str) -> tuple[str, str] | None:
    """The names of text and reference in the task's nested column: those of the languages asked for or, where none is, the first of
    two and the second. Raises InputError where it cannot be told; None where the row has no such column."""
    held = row.get(columns.pair) if columns.pair else None
    if not isinstance(held, Mapping) or len(held) < 2:
        return None
    ranked = sorted(permutations(held, 2), key=lambda two: -_fit(two, columns))
    best = [two for two in ranked if _fit(two, columns) == _fit(ranked[0], columns)]
    text, reference = best[0]
    in_order = not (columns.source or columns.target) and len(held) == 2
    if len(best) > 1 and not in_order:
        names = ", ".join(f"{columns.pair}.{name}" for name in held)
        raise InputError(
            f"{source}: text and reference could be any two of {names}; name them with --text_column and --reference_column"
        )
    return f"{columns.pair}.{text}", f"{columns.pair}.{reference}"


def _fit(names: tuple[str, str], columns: Columns) -> int:
    """How well the columns' names go with the languages asked for."""
    return sum(map(_likeness, names, (columns.source, columns.target)))


def _likeness(name: str, language: str | None) -> int:
    """2 for the same code, whatever script or country it goes on with (en: en_XX, en-GB), 1 for one of two letters that both come in
    one of three, in their order (en: eng_Latn)."""
    code, own = (re.split(r"[-_]", each.lower())[0] for each in (language or "", name))
    if not code or code == own:
        return 2 if code else 0
    short, long = sorted((code, own), key=len)
    return int((len(short), len(long)) == (2, 3) and short[0] == long[0] and short[1] in long[1:])


def _own_first(own: str | None, usual: tuple[str, ...]) -> list[str]:
    return [*filter(None, [own]), *(name for name in usual if name != own)]


def _one_of(candidates: list[str], own: str | None, what: str, source: str) -> str | None:
    if candidates and (candidates[0] == own or len(candidates) == 1):
        return candidates[0]
    if candidates:
        raise InputError(
            f"{source}: the {what} could be any of its columns {', '.join(candidates)}; name one with --{what}_column"
        )
    return None


def _numbered(row: Mapping[str, Any], name: str) -> list[str]:
    if has(row, name):
        return [name]
    return list(takewhile(lambda each: has(row, each), (f"{name}{number}" for number in count(1))))


def has(row: Mapping[str, Any], name: str) -> bool:
    if name in row:
        return True
    outer, dot, inner = name.partition(".")
    return bool(dot) and isinstance(row.get(outer), Mapping) and has(row[outer], inner)


def value_of(row: Mapping[str, Any], name: str) -> Any:
    """None where the row has no such column."""
    if name in row:
        return row[name]
    outer, dot, inner = name.partition(".")
    nested = row.get(outer) if dot else None
    return value_of(nested, inner) if isinstance(nested, Mapping) else None


def _what_it_has(row: Mapping[str, Any]) -> str:
    names = [
        f"{name}.{inner}" if inner else str(name)
        for name, value in row.items()
        for inner in (value if isinstance(value, Mapping) and value else [""])
    ]
    return f"row 1 has {', '.join(names) or 'none'}"
