"""docs/serving.md: the server beside a FastAPI app around model.generate and CTranslate2 in a loop, in one run, in turns; ten times
the requests that it can answer; a soak; and what the guard catches and costs.

.venv/bin/python -m benchmarks.serving --adapter runs/demo/adapter              everything (45 minutes, 30 of them soak)
.venv/bin/python -m benchmarks.serving --adapter … speed overload               these alone: speed, overload, soak, guard
.venv/bin/python -m benchmarks.serving page                                     the page again, from results/cpu.json
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from threading import Thread
from typing import Any

from benchmarks.pages import fill
from benchmarks.provenance import ROOT, commit, describe_machine
from benchmarks.serving.guarding import guarding
from benchmarks.serving.load import Seen, arrivals, bodies_of, load, trouble
from softspoken.config import ExportConfig
from softspoken.data.reading import load_examples
from softspoken.inference.choosing import cores
from softspoken.inference.export import export

RESULTS = Path(__file__).parent / "results" / "cpu.json"
PAGE, TEMPLATE = ROOT / "docs" / "serving.md", Path(__file__).with_name("serving.md.j2")
CLIENTS = (1, 8, 64)
LIMIT = 40
"""Tokens, the demo's own."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, "page", []], help="by default all")
    parser.add_argument("--adapter")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--soak", type=float, default=30, help="minutes")
    parser.add_argument("--threads", type=int, default=cores(), help="of each: torch's, CTranslate2's, and our workers")
    given = parser.parse_args()
    found = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    texts = [example.text for example in load_examples("mini", "test")]
    with tempfile.TemporaryDirectory() as work:
        for part in [one for one in PARTS if one in (given.parts or PARTS)]:
            at = {"machine": describe_machine(given.threads, "cpu"), "commit": commit()}
            found[part] = {**PARTS[part](given, Path(work), texts), **at, "load_average": os.getloadavg()[1]}
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(fill(TEMPLATE, **found), encoding="utf-8")


def speed(given: Any, work: Path, texts: list[str]) -> dict[str, Any]:
    """Rounds, in each of which every server has each number of clients, and then the loop its turn."""
    converted = export(
        ExportConfig(
            str(work / "converted"), adapter=given.adapter, max_new_tokens=LIMIT, format="ctranslate2", check_limit=0
        )
    )
    with ExitStack() as stack:
        plain_app = [sys.executable, "-m", "benchmarks.serving.plain_app", str(_merged(given, work))]
        plain = stack.enter_context(_server(plain_app, given.threads))
        ours = stack.enter_context(_ours(given, work))
        unguarded = stack.enter_context(_ours(given, work, "--guard", "false"))
        direct = stack.enter_context(_direct(converted, texts, given.threads))
        targets = {
            "plain": (plain[0], "/generate", bodies_of(texts, True)),
            "ours": (ours[0], "/v1/generate", bodies_of(texts, False)),
            "unguarded": (unguarded[0], "/v1/generate", bodies_of(texts, False)),
        }
        rounds: dict[str, list[Any]] = {f"{name}-{clients}": [] for name in targets for clients in CLIENTS}
        loops: dict[str, list[float]] = {"1": [], "8": []}
        for number in range(given.rounds):
            for clients in CLIENTS:
                for name, (port, path, bodies) in targets.items():
                    seen = load(port, path, bodies, clients=clients, seconds=given.seconds)
                    rounds[f"{name}-{clients}"].append(_figures(seen))
                    print(number, name, clients, _figures(seen), flush=True)
            for size in loops:
                print(given.seconds, size, file=direct.stdin, flush=True)
                done, seconds = direct.stdout.readline().split()
                loops[size].append(int(done) / float(seconds))
    return {
        "rounds": {name: _medians(found) for name, found in rounds.items()},
        "loops": {size: median(rates) for size, rates in loops.items()},
        "number": given.rounds,
        "seconds": given.seconds,
    }


def overload(given: Any, work: Path, texts: list[str]) -> dict[str, Any]:
    """Ten times as many new clients a second as it answers with 64 that wait."""
    bodies = bodies_of(texts, False)
    with _ours(given, work) as (port, process):
        capacity = load(port, "/v1/generate", bodies, clients=64, seconds=3 * given.seconds).rate
        before = _memory(process)
        seen = arrivals(port, "/v1/generate", bodies, rate=10 * capacity, seconds=6 * given.seconds)
        found = {**_figures(seen), "capacity": capacity, "memory_before": before, "memory_after": _memory(process)}
        found["own"] = _shed_seconds(port)
    print("overload", found, flush=True)
    return found


