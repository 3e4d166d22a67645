"""Responses that somebody else wrote, in a file: which belongs to which text."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

from softspoken.data.files import file_rows
from softspoken.tasks.task import Words
from softspoken.types import Example, InputError

log = logging.getLogger(__name__)

RESPONSE = "response"
"""What every task's responses may be called in a file."""


def read_responses(
    name: str, path: Path, examples: list[Example], words: Words, *, some: bool = False
) -> dict[str, list[str]]:
    """Id → its responses, of rows of `id` and the task's word for one, such as `summary`, or `response`, as `generate` writes without a task.

    Several for an id are samples; then all ids have as many. Where `some` of the texts are evaluated, rows of others are left out, and
    counted. Raises InputError for what does not fit the system `name` to the texts.
    """
    found: dict[str, list[str]] = {identity: [] for identity in _ids(name, examples)}
    others: dict[str, None] = {}
    for number, row in enumerate(file_rows(path), start=1):
        identity, text = row.get("id"), row.get(words.response, row.get(RESPONSE))
        identity = str(identity) if isinstance(identity, int) else identity
        if not isinstance(identity, str) or not isinstance(text, str):
            raise InputError(f"system {name!r}: row {number} of {path} needs text in 'id' and '{words.response}'")
        if identity in found:
            found[identity].append(text)
        else:
            others[identity] = None
    if others and some:
        log.info("system %s: %d of the ids in %s are not among what is evaluated", name, len(others), path)
    _require_each(name, path, found, [] if some else list(others), words)
    _require_as_many(name, path, found, words)
    return found


def as_ours(text: str, *, strip: bool) -> str:
    """Somebody else's response as a model's own is kept: without the white space around it, but in tasks where that counts (`Task.strip`)."""
    return text.strip() if strip else text


def _ids(name: str, examples: list[Example]) -> list[str]:
    counts = Counter(example.id for example in examples)
    identity, count = counts.most_common(1)[0]
    if count > 1:
        raise InputError(
            f"system {name!r}: the dataset has id {identity!r} {count} times, so a file cannot say which it means"
        )
    return list(counts)


def _require_each(name: str, path: Path, found: dict[str, list[str]], others: list[str], words: Words) -> None:
    missing = [identity for identity, own in found.items() if not own]
    wrong = {f"{words.texts} have no {words.response} in it": missing, f"of its ids are no {words.text}'s": others}
    parts = [f"{len(ids)} {what} (the first: {', '.join(ids[:3])})" for what, ids in wrong.items() if ids]
    if parts:
        raise InputError(
            f"system {name!r}: {path} does not fit the {words.texts}: {' and '.join(parts)}; give one {words.response} for each id"
        )


def _require_as_many(name: str, path: Path, found: dict[str, list[str]], words: Words) -> None:
    most = Counter(map(len, found.values())).most_common(1)[0][0]
    odd = next((identity for identity, own in found.items() if len(own) != most), None)
    if odd is not None:
        raise InputError(
            f"system {name!r}: {path} has {len(found[odd])} {words.responses} for id {odd!r} and {most} for others; give each as many"
        )
