"""Nonsense → exit 0 or 2 with one line, in bounded time and memory. In one process a block, for a process an input would take hours."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import random
import resource
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.records import Record, append, read_lines, write_lines
from benchmarks.reliability.children import cpu_seconds
from benchmarks.reliability.nonsense import KINDS

BLOCK = 500
SLOW = dict.fromkeys(("adapter folders", "run folders", "bombs"), 40)
"""In place of BLOCK, for what takes a good part of a second."""
FEW = 10
"""The same, in the short form."""
BOUND = 60.0
"""Seconds of CPU for one input, most of which take milliseconds."""
MEMORY = 1 << 30
"""Bytes that the process may take beyond those that it begins with; an input that needs more is out of memory."""


def blocks(inputs: int) -> list[tuple[str, int]]:
    """Of each kind in turn, so that a part of them is a part of each."""
    counts = {kind: max(1, round(inputs * share / 100 / size_of(kind))) for kind, (share, _) in KINDS.items()}
    numbered = [(number / count, kind, number) for kind, count in counts.items() for number in range(count)]
    return [(kind, number) for _, kind, number in sorted(numbered)]


def size_of(kind: str) -> int:
    return SLOW.get(kind, BLOCK)


def block(kind: str, number: int, folder: Path, size: int) -> Record:
    """So many inputs; what a process did not come to the end of is said, and another goes on after it."""
    note, first = folder / ".inputs.jsonl", number * BLOCK
    note.unlink(missing_ok=True)
    done, lines = 0, []
    while done < size:
        pid = os.fork()
        if pid == 0:
            _work(kind, range(first + done, first + size), folder, note)
        seen, begun = 0, 0.0
        while os.waitpid(pid, os.WNOHANG)[0] == 0:
            time.sleep(0.05)
            if note.is_file() and note.stat().st_size != seen:
                seen, begun = note.stat().st_size, cpu_seconds(pid)
            if cpu_seconds(pid) - begun > BOUND:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                break
        lines = read_lines(note)
        if len(lines) < size:  # the process is gone in the middle of one
            lines.append({"input": first + len(lines), "status": None, "wrong": "it hung or died", "seconds": BOUND})
            write_lines(note, lines)
        done = len(lines)
    wrong = [{"input": one["input"], "said": one["wrong"], "argv": one.get("argv")} for one in lines if one["wrong"]]
    statuses = Counter(str(one["status"]) for one in lines)
    longest, most = max(one["seconds"] for one in lines), max(one.get("grown", 0) for one in lines)
    return {
        "kind": kind,
        "block": number,
        "inputs": size,
        "exit": statuses,
        "seconds": longest,
        "grown": most,
        "wrong": wrong,
    }


def _work(kind: str, numbers: range, folder: Path, note: Path) -> None:
    os.chdir(folder)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nowhere, descriptor)
    with contextlib.suppress(BaseException):
        _stand_still(kind)
        soft = _size() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (soft, soft))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for number in numbers:
            rng = random.Random(f"{kind} {number}")
            argv, content = KINDS[kind][1](rng, folder)
            begun = time.process_time()
            status, said = command(argv, content)
            found = {
                "input": number,
                "status": status,
                "wrong": _wrong(status, said),
                "seconds": time.process_time() - begun,
            }
            found["grown"] = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
            append(note, {**found, **({"argv": argv} if found["wrong"] else {})})
    os._exit(0)


def command(argv: list[str], content: bytes) -> tuple[int | None, str]:
    """Exit status (None for an exception) and what was said on standard error."""
    from softspoken.cli.main import main

    streams = [io.TextIOWrapper(io.BytesIO(content if not n else b""), "utf-8", write_through=True) for n in range(3)]
    kept = sys.stdin, sys.stdout, sys.stderr
    sys.stdin, sys.stdout, sys.stderr = streams
    try:
        status: int | None = main(argv)
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException as error:
        status = None
        print(f"{type(error).__name__}: {error}"[:300], file=streams[2])
    finally:
        sys.stdin, sys.stdout, sys.stderr = kept
    streams[2].flush()
    return status, streams[2].buffer.getvalue().decode("utf-8", "replace")  # type: ignore[attr-defined]


def _wrong(status: int | None, said: str) -> str:
    lines = said.split("\n")[:-1]
    errors = [line for line in lines if line.startswith("softspoken: error: ")]
    one_line = len(errors) == 1 and lines[-1] == errors[0] if status == 2 else not errors
    shown = all(
        line.isprintable() or all(one.isprintable() or one == "\u3000" or one.isspace() for one in line)
        for line in lines
    )
    warned = [line for line in lines if line.startswith("softspoken: warning: ")]
    fine = (
        len({*warned}) == len(warned)
        and status in (0, 2)
        and one_line
        and shown
        and "Traceback" not in said
        and "SOFTSPOKEN_DEBUG" not in said
    )
    return "" if fine else f"exit {status}: {said[-500:]}"


def _size() -> int:
    """Of the process's address space, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def _stand_still(kind: str) -> None:
    """What takes long and is not what is tried: parsers are made once, models loaded once, and what could begin does not."""
    from softspoken.cli import flags, main
    from softspoken.inference import generator
    from softspoken.rewards import judges, terms

    parser, top = functools.cache(flags._parser), flags._top
    made: list[Any] = []
    flags._parser = parser  # type: ignore[assignment]
    flags._top = lambda parsers: made[0] if made else made.append(top(parsers)) or made[0]  # type: ignore[func-returns-value]
    for name in main._COMMANDS if kind in ("flags", "YAML") else ("train",):
        main._COMMANDS[name] = _accepted
    loaded: dict[str, Any] = {}
    real = generator.Generator.from_pretrained

    def from_pretrained(model: str, *, adapter: str | None = None, **options: Any) -> Any:
        if adapter:
            return real(model, adapter=adapter, **options)
        found = loaded.get(model) or loaded.setdefault(model, real(model, **options))
        found.prompt_format = options["prompt_format"]
        return found

    generator.Generator.from_pretrained = from_pretrained  # type: ignore[method-assign,assignment]
    judges.load_judge = terms.load_judge = functools.cache(terms.load_judge)


def _accepted(config: Any) -> None:
    """The settings hold; of a training that goes on, its folder is read as well."""
    if not isinstance(getattr(config, "resume", None), str):
        return
    from softspoken.rl.checkpoint import saved_config
    from softspoken.training import start

    with start.folder_of(config) as folder:
        saved_config(folder.path / start.CONFIG_FILE)
