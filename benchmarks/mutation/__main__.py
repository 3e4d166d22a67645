"""Do the tests bite? Each mutant of rl/, evaluation/ and trl/ is a small mistake, and a test should turn red.

    python -m benchmarks.mutation --sample 200            # so many, drawn at random over all three folders
    python -m benchmarks.mutation rl/ppo.py rl/groups.py  # all of these files
    python -m benchmarks.mutation rl/ppo.py --tests tests/unit/rl/test_ppo.py

A mutant is shown to the tests that come through the mutated line, the quickest first, until one turns red; which those
are says one run of all of them without a mutant. Mutants that no test can tell from the original are listed with the
reason in equivalent.txt and do not count. Where a run was stopped, the same command goes on: results lie in
build/mutation.jsonl, and hold as long as neither the file nor the tests have changed (`--fresh` forgets them).

Of the tools there are, mutmut (3.8) was tried first and passes over every function with a decorator, which is all of
sampling (torch.no_grad), and has no sample; cosmic-ray starts a process for each mutant, and torch with transformers takes ten
seconds to import. Here one process imports all and collects the tests once, and forks for each mutant.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
import torch

from benchmarks.mutation.mutants import Mutant, mutants
from benchmarks.mutation.shown import ROOT, SOURCE, Show, Shower, digest

EQUIVALENT = Path(__file__).parent / "equivalent.txt"
RESULTS = ROOT / "build" / "mutation.jsonl"
FOLDERS = ("rl", "evaluation", "trl")
TESTS = [f"tests/{kind}/{folder}" for kind in ("unit", "component") for folder in FOLDERS]
TESTS += ["tests/unit/training", "tests/unit/test_train.py", "tests/component/test_train.py"]
Place = tuple[str, int]
"""A file, as rl/ppo.py, and the number of the mutant in it."""


def main(argv: Sequence[str] | None = None) -> int:
    asked = _arguments(argv)
    files = asked.files or [str(path.relative_to(SOURCE)) for folder in FOLDERS for path in _sources(folder)]
    every = {file: list(mutants((SOURCE / file).read_text(encoding="utf-8"))) for file in files}
    places = [(file, mutant.number) for file, own in every.items() for mutant in own]
    if asked.sample:
        # In the order of the draw, of which a shorter sample is the beginning.
        places = random.Random(asked.seed).sample(places, len(places))[: asked.sample]
    if asked.list:
        for file, number in places:
            print(_said(file, every[file][number]))
        return 0
    done = {} if asked.fresh else _results(every)
    waiting = [place for place in places if place not in done]
    print(f"{len(places)} of {sum(map(len, every.values()))} mutants, {len(waiting)} of them not known", flush=True)
    RESULTS.parent.mkdir(exist_ok=True)

    def work(show: Show) -> None:
        for count, (file, number) in enumerate(waiting, start=1):
            begun = time.monotonic()
            mutant = every[file][number]
            outcome, test = show(file, mutant)
            done[file, number] = outcome
            said = _said(file, mutant)
            by = f" by {test}" if test else ""
            print(f"{count}/{len(waiting)} {outcome} in {time.monotonic() - begun:.1f} s{by}: {said}", flush=True)
            if not (asked.tests and outcome == "survived"):
                log.write(
                    json.dumps(
                        {"file": file, "number": number, "outcome": outcome, "stamp": _stamp(file), "what": said},
                        ensure_ascii=False,
                    )
                    + "\n"
                )
                log.flush()

    with RESULTS.open("w" if asked.fresh else "a", encoding="utf-8") as log:
        if waiting:
            _run(Shower(work, {file for file, _ in waiting}, asked.seconds), asked.tests or TESTS)
    _print_score(places, done, every)
    return 0


def _run(shower: Shower, tests: list[str]) -> None:
    os.chdir(ROOT)
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)  # threads do not outlive a fork
    sys.path.insert(0, str(ROOT / "src"))
    options = ["-x", "-qq", "-s", "-p", "no:cacheprovider", "-W", "ignore"]
    status = pytest.main([*options, *tests], plugins=[shower])
    if status != pytest.ExitCode.OK:
        sys.exit(int(status))


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", help="as rl/ppo.py; by default all of rl, evaluation and trl")
    parser.add_argument("--sample", type=int, default=0, help="so many mutants, drawn at random; by default all")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--list", action="store_true", help="say which they are, and run nothing")
    parser.add_argument("--tests", nargs="+", help="these alone; what they let pass is not recorded")
    parser.add_argument("--seconds", type=float, default=90, help="of tests for a mutant, at most")
    parser.add_argument("--fresh", action="store_true", help="forget earlier results")
    return parser.parse_args(argv)


def _sources(folder: str) -> list[Path]:
    return sorted(path for path in (SOURCE / folder).glob("*.py") if path.name != "__init__.py")


def _said(file: str, mutant: Mutant) -> str:
    return f"{file}:{mutant.line}: {mutant.what}"


def _stamp(file: str) -> str:
    """Of what it depends on that a mutant survives: the file and the tests."""
    return digest([SOURCE / file, *(ROOT / "tests").rglob("*.py")])


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
