"""Do the tests bite? Each mutant of rl/, evaluation/ and trl/ is a small mistake, and a test of its folder should turn red.

    python -m benchmarks.mutation --sample 200            # so many, drawn at random over all three folders
    python -m benchmarks.mutation rl/ppo.py rl/groups.py  # all of these files

A mutant is shown to the unit tests of its file, then to those of its folder, then to its file's component tests. What survives them is shown to those of its other tests that come
through the mutated function, the quickest first, until one turns red; which those are says one run of them all without a mutant.

Mutants that no test can tell from the original are listed with the reason in equivalent.txt and do not count. Where a run
was stopped, the same command goes on: results lie in build/mutation.jsonl, and hold as long as neither the file nor
the tests have changed (`--fresh` forgets them).

Of the tools there are, mutmut (3.8) was tried first and passes over every function with a decorator, which is all of
sampling (torch.no_grad), and has no sample; cosmic-ray starts a process for each mutant, and torch with transformers takes ten
seconds to import. Here one process imports them once, and forks for each mutant.
"""

from __future__ import annotations

import argparse
import ast
import gc
import hashlib
import importlib.abc
import importlib.util
import json
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import pytest
import torch

from benchmarks.mutation.mutants import Mutant, mutants

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "softspoken"
EQUIVALENT = Path(__file__).parent / "equivalent.txt"
RESULTS = ROOT / "build" / "mutation.jsonl"
FOLDERS = {
    "rl": ["tests/unit/rl", "tests/unit/training", "tests/component/rl", "tests/component/test_train.py"],
    "evaluation": ["tests/unit/evaluation", "tests/component/evaluation"],
    "trl": ["tests/component/trl/test_trl.py", "tests/component/trl/test_numbers.py"],
}
"""Folder → the tests that are to notice, the quick ones first."""
UNIT = "tests/unit"
LEFT_OUT = "not killed and not cover"
"""Tests in processes of their own, where there is no mutant, and of statistics that take long."""
TIMEOUT = 300
"""Seconds for the tests of one mutant; what takes longer has been noticed."""
Place = tuple[str, int]
"""A file, as rl/ppo.py, and the number of the mutant in it."""


