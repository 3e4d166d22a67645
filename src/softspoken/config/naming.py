"""NAME=SOURCE: what the systems of an evaluation, and the adapters that are served, are called."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from softspoken.types import InputError

HUMAN, BASE, TUNED = "human", "base", "tuned"


def named_adapters(adapters: Sequence[str]) -> dict[str, list[str]]:
    """Name → its folders (or hub ids), one for each training seed: a name given more than once is one system.

    Without a name, one adapter is `tuned`; several go by their folders' names (a run's for its `adapter` folder), longer where
    those are the same.
    """
    plain = [adapter for adapter in adapters if not _split(adapter)]
    names = dict(zip(plain, folder_names(plain, alone=len(adapters) == 1), strict=True))
    systems: dict[str, list[str]] = {}
    for adapter in adapters:
        name, folder = _split(adapter) or (names[adapter], adapter)
        if folder in systems.setdefault(name, []):
            raise InputError(f"adapter {folder} is given twice for {name!r}; give each training's own folder")
        systems[name].append(folder)
    return systems


def folder_names(folders: list[str], *, alone: bool) -> list[str]:
    if alone:
        return [TUNED] * len(folders)
    parts = [Path(folder).parts for folder in folders]
    parts = [part[:-1] if part[-1] == "adapter" and len(part) > 1 else part for part in parts]
    for depth in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len({*names, HUMAN, BASE}) == len(names) + 2:
            return names
    if not folders:
        return []
    raise InputError(
        f"adapter: {', '.join(folders)} do not have distinct names; give each once, in a folder of its own name or as NAME=FOLDER"
    )


def named_sources(given: Sequence[str]) -> dict[str, list[str]]:
    """Name → files or models, of the systems that are not adapters."""
    found: dict[str, list[str]] = {}
    for one in given:
        split = _split(one)
        if not split:
            raise InputError(f"system {one!r} has no name; write NAME=FILE.jsonl or NAME=MODEL_FOLDER")
        found.setdefault(split[0], []).append(split[1])
    return found


def served_adapters(adapters: Sequence[str]) -> dict[str, str | None]:
    """Name → folder or hub id; of none at all the base alone."""
    named = named_adapters(adapters)
    twice = [name for name, folders in named.items() if len(folders) > 1]
    if twice:
        raise InputError(f"adapter: {twice[0]!r} is the name of two; give one of them another, as NAME=FOLDER")
    return {name: folders[0] for name, folders in named.items()} or {BASE: None}


def _split(given: str) -> tuple[str, str] | None:
    """NAME=SOURCE; a path with = in it is not one."""
    match = re.fullmatch(r"([^=/\\]+)=(.+)", given)
    return (match[1], match[2]) if match and not Path(given).exists() else None
