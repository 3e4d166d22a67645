"""eval_rows.jsonl while it is being written: a window at a time, each safe on the disk before the next, so that a run that was
stopped goes on from there."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from softspoken.runtime import processes
from softspoken.storage.run_folder import RunFolder
from softspoken.types import Example, InputError

log = logging.getLogger(__name__)

ROWS_FILE = "eval_rows.jsonl"
PARTIAL_FILE = f".{ROWS_FILE}.partial"
STATE_FILE = f".{ROWS_FILE}.state.json"
Row = dict[str, Any]
Span = tuple[int, int, str]
"""Where a window's rows begin and end in the file, in bytes, and their SHA-256."""


ROW_BYTES = 600
"""Of a row without its texts, as a rule: names, scores, metrics."""


def rows_bytes(examples: list[Example], each: int) -> int:
    """What `each` responses to each example take on the disk, of which every row has the example's own texts with it."""
    return each * sum(ROW_BYTES + len(f"{example.text}{example.reference or ''}".encode()) for example in examples)


class RowsFile:
    """Rows of finished windows, by the windows' names. `made_of` is what the rows depend on: only the same goes on."""

    def __init__(self, folder: RunFolder, made_of: dict[str, Any], *, resume: bool) -> None:
        self.folder, self.partial = folder, folder.path / PARTIAL_FILE
        self.made_of: dict[str, Any] = json.loads(json.dumps(made_of))  # as it will be read again
        self.windows: dict[str, Span] = {}
        self.counts: dict[str, int] = {}
        """Name → how many of the window's dialogues were cut."""
        if resume:
            self._go_on()
        else:
            discard(folder)
        folder.claim(PARTIAL_FILE, STATE_FILE)
        self._file = self.partial.open("r+b" if self.windows else "w+b")
        self._file.truncate(self._end)  # what a crash left of a window that was not finished

    @property
    def _end(self) -> int:
        return max((end for _, end, _ in self.windows.values()), default=0)

    def __contains__(self, window: str) -> bool:
        return window in self.windows

    def __enter__(self) -> RowsFile:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._file.close()
        if not self.windows:  # there is nothing to go on with
            discard(self.folder)

    def add(self, window: str, rows: list[Row], cut: int = 0) -> None:
        """The rows first, then the note that they are whole."""
        begin = self._file.seek(self._end)
        content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
        self._file.write(content)
        self._file.flush()
        os.fsync(self._file.fileno())
        self.windows[window], self.counts[window] = (begin, self._file.tell(), _digest(content)), cut
        state = {"made_of": self.made_of, "windows": self.windows, "cut": self.counts}
        self.folder.write(STATE_FILE, json.dumps(state))

    def as_in_the_first(self) -> None:
        """Of several processes, all have the windows that the first found to go on with."""
        windows = processes.from_first({name: [self.read(name), self.counts[name]] for name in self.windows})
        for name, (rows, cut) in windows.items():
            if name not in self:
                self.add(name, rows, cut)

    def read(self, window: str) -> list[Row]:
        begin, end, _ = self.windows[window]
        self._file.seek(begin)
        return [json.loads(line) for line in self._file.read(end - begin).splitlines()]

    def __iter__(self) -> Iterator[Row]:
        """All rows, a window in memory at a time."""
        for window in self.windows:
            yield from self.read(window)

    def cut(self, *names: str) -> list[int]:
        """Of the windows whose names begin so."""
        return [count for window, count in self.counts.items() if window.startswith("|".join([*names, ""]))]

    def finish(self) -> None:
        """The file gets its name; the note of the windows stays until `discard`, for a stop in between."""
        self._file.close()
        self.folder.rename(PARTIAL_FILE, ROWS_FILE)

    def _go_on(self) -> None:
        """Take over what was measured before a stop: the windows that the file holds as the note has them."""
        folder = self.folder
        saved = _state(folder.path)
        if saved is None:
            return
        other = [
            name
            for name in {**saved["made_of"], **self.made_of}
            if saved["made_of"].get(name) != self.made_of.get(name)
        ]
        if other:
            raise OtherEvaluation(
                f"resume: the evaluation in {folder.path} was started with another {', '.join(sorted(other))}; "
                "give the same command, or --overwrite true to start again"
            )
        if not self.partial.is_file() and (folder.path / ROWS_FILE).is_file():  # stopped after it had got its name
            folder.rename(ROWS_FILE, PARTIAL_FILE)
        whole = 0
        with self.partial.open("rb") if self.partial.is_file() else io.BytesIO() as file:
            for name, (begin, end, digest) in saved["windows"].items():  # in their order
                if begin != whole or _digest(file.read(end - begin)) != digest:
                    log.warning("what %s holds after byte %d is damaged and is measured again", self.partial, whole)
                    break
                whole, self.windows[name], self.counts[name] = end, (begin, end, digest), saved["cut"][name]


class OtherEvaluation(InputError):
    """What was measured before a stop is of another model, dataset, judge or setting."""


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _state(output: Path) -> dict[str, Any] | None:
    """The note of the windows; None, and a warning, where one is there that cannot be used."""
    path = output / STATE_FILE
    if not path.is_file():
        return None
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        spans = [(int(begin), int(end), str(digest)) for begin, end, digest in saved["windows"].values()]
        if not all(begin <= end for begin, end, _ in spans) or saved["cut"].keys() != saved["windows"].keys():
            raise ValueError("it contradicts itself")
        return {**saved, "made_of": dict(saved["made_of"])}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        log.warning("%s cannot be read (%s); measuring from the start", path, error)
        return None


def is_started(output: Path) -> bool:
    """Whether an evaluation was stopped here that can be gone on with."""
    return (output / STATE_FILE).is_file()


def discard(folder: RunFolder) -> None:
    """The evaluation is whole, or is not to be gone on with."""
    folder.remove(STATE_FILE, PARTIAL_FILE)