class _Mutated(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from a tree instead of from its file."""

    def __init__(self, file: str, mutant: Mutant) -> None:
        self.path = SOURCE / file
        self.name = "softspoken." + file.removesuffix(".py").replace("/", ".")
        self.tree = mutant.tree()

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != self.name:
            return None
        return importlib.util.spec_from_file_location(name, self.path, loader=self)

    def create_module(self, spec: Any) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self.tree, str(self.path), "exec"), module.__dict__)


def main(argv: Sequence[str] | None = None) -> int:
    asked = _arguments(argv)
    files = asked.files or [str(path.relative_to(SOURCE)) for folder in FOLDERS for path in _sources(folder)]
    every = {file: list(mutants((SOURCE / file).read_text(encoding="utf-8"))) for file in files}
    places = [(file, mutant.number) for file, own in every.items() for mutant in own]
    if asked.sample:
        places = sorted(random.Random(asked.seed).sample(places, min(asked.sample, len(places))))
    if asked.list:
        for file, number in places:
            print(_said(file, every[file][number]))
        return 0
    done = {} if asked.fresh else _results(every)
    print(
        f"{len(places)} of {sum(map(len, every.values()))} mutants, {sum(p in done for p in places)} of them known",
        flush=True,
    )
    os.chdir(ROOT)
    RESULTS.parent.mkdir(exist_ok=True)
    _import_what_is_slow(dict.fromkeys(file.split("/")[0] for file, _ in places))
    with RESULTS.open("w" if asked.fresh else "a", encoding="utf-8") as log:
        for count, (file, number) in enumerate(places, start=1):
            if (file, number) in done:
                continue
            begun = time.monotonic()
            mutant = every[file][number]
            outcome = done[file, number] = _outcome(file, mutant, quick=asked.quick)
            said = _said(file, every[file][number])
            print(f"{count}/{len(places)} {outcome} in {time.monotonic() - begun:.0f} s: {said}", flush=True)
            line = {"file": file, "number": number, "outcome": outcome, "stamp": _stamp(file), "what": said}
            if asked.quick and outcome == "survived":
                continue
            log.write(json.dumps(line, ensure_ascii=False) + "\n")
            log.flush()
    _print_score(places, done, every)
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", help="as rl/ppo.py; by default all of rl, evaluation and trl")
    parser.add_argument("--sample", type=int, default=0, help="so many mutants, drawn at random; by default all")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--list", action="store_true", help="say which they are, and run nothing")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="the unit tests and the file's own others alone; what they let pass is not recorded",
    )
    parser.add_argument("--fresh", action="store_true", help="forget earlier results")
    return parser.parse_args(argv)


def _sources(folder: str) -> list[Path]:
    return sorted(path for path in (SOURCE / folder).glob("*.py") if path.name != "__init__.py")


def _said(file: str, mutant: Mutant) -> str:
    return f"{file}:{mutant.line}: {mutant.what}"


Reached = dict[str, tuple[float, list[tuple[str, int]]]]
"""Test → its seconds, and the functions that it comes through: their files, and the lines that they begin in."""


def _reached(folder: str) -> Reached:
    """Of the folder's tests that are no unit tests, by one run without a mutant; kept until a test or a source of it changes."""
    slow = [test for test in FOLDERS[folder] if not test.startswith(UNIT)]
    kept = RESULTS.with_name(f"mutation-{folder}.json")
    stamp = _digest([*_test_files(slow), *_sources(folder)])
    if not kept.is_file() or json.loads(kept.read_text(encoding="utf-8"))["stamp"] != stamp:
        print(f"{folder}: all but the unit tests, without a mutant", flush=True)
        child = os.fork()
        if child == 0:
            os._exit(_run(slow, Watcher(folder, stamp, kept)))
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0:
            sys.exit(f"the tests of {folder} fail without any mutant; mend them first")
    return json.loads(kept.read_text(encoding="utf-8"))["tests"]


def _tests(reached: Reached, file: str, line: int) -> list[str]:
    """The tests that come through the function that this line is in, the quickest first."""
    tree = ast.parse((SOURCE / file).read_text(encoding="utf-8"))
    around = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.lineno <= line <= (node.end_lineno or node.lineno)
    ]
    if not around:  # a lambda of the module's own
        return [test for _, test in sorted((seconds, test) for test, (seconds, _) in reached.items())]
    inner = max(around, key=lambda node: node.lineno)
    begin = min([inner.lineno, *(decorator.lineno for decorator in inner.decorator_list)])
    found = [(seconds, test) for test, (seconds, functions) in reached.items() if [file, begin] in functions]
    return [test for _, test in sorted(found)]


class Watcher:
    """A pytest plugin: which functions of a folder each test calls."""

    def __init__(self, folder: str, stamp: str, kept: Path) -> None:
        self.folder, self.stamp, self.kept = str(SOURCE / folder) + os.sep, stamp, kept
        self.tests: dict[str, tuple[float, list[tuple[str, int]]]] = {}

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        called: set[tuple[str, int]] = set()

        def trace(frame: FrameType, event: str, _: object) -> None:
            code = frame.f_code
            if code.co_filename.startswith(self.folder):
                called.add((str(Path(code.co_filename).relative_to(SOURCE)), code.co_firstlineno))

        begun = time.monotonic()
        sys.settrace(trace)
        threading.settrace(trace)
        yield
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]
        self.tests[item.nodeid] = (time.monotonic() - begun, sorted(called))

    def pytest_sessionfinish(self) -> None:
        found = {"stamp": self.stamp, "tests": self.tests}
        self.kept.write_text(json.dumps(found), encoding="utf-8")


def _import_what_is_slow(folders: Iterable[str]) -> None:
    """All that our modules and the tests import of others; ours go again, for each mutant is to import its own."""
    sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests"), str(ROOT)]
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)  # threads do not outlive a fork
    for folder in folders:
        pytest.main(["--collect-only", "-qqq", "-p", "no:cacheprovider", "-W", "ignore", *FOLDERS[folder]])
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        if name != "__main__" and Path(file).is_relative_to(ROOT) and ".venv" not in file:
            del sys.modules[name]
    gc.collect()
    gc.freeze()  # pytest collects garbage at its end, which would look through all of this again for each mutant


