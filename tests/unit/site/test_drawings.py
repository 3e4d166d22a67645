"""The drawing of the house is true: every room is in it, and what a room imports lies below it."""

import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).parents[3]


def rooms_and_heights() -> dict[str, int]:
    drawing = (ROOT / "docs/concepts/house.svg").read_text(encoding="utf-8")
    return {name: int(y) for y, name in re.findall(r'<text class="name" x="[\d.]+" y="(\d+)">(\w+)</text>', drawing)}


def test_every_import_goes_down():
    spec = importlib.util.spec_from_file_location("imports", ROOT / "tests/unit/test_imports.py")
    assert spec
    assert spec.loader
    imports = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(imports)
    heights = rooms_and_heights()
    assert sorted(heights) == sorted(imports.MAY_IMPORT)
    upwards = [
        (room, other)
        for room, others in imports.MAY_IMPORT.items()
        if room not in imports.FOUNDATION
        for other in [*others, *imports.FOUNDATION]
        if heights[other] <= heights[room]
    ]
    assert upwards == []