def soak(given: Any, work: Path, texts: list[str]) -> dict[str, Any]:
    with _ours(given, work) as (port, process):
        return _soak(port, process, texts, given.soak * 60)


def guard(given: Any, work: Path, texts: list[str]) -> dict[str, Any]:
    return {"systems": [guarding(adapter) for adapter in dict.fromkeys([None, given.adapter])]}


PARTS: dict[str, Callable[[Any, Path, list[str]], dict[str, Any]]] = {
    "speed": speed,
    "overload": overload,
    "soak": soak,
    "guard": guard,
}


def _figures(seen: Seen) -> dict[str, Any]:
    shed = [seconds for status, found in seen.answers.items() if status in (429, 503) for seconds in found]
    return {
        "rate": seen.rate,
        "p50": 1000 * seen.quantile(0.5),
        "p95": 1000 * seen.quantile(0.95),
        "p99": 1000 * seen.quantile(0.99),
        "statuses": {str(status): len(found) for status, found in sorted(seen.answers.items())},
        "lost": seen.lost,
        "shed_p50": 1000 * sorted(shed)[len(shed) // 2] if shed else None,
        "shed_p99": 1000 * sorted(shed)[int(len(shed) * 0.99)] if shed else None,
    }


def _medians(found: list[dict[str, Any]]) -> dict[str, float]:
    return {name: median(one[name] for one in found) for name in ("rate", "p50", "p95", "p99")}


def _soak(port: int, process: subprocess.Popen[str], texts: list[str], seconds: float) -> dict[str, Any]:
    """Eight clients that behave and four that do not, and the server's memory as it goes."""
    memory, counts = [_memory(process)], {"killed": 0, "slow": 0, "garbage": 0}
    answers: dict[str, int] = {}
    lost, end = 0, time.monotonic() + seconds

    def misbehave(seed: int) -> None:
        for kind, count in trouble(port, bodies_of(texts, False), seconds, seed).items():
            counts[kind] += count

    threads = [Thread(target=misbehave, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    p99 = []
    while time.monotonic() < end:
        seen = load(port, "/v1/generate", bodies_of(texts, False), clients=8, seconds=min(30.0, seconds / 4))
        lost += seen.lost
        p99.append(1000 * seen.quantile(0.99))
        for status, found in seen.answers.items():
            answers[str(status)] = answers.get(str(status), 0) + len(found)
        memory.append(_memory(process))
        print("soak", answers, lost, f"{memory[-1]:.0f} MB", flush=True)
    for thread in threads:
        thread.join()
    return {
        "minutes": seconds / 60,
        "answers": answers,
        "lost": lost,
        "memory": memory,
        "trouble": counts,
        "p99": max(p99),
    }


def _shed_seconds(port: int) -> float:
    """What a refusal took the server itself, on average."""
    lines = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode().splitlines()
    sums = {
        line.split("{")[0]: float(line.split()[-1]) for line in lines if 'phase="shed"' in line and "bucket" not in line
    }
    return sums["softspoken_phase_seconds_sum"] / max(1.0, sums["softspoken_phase_seconds_count"])


def _memory(process: subprocess.Popen[str]) -> float:
    """Resident, in MB."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1000


def _merged(given: Any, work: Path) -> Path:
    folder = work / "merged"
    return folder if folder.is_dir() else export(ExportConfig(str(folder), adapter=given.adapter, max_new_tokens=LIMIT))


@contextmanager
def _ours(given: Any, work: Path, *options: str) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    command = [sys.executable, "-m", "softspoken", "serve", "--model", str(_merged(given, work)), *options]
    with _server([*command, "--workers", str(given.threads), "--port"], given.threads) as found:
        yield found


@contextmanager
def _server(command: list[str], threads: int) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    process = subprocess.Popen([*command, str(port)], cwd=ROOT, env=environment, text=True)
    try:
        _await(port, process)
        yield port, process
    finally:
        process.terminate()
        process.wait(60)


def _await(port: int, process: subprocess.Popen[str]) -> None:
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/openapi.json", timeout=5).close()
            return
        except OSError:
            assert process.poll() is None, "a server ended"
            time.sleep(0.2)


@contextmanager
def _direct(folder: Path, texts: list[str], threads: int) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "benchmarks.serving.direct", str(folder), str(LIMIT), str(threads)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin
    assert process.stdout
    print(json.dumps(texts), file=process.stdin, flush=True)
    assert process.stdout.readline() == "ready\n"
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


if __name__ == "__main__":
    main()
