"""What the machine refuses (a full disk, a folder that is gone, memory that ran out) as one sentence and an exit status."""

from __future__ import annotations

import errno
import os
import re
from typing import Any

USERS = {
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ENOTDIR: "a part of it is a file: give a folder, or another name",
    errno.EISDIR: "it is a folder: give a file, or another name",
    errno.EEXIST: "something of that name is there already: give another name",
    errno.ENOTEMPTY: "there is something in it: give another name",
    errno.EACCES: "change its permissions, or give another place",
    errno.EPERM: "change its permissions, or give another place",
    errno.EROFS: "nothing can be written there: give another place",
    errno.ELOOP: "it is a link that leads back to itself: give another place",
}
"""What a user mends by giving another path: exit status 2."""
MACHINES = {
    errno.ENOSPC: "make room there, or give an output on another disk",
    errno.EDQUOT: "make room there, or give an output on another disk",
    errno.ENOENT: "it, or the folder it lies in, is not there any more: put it back, or start again",
    errno.ESTALE: "it is not there any more: put it back, or start again",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "close what else is running",
    errno.ENOMEM: "free some memory, or lower the batch size",
    errno.EIO: "the disk or the network drive that it is on fails: look after that first",
}
"""What happened to a run whose input was in order: exit status 1."""


def told(error: BaseException, config: Any) -> tuple[str, int] | None:
    """The sentence and the exit status for `error`, which the command with the settings `config` raised (None before it began);
    None where it is not the machine's doing."""
    for one in _chain(error):
        kinds = {kind.__name__ for kind in type(one).__mro__}
        if kinds & {"MemoryError", "OutOfMemoryError"} or "can't allocate memory" in str(one):
            return "out of memory: lower batch_size or micro_batch_size, or take a smaller model or another device", 1
        number = _number(one)
        if number is not None:
            return _sentence(number, one, config)
        if "PytorchStreamWriter" in str(one):  # torch.save, which says no more
            return f"{_output(config)}: a file could not be written whole; is there room on the disk?", 1
    return None


def _sentence(number: int, error: BaseException, config: Any) -> tuple[str, int]:
    where = getattr(error, "filename2", None) or getattr(error, "filename", None)
    if isinstance(where, bytes):
        where = os.fsdecode(where)
    place = where if isinstance(where, str) and where else _output(config)
    remedy = USERS.get(number) or MACHINES.get(number)
    return f"{place}: {os.strerror(number)}{f'; {remedy}' if remedy else ''}", 2 if number in USERS else 1


def _number(error: BaseException) -> int | None:
    """Of the system's error: Python's, or what a library written in Rust says in words."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None


def _output(config: Any) -> str:
    """Where the command writes: a write to a file that is open does not say which it is."""
    return str(getattr(config, "output", None) or getattr(config, "resume", None) or "the run's folder")


def _chain(error: BaseException | None) -> list[BaseException]:
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain
