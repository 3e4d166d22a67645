"""What counts as a mistake that a test should notice."""

import ast

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
