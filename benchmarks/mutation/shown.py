"""Mutants, shown to the tests inside one run of pytest: the tests are collected once, and each mutant has a fork of its own.

In the fork the mutant's code takes the place of the original's in the functions that are there already, wherever they
were imported to. Which tests come through which line says one run of them all without a mutant, kept in build/.
"""

from __future__ import annotations

import ast
import gc
import hashlib
import importlib.abc
import importlib.util
import json
import math
import os
import resource
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import zip_longest
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import coverage
import pytest

from benchmarks.mutation.mutants import Mutant

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "softspoken"
KEPT = ROOT / "build" / "mutation-lines.json"
RED = "red"
"""File that a fork leaves: the test that failed."""
Lines = dict[str, list[int]]
"""File, as rl/ppo.py → the lines of it that a test comes through."""
Tests = dict[str, tuple[float, Lines]]
"""Test → its seconds, and its lines."""
Show = Callable[[str, Mutant], tuple[str, str]]
"""A file and a mutant of it → `killed`, `timeout` or `survived`, and the test that turned red."""


class Shower:
    """A pytest plugin: instead of running the tests, it hands `work` a function that shows them a mutant and says what came of it."""

    def __init__(self, work: Callable[[Show], None], files: Iterable[str], seconds: float) -> None:
        self.work, self.files, self.seconds = work, files, seconds

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed:
            sys.exit("the tests cannot be collected; mend them first")
        items = {item.nodeid: item for item in session.items}
        tests = _without_a_mutant(session, self.files)
        alive = _functions()
        gc.collect()
        gc.freeze()  # no fork is to look through all of this again

        def shown(file: str, mutant: Mutant) -> tuple[str, str]:
            chosen = _chosen(tests, file, mutant, self.seconds)
            session.items = [items[test] for test in chosen]
            most = 20 + 5 * sum(tests[test][0] for test in chosen)
            return _in_a_fork(session, lambda: _put_in(file, mutant, alive[file]), most) if chosen else ("survived", "")

        self.work(shown)
        return True


def _in_a_fork(session: pytest.Session, before: Callable[[], None], seconds: float) -> tuple[str, str]:
    """`seconds` of the processor at most, and twenty times as long on a clock: a machine may be busy with other things."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        child = os.fork()
        if child == 0:
            resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(seconds), math.ceil(seconds)))
            os._exit(_run(session, before, folder))
        end, ended, status = time.monotonic() + 20 * seconds, 0, 0
        while not ended:
            if time.monotonic() > end:
                os.killpg(child, signal.SIGKILL)
            time.sleep(0.02)
            ended, status = os.waitpid(child, os.WNOHANG)
        red = Path(folder) / RED
        outcome = "timeout" if os.WIFSIGNALED(status) else "killed" if status else "survived"
        return outcome, red.read_text(encoding="utf-8") if red.is_file() else ""


def _run(session: pytest.Session, before: Callable[[], None], folder: str) -> int:
    """In the fork: 0 where all of the session's tests pass, up to the first that does not."""
    os.setsid()
    tempfile.tempdir = os.environ["TMPDIR"] = folder
    if not os.environ.get("SHOW"):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
    try:
        before()
        for item, following in zip_longest(session.items, session.items[1:]):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if session.shouldfail or session.shouldstop:
                Path(folder, RED).write_text(item.nodeid, encoding="utf-8")
                return 1
    except BaseException:  # whatever it is, a test would have ended by it
        return 1
    return 0


# ------------------------------------------------------------------------------------------------ which tests


def _chosen(tests: Tests, file: str, mutant: Mutant, seconds: float) -> list[str]:
    """Those that come through the mutated line, the quick ones first, then the others of their files, which may share what was
    made there once; as many as fit into so many seconds. Those of one file follow one another, for what they share.
    """
    lines = _lines(mutant)
    through = {test for test, (_, found) in tests.items() if not lines.isdisjoint(found.get(file, ()))}
    whole: dict[str, float] = defaultdict(float)
    for test in through:
        whole[_module(test)] += tests[test][0]

    def order(test: str) -> Any:
        module, own = _module(test), f"/{Path(file).parent}/test_{Path(file).name}" in test
        slow = tests[test][0] >= 1
        return test not in through, slow, not own, whole[module], module, tests[test][0]

    chosen = []
    for test in sorted((test for test in tests if _module(test) in whole), key=order):
        seconds -= tests[test][0]
        if seconds < 0 and chosen:
            break
        chosen.append(test)
    return chosen


def _module(test: str) -> str:
    return test.split("::")[0]


def _lines(mutant: Mutant) -> set[int]:
    """Of the statement that it changes, without its body; of a default, those of the whole function."""
    tree = ast.parse(mutant.source)
    around = [node for node in ast.walk(tree) if isinstance(node, ast.stmt) and mutant.line in _span(node)]
    inner = min(around, key=lambda node: len(_span(node)))
    body = getattr(inner, "body", None)
    ends = inner if isinstance(inner, ast.FunctionDef) or not body else body[0]
    last = _span(ends).stop if ends is inner else max(_span(ends).start, mutant.line + 1)
    return set(range(inner.lineno, last))


def _span(node: ast.stmt) -> range:
    return range(node.lineno, (node.end_lineno or node.lineno) + 1)


