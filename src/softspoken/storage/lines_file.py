"""A file of JSON lines that a command writes: beside, where one process has it at a time and a stop loses a window, then renamed.

FILE's lines lie in .FILE.unfinished until they are all there; with them what they depend on, for only the same command goes on.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from softspoken.runtime.interrupt import Interrupted
from softspoken.storage.run_folder import RunFolder, require_place, saying_what_is_wrong, stamps, sync_folder
from softspoken.types import InputError

log = logging.getLogger(__name__)

LINES = "lines.jsonl"
SETTINGS = "settings.json"
"""There from the beginning of LINES to the end of all."""
ABOUT_THE_FILE = ("output", "overwrite", "resume")


class LinesFile:
    """One process's, from `with` to its end. `begin` says what is there already, `finish` gives the file its name."""

    def __init__(self, command: str, settings: dict[str, Any], *, inputs: Sequence[str | None], key: str) -> None:
        """`settings`: the command's, with output, overwrite and resume; `inputs`: files and models among them; `key`: what each
        line has, by which a file of ours is known. Raises InputError where the output must not be."""
        output = settings["output"]
        require_place(output, inputs)
        with saying_what_is_wrong(Path(output)):
            self.path = Path(output).resolve()  # a link stays one
            self._refuse_what_is_not_ours(key)
        self._command, self._resume, self._overwrite = command, settings["resume"], settings["overwrite"]
        depends = {name: value for name, value in settings.items() if name not in ABOUT_THE_FILE}
        self._made_of = json.loads(json.dumps({**depends, "files": stamps([one for one in inputs if one])}))
        self._folder = RunFolder(self.path.with_name(f".{self.path.name}.unfinished"), add=True)
        self._begun = False
        self._file: BinaryIO | None = None

    def __enter__(self) -> LinesFile:
        self._folder.__enter__()
        try:
            self._check()
            if self.is_finished and self._folder.path.exists():  # stopped in the last moment
                self._folder.begin()
                self._begun = True
        except BaseException:
            self._folder.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        lines = self._folder.path / LINES
        if self._begun:
            if self._file:
                self._file.close()
            if not lines.is_file() or not lines.stat().st_size:
                self._folder.remove(SETTINGS, LINES)  # it is at its end, or there is nothing to go on with
            elif isinstance(error, Interrupted):
                error.go_on = f"softspoken {self._command} … --resume true"
        self._folder.__exit__(kind, error, trace)
        if self._begun and not lines.is_file():
            with suppress(OSError):  # another process has it by now
                self._folder.path.rmdir()

    @property
    def is_finished(self) -> bool:
        """Whether there is nothing left to do: asked to go on, with a file that is whole."""
        begun = (self._folder.path / LINES).is_file() or not (self._folder.path / SETTINGS).is_file()
        return self._resume and self.path.is_file() and not (self._folder.path.exists() and begun)

    def begin(self, window: int) -> int:
        """How many lines are there already, in whole windows of `window` lines, which is how they were made."""
        self._folder.begin()
        going_on = self._resume and self._folder.has(SETTINGS) and self._folder.has(LINES)
        if not going_on:
            self._folder.remove(SETTINGS, LINES)
            self._folder.claim(LINES)
        self._begun = True
        self._file = (self._folder.path / LINES).open("r+b" if going_on else "w+b")
        if not going_on:
            self._folder.write(SETTINGS, json.dumps(self._made_of) + "\n")
        done, end = _whole(self._file, window)
        self._file.seek(end)
        self._file.truncate()  # what a stop left of a window that was not finished
        if going_on:
            log.info("resume: %d lines of %s are there already", done, self.path)
        return done

    def write(self, line: str) -> None:
        self.writelines([line])

    def writelines(self, lines: Iterable[str]) -> None:
        assert self._file
        self._file.writelines(line.encode() for line in lines)

    def flush(self) -> None:
        assert self._file
        self._file.flush()

    def finish(self) -> None:
        assert self._file
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        (self._folder.path / LINES).replace(self.path)
        sync_folder(self.path.parent)

    def _refuse_what_is_not_ours(self, key: str) -> None:
        if not os.path.lexists(self.path):
            return
        if not self.path.is_file():
            raise InputError(f"output {self.path} is not a file; give the name of one")
        with self.path.open("rb") as file:
            first = file.readline(10_000_000)
        if first and not (_is_whole(first) and isinstance(row := json.loads(first), dict) and key in row):
            raise InputError(
                f"output {self.path} holds what softspoken has not written; give another name, or move it elsewhere"
            )

    def _check(self) -> None:
        note = self._folder.path / SETTINGS
        if self._overwrite:
            return
        if note.is_file() and not self._resume:
            raise InputError(
                f"output {self.path} was begun and stopped; pass --resume true to go on with it, or --overwrite true to start again"
            )
        if note.is_file():
            self._require_same(note)
        elif self.path.exists() and not self._resume:
            raise InputError(f"output {self.path} is there; pass --overwrite true to replace it, or give another name")
        elif self._resume:
            log.info("resume: nothing of %s is unfinished", self.path)

    def _require_same(self, note: Path) -> None:
        try:
            saved = dict(json.loads(note.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise InputError(f"resume: {note} cannot be read ({error}); start again with --overwrite true") from error
        for name in {**saved, **self._made_of}:
            if saved.get(name) != self._made_of.get(name):
                raise InputError(
                    f"resume: {self.path} was begun with another {name}; give the same command, or --overwrite true to start again"
                )


def _is_whole(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return line.endswith(b"\n")


def _whole(file: BinaryIO, window: int) -> tuple[int, int]:
    """Lines in whole windows, and the bytes they take; after a power cut what follows may be anything."""
    done = end = 0
    while len(lines := list(islice(file, window))) == window and all(map(_is_whole, lines)):
        done, end = done + window, end + sum(map(len, lines))
    return done, end
