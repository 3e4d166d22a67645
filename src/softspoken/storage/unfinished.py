"""A training that writes its result into a folder, stopped and gone on with: what it was started with lies there until it is at its end, so
that one that goes on is the same."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from softspoken.data.reading import name_of, record_of
from softspoken.runtime import processes
from softspoken.runtime.interrupt import Interrupted
from softspoken.storage.run_folder import RunFolder, passing_folder, require_place
from softspoken.types import InputError

log = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"
RESULTS = ("config.json", "adapter_config.json")
"""One of which is there once all is written: a model's, or an adapter's."""


def settings_file(command: str) -> str:
    """There while a training is not at its end: the settings that it was started with."""
    return f"{command}.json"


def to_its_end(command: str, config: Any, inputs: list[str | None], train: Callable[[RunFolder], None]) -> Path:
    """`train` in the folder `config.output`, which is returned, unless it is to go on and had come to its end. `inputs` are what is read,
    where nothing may be written. Its checkpoints go when all is written. Of several processes the first has the folder."""
    require_place(config.output, inputs)
    with _folder_of(config) as folder:
        if processes.from_first(config.resume and _is_finished(folder.path, command)):
            log.info("resume: the training in %s had come to its end", folder.path)
            folder.begin()
        else:
            try:
                train(folder)
            except Interrupted as stopped:
                if config.resume or folder.has(settings_file(command)):
                    stopped.go_on = f"softspoken {command} … --resume true"
                raise
            folder.remove(settings_file(command))  # before the checkpoints: without it the training is at its end
        folder.remove(CHECKPOINTS)
        return folder.path


def _folder_of(config: Any) -> RunFolder:
    if not processes.first():
        return passing_folder()
    return RunFolder(config.output, replace=config.overwrite, add=config.resume, go_on="--resume true")


def begin(folder: RunFolder, command: str, config: Any, rows: list[list[Any]]) -> None:
    """Take the folder, and write down what is started, unless it was."""
    folder.begin()
    if not folder.has(settings_file(command)):
        folder.write(settings_file(command), json.dumps(settings_of(config, rows), indent=1) + "\n")


def _is_finished(path: Path, command: str) -> bool:
    return not (path / settings_file(command)).is_file() and any((path / name).is_file() for name in RESULTS)


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
    except (OSError, ValueError, TypeError, RecursionError) as error:
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
