"""Nothing on the way of a step adds up in an order that a GPU chooses: the same seed is to give the same digits."""

import ast
from pathlib import Path

import softspoken

HOME = Path(softspoken.__file__).parent
ATOMIC = {"index_add", "scatter_add", "scatter_reduce", "index_reduce", "index_select", "repeat_interleave", "put"}
"""Tensor methods that add in no fixed order on CUDA, or whose gradients do (torch.use_deterministic_algorithms)."""
KNOWN = {
    ("rl/numerics.py", "scatter_add_"): "one place a row",
    ("rl/scaling.py", "scatter_reduce"): "the least of them, in whatever order",
    ("rl/rollout.py", "repeat_interleave"): "of numbers of prompts, which have no gradient",
    ("rl/graphs.py", "index_select"): "of uniforms, which have no gradient",
}


def test_sums_over_rows_are_in_a_fixed_order() -> None:
    found = set()
    for path in sorted(path for room in ("rl", "models", "training") for path in (HOME / room).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            name, given = node.func.attr, {word.arg for word in node.keywords}
            adds = name.startswith("index_put") and (len(node.args) > 2 or "accumulate" in given)
            weighs = name == "bincount" and (len(node.args) > 0 or "weights" in given)
            if name.rstrip("_") in ATOMIC or adds or weighs:
                found.add((path.relative_to(HOME).as_posix(), name))
    assert found == KNOWN.keys()