def _without_a_mutant(session: pytest.Session, files: Iterable[str]) -> Tests:
    """Seconds and lines of the session's tests, by one run of them; as kept, where neither a test's file nor those of `files`
    that it came through have changed.
    """
    sources = {file: digest([SOURCE / file]) for file in files}
    shared = digest([*(ROOT / "tests").glob("*.py"), *(ROOT / "tests").rglob("conftest.py")])
    modules = {_module(item.nodeid) for item in session.items}
    stamps = {module: shared + digest([ROOT / module]) for module in modules}
    kept = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.is_file() else {}
    for module, found in list(kept.items()):
        same = all(found["sources"].get(file, stamp) == stamp for file, stamp in sources.items())
        if module in stamps and not (same and found["stamp"] == stamps[module]):
            del kept[module]
    session.items = [item for item in session.items if _module(item.nodeid) not in kept]
    if session.items:
        print(f"{len(session.items)} tests without a mutant", flush=True)
        watcher = Watcher(KEPT.with_suffix(".new"))
        session.config.pluginmanager.register(watcher)
        _in_a_fork(session, watcher.start, 7200)
        session.config.pluginmanager.unregister(watcher)
        for test, (seconds, lines, red) in json.loads(watcher.kept.read_text(encoding="utf-8")).items():
            module = kept.setdefault(_module(test), {"stamp": stamps[_module(test)], "sources": {}, "tests": {}})
            module["sources"] |= {file: digest([SOURCE / file]) for file in lines if file not in module["sources"]}
            if red:
                print(f"{test} is red without any mutant, and left out", flush=True)
            else:
                module["tests"][test] = seconds, lines
        watcher.kept.unlink()
        KEPT.write_text(json.dumps(kept), encoding="utf-8")
    return {test: found for module in modules for test, found in kept[module]["tests"].items()}


class Watcher:
    """A pytest plugin: each test's seconds of the processor, and the lines of our sources that it comes through."""

    def __init__(self, kept: Path) -> None:
        self.kept = kept
        self.seconds: dict[str, float] = {}
        self.red: set[str] = set()

    def start(self) -> None:
        self.coverage = coverage.Coverage(data_file=None, config_file=False, include=[f"{SOURCE}/*"])
        self.coverage.start()

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
        item.config.option.maxfail = 0
        begun = time.process_time()
        self.coverage.switch_context(item.nodeid)
        yield
        self.seconds[item.nodeid] = time.process_time() - begun
        if nextitem is None:
            self.write()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.red.add(report.nodeid)

    def write(self) -> None:
        self.coverage.stop()
        data = self.coverage.get_data()
        lines: dict[str, Lines] = {test: {} for test in self.seconds}
        for path in data.measured_files():
            file = str(Path(path).relative_to(SOURCE))
            for line, contexts in data.contexts_by_lineno(path).items():
                for test in filter(None, contexts):
                    lines[test].setdefault(file, []).append(line)
        found = {test: (self.seconds[test], lines[test], test in self.red) for test in lines}
        self.kept.write_text(json.dumps(found), encoding="utf-8")


# --------------------------------------------------------------------------------------------- the mutant's code


def _functions() -> dict[str, list[FunctionType]]:
    """The functions of ours that there are (after `gc.freeze`, those made since), by their files."""
    found: dict[str, list[FunctionType]] = defaultdict(list)
    for thing in gc.get_objects():
        if type(thing) is FunctionType and thing.__code__.co_filename.startswith(f"{SOURCE}/"):
            found[str(Path(thing.__code__.co_filename).relative_to(SOURCE))].append(thing)
    return found


def _put_in(file: str, mutant: Mutant, alive: list[FunctionType]) -> None:
    """What the module's functions would be with the mutant, they become, wherever they were imported to."""
    path, tree = SOURCE / file, mutant.tree()
    name = "softspoken." + file.removesuffix(".py").replace("/", ".")
    if name not in sys.modules:  # a test is the first to import it
        sys.meta_path.insert(0, _Mutated(name, path, tree))
        return
    exec(compile(tree, str(path), "exec"), dict(vars(sys.modules[name])))
    mutated = _named(_functions()[file])
    for key, function in _named(alive).items():
        if other := mutated.get(key):
            function.__code__ = other.__code__
            function.__defaults__, function.__kwdefaults__ = other.__defaults__, other.__kwdefaults__


def _named(functions: Iterable[FunctionType]) -> dict[tuple[str, int, int], FunctionType]:
    """By their names, their lines, and which of those of the same name and line they are."""
    seen: Counter[tuple[str, int]] = Counter()
    found = {}
    for function in functions:
        key = function.__qualname__, function.__code__.co_firstlineno
        found[(*key, seen[key])] = function
        seen[key] += 1
    return found


class _Mutated(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from a tree instead of from its file."""

    def __init__(self, name: str, path: Path, tree: ast.Module) -> None:
        self.name, self.path, self.tree = name, path, tree

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != self.name:
            return None
        return importlib.util.spec_from_file_location(name, self.path, loader=self)

    def create_module(self, spec: Any) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self.tree, str(self.path), "exec"), module.__dict__)


def digest(paths: Iterable[Path]) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(paths))).hexdigest()[:16]
