"""How a run's training ended, which it writes itself, in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from softspoken.types import InputError

END_FILE = "end.json"
"""After which step a run's training ended, why, whether it had collapsed, which step's weights it kept, and the figures of the
evaluation of what it started from, where there are some."""


def read_end(folder: Path) -> dict[str, Any] | None:
    """None of a run that is not at its end, or is from before there was such a record. Raises InputError for a damaged one."""
    path = folder / END_FILE
    if not path.is_file():
        return None
    try:
        end = json.loads(path.read_text(encoding="utf-8"))
        wrong = [name for name in ("step", "of", "kept") if not isinstance(end[name], int)]
        wrong += [name for name in ("why",) if not isinstance(end[name], str)]
        wrong += [name for name, figure in end.get("start", {}).items() if not isinstance(figure, int | float)]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path} does not say how a run ended ({error}); restore it, or go on with --resume {folder}"
        ) from error
    if wrong:
        raise InputError(
            f"{path} does not say how a run ended ({wrong[0]} is damaged); restore it, or go on with --resume {folder}"
        )
    told: dict[str, Any] = end
    return told


def end_in_words(end: dict[str, Any]) -> str:
    early = end["step"] != end["of"]
    where = f"after step {end['step']} of {end['of']} ({end['why']})" if early else end["why"]
    kept = "the last weights" if end["kept"] == end["step"] else f"the weights of step {end['kept']}"
    return f"{where}; kept are {kept}"


def collapsed(end: dict[str, Any]) -> bool:
    """By what the run says of itself or, before it did, by its reason."""
    return bool(end.get("collapsed", end["why"].startswith("collapse")))
