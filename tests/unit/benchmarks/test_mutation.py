"""What counts as a mistake that a test should notice, which tests are shown it, and how."""

import ast
import gc
import importlib.util
import sys

import pytest

from benchmarks.mutation import shown
from benchmarks.mutation.mutants import mutants

SOURCE = '''
"""A module."""
SIZE = 100

def mean(values: list[int], mask=None) -> float:
    """Of what the mask leaves."""
    if not values:
        raise ValueError("no values: " + str(1 + 1))
    log.warning("from %d", 2 + 2)
    total = sum(values) / max(len(values), 1)
    kept.append(total)
    return f"{total + 1}" if mask is None and total >= 0.5 else "a" + "b"
'''


def test_the_mutants_of_a_function_by_hand():
    found = list(mutants(SOURCE))
    assert [(one.line, one.what) for one in found] == [
        (7, "if not values: → if not not values:"),
        (7, "not values → values"),
        (10, "sum(values) / max(len(values), 1) → sum(values) * max(len(values), 1)"),
        (10, "sum → mean"),
        (10, "max → min"),
        (10, "1 → 2"),
        (11, "kept.append(total) → pass"),
        (
            12,
            "f'{total + 1}' if mask is None and total >= 0.5 else 'a' + 'b' → "
            "f'{total + 1}' if not (mask is None and total >= 0.5) else 'a' + 'b'",
        ),
        (12, "mask is None and total >= 0.5 → mask is None or total >= 0.5"),
        (12, "mask is None → mask is not None"),
        (12, "total >= 0.5 → total > 0.5"),
        (12, "0.5 → 1.5"),
    ]


def test_each_differs_from_the_source_in_its_own_place_alone():
    plain = ast.unparse(ast.parse(SOURCE)).splitlines()
    for mutant in mutants(SOURCE):
        mutated = ast.unparse(mutant.tree()).splitlines()
        assert sum(one != other for one, other in zip(plain, mutated, strict=True)) == 1


# ----------------------------------------------------------------------------------------------- shown to which tests

LINES = '''
def outer(
    values,
    most=3,
):
    """Some."""
    if len(values) > most:
        values = [
            value + 1
            for value in values
        ]
    return {
        "a": lambda: values[0],
    }
'''


@pytest.mark.parametrize(
    ("what", "lines"),
    [
        ("3 → 4", range(2, 15)),  # a default: wherever the function is called
        ("if len(values) > most: → if not len(values) > most:", [7]),
        ("value + 1 → value - 1", range(8, 12)),
        ("0 → 1", range(12, 15)),
    ],
)
def test_the_lines_of_a_mutant_are_its_statements_without_its_body(what, lines):
    [mutant] = [one for one in mutants(LINES) if one.what == what]
    assert shown._lines(mutant) == set(lines)


def test_quick_tests_that_come_by_are_first_then_slow_ones_then_the_rest_of_their_files():
    [mutant] = [one for one in mutants(LINES) if one.what == "value + 1 → value - 1"]
    by, past = {"rl/x.py": [9]}, {"rl/x.py": [7], "rl/y.py": [9]}
    tests = {
        "tests/component/rl/test_z.py::slow": (2.0, by),
        "tests/component/rl/test_z.py::past": (0.1, past),
        "tests/component/rl/test_z.py::quick": (0.3, by),
        "tests/unit/rl/test_x.py::own": (0.5, by),
        "tests/unit/rl/test_y.py::elsewhere": (0.1, past),
    }
    order = ["test_x.py::own", "test_z.py::quick", "test_z.py::slow", "test_z.py::past"]
    assert [test.split("/")[-1] for test in shown._chosen(tests, "rl/x.py", mutant, 90)] == order
    assert [test.split("/")[-1] for test in shown._chosen(tests, "rl/x.py", mutant, 1)] == order[:2]
    assert shown._chosen(tests, "rl/w.py", mutant, 90) == []


MODULE = """
import functools

def kept(function):
    @functools.wraps(function)
    def inside(*given):
        return function(*given)
    return inside

@kept
def plus(one, other=2):
    return one + other

class Made:
    def value(self):
        return (lambda: 5)() + 1
"""


@pytest.mark.parametrize(
    ("what", "found"),
    [
        ("one + other → one - other", (-1, 6)),
        ("2 → 3", (4, 6)),
        ("5 → 6", (3, 7)),
        pytest.param(
            *("(lambda: 5)() + 1 → (lambda: 5)() - 1", (3, 4)),
            marks=pytest.mark.skipif(sys.version_info < (3, 11), reason="code has no columns before Python 3.11"),
        ),
    ],
)
def test_a_mutant_is_put_into_the_functions_that_are_there_wherever_they_were_imported_to(
    what, found, tmp_path, monkeypatch
):
    file = tmp_path / "rl" / "made.py"
    file.parent.mkdir()
    file.write_text(MODULE)
    monkeypatch.setattr(shown, "SOURCE", tmp_path)
    spec = importlib.util.spec_from_file_location("softspoken.rl.made", file)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "softspoken.rl.made", module)
    spec.loader.exec_module(module)
    plus, made = module.plus, module.Made()  # as another module has them
    assert (plus(1), made.value()) == (3, 6)
    alive = shown._functions()["rl/made.py"]
    gc.freeze()  # as the parent does: what is made since is the mutant's
    try:
        [mutant] = [one for one in mutants(MODULE) if one.what == what]
        shown._put_in("rl/made.py", mutant, alive)
    finally:
        gc.unfreeze()
    assert (plus(1), made.value()) == found
