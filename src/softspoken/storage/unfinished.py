"""What a training was started with: a file in its folder until it is at its end, so that one that goes on is the same."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from softspoken.data.reading import name_of, record_of
from softspoken.types import InputError

log = logging.getLogger(__name__)


def settings_of(config: Any, rows: list[list[Any]]) -> dict[str, Any]:
    """What must be as it was: every setting but where to, and a digest of what is trained on."""
    settings = {
        name: value
        for name, value in asdict(replace(config, dataset=record_of(config.dataset))).items()
        if name not in ("output", "overwrite", "resume")
    }
    return {**settings, "rows": hashlib.sha256(json.dumps(rows).encode()).hexdigest()}


def require_same(config: Any, rows: list[list[Any]], path: Path) -> None:
    """Raises InputError that names the first setting of the training whose settings lie at `path` that is now another."""
    if not path.is_file():
        log.info("resume: no training was begun in %s; starting one", path.parent)
        return
    try:
        saved = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"resume: {path} cannot be read ({error}); start again with --overwrite true") from error
    now = settings_of(config, rows)
    other = [name for name in now if saved.get(name) != now[name]]
    if other == ["rows"]:
        raise InputError(
            f"resume: the rows of {name_of(config.dataset)} are not those the training in {path.parent} was started with; restore them"
        )
    if other:
        raise InputError(
            f"resume: the training in {path.parent} was started with {other[0]} {saved.get(other[0])!r}, not {now[other[0]]!r}; "
            "give the same, or --overwrite true to start again"
        )