def _outcome(file: str, mutant: Mutant, *, quick: bool) -> str:
    """`killed`, `timeout` or `survived`."""
    folder = file.split("/")[0]
    unit = [test for test in FOLDERS[folder] if test.startswith(UNIT)]
    own = [f"tests/{kind}/{folder}/test_{file.split('/')[1]}" for kind in ("unit", "component")]
    first, last = ([test] if (ROOT / test).is_file() else [] for test in own)
    stages = [first, unit, last]
    outcome = "survived"
    while outcome == "survived" and stages:
        outcome = _shown(file, mutant, stages.pop(0))
    if outcome == "survived" and not quick:
        outcome = _shown(file, mutant, _tests(_reached(folder), file, mutant.line))
    return outcome


def _shown(file: str, mutant: Mutant, tests: list[str]) -> str:
    if not tests:
        return "survived"
    child = os.fork()
    if child == 0:
        sys.meta_path.insert(0, _Mutated(file, mutant))
        os._exit(_run(tests))
    end = time.monotonic() + TIMEOUT
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return "survived" if os.waitstatus_to_exitcode(status) == 0 else "killed"
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "timeout"


def _run(tests: list[str], *plugins: object) -> int:
    """In the child: the tests' exit status."""
    os.setsid()
    if not os.environ.get("SHOW"):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
    options = ["-x", "-q", "-p", "no:cacheprovider", "-W", "ignore", "-k", LEFT_OUT]
    return int(pytest.main([*options, *tests], plugins=list(plugins)))


def _test_files(tests: list[str]) -> list[Path]:
    places = [ROOT / place for place in tests]
    return [path for place in places for path in (sorted(place.rglob("*.py")) if place.is_dir() else [place])]


def _digest(paths: Iterable[Path]) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:16]


def _stamp(file: str) -> str:
    """Of what it depends on that a mutant survives: the file and the tests of its folder."""
    return _digest([SOURCE / file, *_test_files(FOLDERS[file.split("/")[0]])])


def _results(every: dict[str, list[Mutant]]) -> dict[Place, str]:
    """What is known, and still holds; what was killed stays so when tests are added, so it goes by the file alone."""
    found: dict[Place, str] = {}
    stamps = {file: _stamp(file) for file in every}
    for line in RESULTS.read_text(encoding="utf-8").splitlines() if RESULTS.is_file() else []:
        one = json.loads(line)
        file, number = one["file"], one["number"]
        same = number < len(every.get(file, [])) and one["what"] == _said(file, every[file][number])
        if same and (one["outcome"] != "survived" or one["stamp"] == stamps[file]):
            found[file, number] = one["outcome"]
    return found


def _equivalent() -> set[tuple[str, str, str]]:
    """(file, what, the line of source) of each line `rl/ppo.py: a + b → a - b @ c = a + b  # why`."""
    lines: Iterable[str] = EQUIVALENT.read_text(encoding="utf-8").splitlines()
    kept = [line.rsplit("  # ", 1)[0] for line in lines if line.strip() and not line.startswith("#")]
    parts = [(file, *rest.split(" @ ", 1)) for file, _, rest in (line.partition(": ") for line in kept)]
    return {(file, what, line) for file, what, line in parts}


def _print_score(places: list[Place], done: dict[Place, str], every: dict[str, list[Mutant]]) -> None:
    same = _equivalent()
    counted: dict[str, Counter[str]] = {}
    for file, number in places:
        mutant, outcome = every[file][number], done[file, number]
        line = mutant.source.splitlines()[mutant.line - 1].strip()
        if outcome == "survived" and (file, mutant.what, line) in same:
            outcome = "equivalent"
        counted.setdefault(file.split("/")[0], Counter())[outcome] += 1
        if outcome == "survived":
            print(f"survived: {_said(file, mutant)}")
    for name, counts in [*counted.items(), ("all", sum(counted.values(), Counter()))]:
        killed = counts["killed"] + counts["timeout"]
        whole = killed + counts["survived"]
        share = 100 * killed / whole if whole else 100.0
        print(f"{name}: {killed} of {whole} killed, {share:.1f} % ({counts['equivalent']} equivalent ones beside)")


if __name__ == "__main__":
    sys.exit(main())
