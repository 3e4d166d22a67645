"""eval_rows.jsonl while it is being written: a window at a time, each safe on the disk before the next, so that a run that was
stopped goes on from there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from softspoken.types import InputError

ROWS_FILE = "eval_rows.jsonl"
PARTIAL_FILE = f".{ROWS_FILE}.partial"
STATE_FILE = f".{ROWS_FILE}.state.json"
Row = dict[str, Any]


class RowsFile:
    """Rows of finished windows, by the windows' names. `made_of` is what the rows depend on: only the same goes on."""

    def __init__(self, output: Path, made_of: dict[str, Any], *, resume: bool) -> None:
        self.output, self.partial, self.state = output, output / PARTIAL_FILE, output / STATE_FILE
        self.made_of: dict[str, Any] = json.loads(json.dumps(made_of))  # as it will be read again
        self.windows: dict[str, tuple[int, int]] = {}
        """Name → where its rows begin and end in the file."""
        self.counts: dict[str, int] = {}
        """Name → how many of the window's dialogues were cut."""
        if resume and is_started(output):
            self._read_state()
        self._file = self.partial.open("r+b" if self.windows else "w+b")
        self._file.truncate(self._end)  # what a crash left of a window that was not finished

    @property
    def _end(self) -> int:
        return max((end for _, end in self.windows.values()), default=0)

    def __contains__(self, window: str) -> bool:
        return window in self.windows

    def __enter__(self) -> RowsFile:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._file.close()
        if not self.windows:  # there is nothing to go on with
            self.partial.unlink(missing_ok=True)

    def add(self, window: str, rows: list[Row], cut: int = 0) -> None:
        """The rows first, then the note that they are whole."""
        begin = self._file.seek(self._end)
        self._file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
        self._file.flush()
        os.fsync(self._file.fileno())
        self.windows[window], self.counts[window] = (begin, self._file.tell()), cut
        beside = self.state.with_name(f"{STATE_FILE}.saving")
        beside.write_text(
            json.dumps({"made_of": self.made_of, "windows": self.windows, "cut": self.counts}), encoding="utf-8"
        )
        beside.replace(self.state)

    def read(self, window: str) -> list[Row]:
        begin, end = self.windows[window]
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
        """The file gets its name."""
        self._file.close()
        self.partial.replace(self.output / ROWS_FILE)
        self.state.unlink(missing_ok=True)

    def _read_state(self) -> None:
        try:
            saved = json.loads(self.state.read_text(encoding="utf-8"))
            made_of, windows, counts = saved["made_of"], saved["windows"], saved["cut"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"resume: {self.state} cannot be read ({error}); pass --overwrite true to start again"
            ) from error
        other = [name for name in {**made_of, **self.made_of} if made_of.get(name) != self.made_of.get(name)]
        if other:
            raise InputError(
                f"resume: the evaluation in {self.output} was started with another {', '.join(sorted(other))}; "
                "give the same command, or --overwrite true to start again"
            )
        self.windows, self.counts = {name: tuple(span) for name, span in windows.items()}, counts


def is_started(output: Path) -> bool:
    """Whether an evaluation was stopped here that can be gone on with."""
    return (output / STATE_FILE).is_file() and (output / PARTIAL_FILE).is_file()


def discard(output: Path) -> None:
    for name in (STATE_FILE, PARTIAL_FILE):
        (output / name).unlink(missing_ok=True)
