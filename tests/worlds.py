"""Several processes that run one thing, as a launcher would start them, at the cost of a fork each."""

import json
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ports import reserved_port


def in_processes(count: int, work: Callable[[], Any], *, limit: float = 300) -> list[Any]:
    """What `work` returns in each of `count` processes, by rank; JSON. Raises RuntimeError with what went wrong in one, or where
    they take longer than `limit` seconds."""
    with reserved_port() as port:
        return _in_processes(count, port, work, limit)


def _in_processes(count: int, port: int, work: Callable[[], Any], limit: float) -> list[Any]:
    sys.stdout.flush()
    sys.stderr.flush()
    pipes, children = [], []
    for rank in range(count):
        read, write = os.pipe()
        if not (child := os.fork()):
            _be(rank, count, port, work, write)
        os.close(write)
        pipes.append(read)
        children.append(child)
    try:
        found = [_read(pipe, time.monotonic() + limit) for pipe in pipes]
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        for pipe in pipes:
            os.close(pipe)
    wrong = [f"process {rank}: {error}" for rank, (_, error) in enumerate(found) if error]
    if wrong:
        raise RuntimeError("\n".join(wrong))
    return [result for result, _ in found]


def _be(rank: int, count: int, port: int, work: Callable[[], Any], write: int) -> None:
    """The child, which does not return."""
    said: tuple[Any, str] = (None, "it ended without a word")
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        torch.set_num_threads(1)  # those of the parent are not here
        os.environ |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(count),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        said = (work(), "")
    except BaseException as error:
        said = (None, f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
    finally:
        with os.fdopen(write, "w") as pipe:
            json.dump(said, pipe)
        os._exit(0)


def _read(pipe: int, until: float) -> tuple[Any, str]:
    parts = []
    while True:
        ready, _, _ = select.select([pipe], [], [], max(0.0, until - time.monotonic()))
        if not ready:
            return None, "it took too long"
        part = os.read(pipe, 1 << 16)
        if not part:
            result, error = json.loads(b"".join(parts) or b'[null, "it was killed"]')
            return result, error
        parts.append(part)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
