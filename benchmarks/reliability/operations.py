"""Every operation that changes files, as it is asked for: opened for writing, written, renamed, deleted, made, synced.

What Python does is seen, and the whole files that safetensors and torch write on their own; of a library in Rust or C no more than that.
"""

from __future__ import annotations

import builtins
import io
import os
import pathlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

CALLS = ("replace", "rename", "unlink", "remove", "mkdir", "rmdir", "fsync", "truncate", "ftruncate")
Before = Callable[[str], object]
"""Is told of an operation before it happens, and may raise instead of returning."""


class _Watched(io.FileIO):
    """Half of what is written is there when the other half is asked for: a write is not one operation for a disk either."""

    before: Before

    def write(self, content: Any) -> int:
        content = memoryview(content).cast("B")
        half = len(content) // 2
        self.before("write")
        if half:
            super().write(content[:half])
            self.before("write")
        return half + (super().write(content[half:]) or 0)

    def truncate(self, size: int | None = None) -> int:
        self.before("truncate")
        return super().truncate(size)


@contextmanager
def watching(before: Before) -> Iterator[None]:
    """Inside, `before` is called with the kind of each operation."""
    calls = {name: _told(before, name, getattr(os, name)) for name in CALLS}
    opening = _open(before, io.open)
    with (
        patch.multiple(os, **calls),
        patch.object(io, "open", opening),
        patch.object(builtins, "open", opening),
        _paths(calls | {"open": opening}),
        _libraries(before),
    ):
        yield


def _paths(calls: dict[str, Any]) -> AbstractContextManager[object]:
    """Python 3.10's pathlib looks its calls up once, when it is imported; later ones ask `os` and `io` each time."""
    accessor = getattr(pathlib, "_normal_accessor", None)
    if accessor is None:
        return nullcontext()
    return patch.multiple(accessor, **{name: call for name, call in calls.items() if hasattr(accessor, name)})


def _told(before: Before, kind: str, real: Any) -> Any:
    def call(*arguments: Any, **options: Any) -> Any:
        before(kind)
        return real(*arguments, **options)

    return call


def _open(before: Before, real: Any) -> Any:
    def call(
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: Any = None,
        errors: Any = None,
        newline: Any = None,
        closefd: bool = True,
        opener: Any = None,
    ) -> Any:
        if not {*mode} & {*"wax+"} or not isinstance(file, str | os.PathLike) or buffering == 0:
            return real(file, mode, buffering, encoding, errors, newline, closefd, opener)
        before("open")
        raw = _Watched(file, mode.replace("b", "").replace("t", ""), closefd, opener)
        raw.before = before
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        if "b" in mode:
            return buffered
        return io.TextIOWrapper(buffered, encoding, errors, newline, line_buffering=buffering == 1)

    return call


@contextmanager
def _libraries(before: Before) -> Iterator[None]:
    """A file that a library writes has half of its bytes when the second operation is asked for."""
    import safetensors.torch
    import torch

    def halved(real: Any, place: int) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            before("library")
            done = real(*arguments, **options)
            path = arguments[place]
            if isinstance(path, str | os.PathLike):
                content = Path(path).read_bytes()
                _put(path, content[: len(content) // 2])
                before("library")
                _put(path, content)
            return done

        return call

    with (
        patch.object(safetensors.torch, "serialize_file", halved(safetensors.torch.serialize_file, 1)),
        patch.object(torch, "save", halved(torch.save, 1)),
    ):
        yield


def _put(path: str | os.PathLike[str], content: bytes) -> None:
    """Unseen."""
    handle = os.open(path, os.O_WRONLY | os.O_TRUNC)
    while content:
        content = content[os.write(handle, content) :]
    os.close(handle)
