"""What is killed, broken and soaked: the short form of it all, and by hand what its page says."""

import functools
import importlib
import random
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.reliability import faults, fuzz, kills, nonsense, soak
from benchmarks.reliability.operations import watching
from benchmarks.reliability.page import faults_table, fuzz_table, kills_table, soak_table

ROOT = Path(__file__).parents[3]


def test_the_short_form_loses_nothing():
    """Forty seconds: it is four commands killed and gone on with, a fault here and there, nonsense of each kind, a short long run."""
    command = [sys.executable, "-m", "benchmarks.reliability", "--short"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("kills {") == 4
    assert done.stdout.count("fuzz {") == len(nonsense.KINDS)


def test_operations_are_told_before_they_happen_and_a_write_is_two(tmp_path):
    seen = []

    def before(kind):
        there = {path.name: path.read_text() for path in sorted(tmp_path.iterdir()) if path.is_file()}
        seen.append((kind, there))

    with watching(before):
        with (tmp_path / "a").open("w") as file:
            file.write("abcd")
        (tmp_path / "a").replace(tmp_path / "b")
        (tmp_path / "b").read_text()
        (tmp_path / "b").unlink()
    assert seen == [
        ("open", {}),
        ("write", {"a": ""}),
        ("write", {"a": "ab"}),
        ("replace", {"a": "abcd"}),
        ("unlink", {"b": "abcd"}),
    ]


@pytest.mark.parametrize("operations", [1, 2, 7, 98, 341])
def test_each_operation_has_its_turn_before_one_comes_again(operations):
    stride = kills._stride(operations)
    assert {number * stride % operations for number in range(operations)} == {*range(operations)}


def test_blocks_of_each_kind_in_turn():
    found = fuzz.blocks(100_000)
    assert sum(fuzz.size_of(kind) for kind, _ in found) == pytest.approx(100_000, rel=0.001)
    assert {kind for kind, _ in found[: len(nonsense.KINDS)]} == {*nonsense.KINDS}
    assert sum(kind == "flags" for kind, _ in found) == 114


@pytest.mark.parametrize("kind", nonsense.KINDS)
def test_an_input_is_the_same_for_its_seed(kind, tmp_path):
    for name in ("run", "adapter"):
        (tmp_path / f"inputs/{name}").mkdir(parents=True)
        for number in range(2):
            (tmp_path / f"inputs/{name}/{number}.json").write_text('{"a": [1, {"b": null}]}')
    made = nonsense.KINDS[kind][1]
    first, again = (made(random.Random("7"), tmp_path) for _ in range(2))
    assert first == again


@pytest.mark.parametrize(
    ("status", "said", "fine"),
    [
        (0, "", True),
        (0, "softspoken: warning: x\n", True),
        (0, "softspoken: warning: x\nsoftspoken: warning: x\n", False),
        (2, "softspoken: warning: x\nsoftspoken: error: y\n", True),
        (2, "", False),
        (2, "softspoken: error: y\nmore\n", False),
        (2, "softspoken: error: \x1b[31m\n", False),
        (2, "softspoken: error: KeyError: 1 (set SOFTSPOKEN_DEBUG=1 for the traceback)\n", False),
        (1, "softspoken: error: y\n", False),
        (None, "KeyError\n", False),
    ],
)
def test_what_is_said_of_nonsense(status, said, fine):
    assert bool(fuzz._wrong(status, said)) != fine


def test_a_line_through_what_a_run_takes():
    """A MiB each 100 steps, and 2 ms a step throughout: over 2,000 steps 20 MiB and nothing."""
    points = [(step, 0.002 * step, 400 + step / 100) for step in range(0, 2001, 5)]
    found = soak.figures({"command": "train", "size": 2000, "points": points})
    assert found["memory"] == pytest.approx((20, 0), abs=1e-6)
    assert found["seconds"] == pytest.approx((0, 0), abs=1e-6)
    assert found["each"][0] == pytest.approx(0.002)
    row = soak_table([{"command": "train", "size": 2000, "points": points}]).splitlines()[-1]
    assert row.startswith("| `train`, 2,000 steps | 411 MiB | +20.0 ± 0.0 MiB | 2.0 |")


def test_the_tables_count():
    killed = {"command": "sft", "operation": 3, "operations": 90, "kills": 5, "went_on": 4, "other_bytes": [], "touched": [], "wrong": []}  # fmt: skip
    last = kills_table([killed, {**killed, "operation": 4, "other_bytes": ["out/a"]}]).splitlines()[-1]
    assert last == "| all | 2 | 10 | 8 | 2 of 90 | 1 | 0 | 0 |"
    fault = {"command": "sft", "phase": "read", "fault": "NaN", "status": 99, "said": "", "wrong": [], "touched": []}
    rows = [fault, {**fault, "status": 0}, {**fault, "phase": "load", "status": 2, "wrong": ["x"]}]
    assert faults_table(rows).splitlines()[-1] == "| all | 2 | 2 | 1 | 0 | 1 | 1 | 0 |"
    block = {
        "kind": "flags",
        "inputs": 500,
        "exit": {"0": 20, "2": 480},
        "seconds": 0.25,
        "grown": 3 << 20,
        "wrong": [],
    }
    last = fuzz_table([block, {**block, "seconds": 1.25}]).splitlines()[-1]
    assert last == "| all | 1,000 | 40 | 960 | 0 | 1.2 | 3 |"


@pytest.mark.parametrize(("command", "phase"), [(name, phase) for name, own in faults.PHASES.items() for phase in own])
def test_a_phase_is_where_it_is_said_to_be(command, phase):
    module, _, path = faults.PHASES[command][phase].partition(":")
    assert callable(functools.reduce(getattr, path.split("."), importlib.import_module(module)))
