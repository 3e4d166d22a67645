"""A process that answers each line of JSON with one: how it is asked, and how it answers. Standard library only: TRL's
processes import it in the legacy environment."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.provenance import ROOT
from benchmarks.records import Record

LEGACY = ROOT / ".work" / "legacy-env"
LEGACY_PYTHON = str(LEGACY / "bin" / "python")
PACKAGES = ["torch", "transformers", "peft"]


class Ended(SystemExit):
    """The process ended without an answer; its last words, and where it said the others."""


class Worker:
    def __init__(self, python: str, module: str, settings: Record, log: Path, threads: int) -> None:
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w") as file:
            self.process = subprocess.Popen(
                [python, "-m", module, json.dumps(settings)],
                cwd=ROOT,
                env=environment(threads),
                text=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
            )
        self.asked = False

    @functools.cached_property
    def versions(self) -> Record:
        """Once it is ready: several that are started one after the other make ready beside each other."""
        versions: Record = self._answer()["versions"]
        return versions

    def ask(self, **order: Any) -> Record:
        assert self.versions
        self.asked = True
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def stop(self) -> None:
        """Its loop ends with its input."""
        self.process.stdin.close()
        self.process.stdout.close()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _answer(self) -> Record:
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            last = self.log.read_text(errors="replace").strip().splitlines()[-1:]
            raise Ended(f"the worker ended ({' '.join(last)}); see {self.log}")
        answer: Record = json.loads(line)
        return answer


def environment(threads: int) -> dict[str, str]:
    """torch takes its number of threads from it."""
    return os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}


def make_legacy_environment() -> None:
    """Where it is missing: some minutes."""
    subprocess.run([ROOT / "benchmarks" / "legacy_env.sh", LEGACY], check=True)


def serve(prepare: Callable[[Record], Callable[[Record], Record]], *packages: str) -> None:
    """In the process: say that all is ready, with the versions, then answer each line of standard input."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print goes to the log
    answer = prepare(json.loads(sys.argv[1]))
    versions = {name: importlib.metadata.version(name) for name in (*packages, *PACKAGES)}
    print(json.dumps({"ready": True, "versions": versions}), file=answers)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=answers)
