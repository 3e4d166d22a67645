"""Imports go one way (design, section 3): each room knows only what it must."""

import ast
from pathlib import Path

import softspoken

SOURCE = Path(softspoken.__file__).parent
EVERYWHERE = {"types", "config", "mini"}
MAY_IMPORT = {
    "types": set(),
    "config": set(),
    "mini": set(),
    "numerics": set(),
    "hub": set(),
    "progress": set(),
    "data": {"hub"},
    "pretrained": {"data", "hub"},
    "adapters": {"pretrained", "hub"},
    "judges": {"pretrained", "hub"},
    "rewards": {"judges", "pretrained", "data", "progress"},
    "model": {"data", "pretrained", "adapters"},
    "rollout": {"model", "numerics"},
    "optimise": {"numerics", "rollout", "model"},
    "ppo": {"numerics", "rollout", "model", "optimise"},
    "rloo": {"numerics", "rollout", "model", "optimise"},
    "checkpoint": {"model"},
    "tracking": {"progress"},
    "sft": {"data", "pretrained", "model"},
    "summarizer": {"data", "pretrained", "adapters", "progress"},
    "summary_metrics": set(),
    "resampling": set(),
    "evaluate": {
        *(
            "data",
            "rewards",
            "summarizer",
            "summary_metrics",
            "resampling",
            "report",
            "pretrained",
            "adapters",
            "progress",
        ),
    },
    "examples": {"charts"},
    "charts": set(),
    "verdict": set(),
    "report": {"data", "examples", "charts", "verdict"},
    "train": {
        *(
            "data",
            "pretrained",
            "rewards",
            "model",
            "rollout",
            "ppo",
            "rloo",
            "evaluate",
            "report",
            "checkpoint",
            "tracking",
            "numerics",
        ),
    },
    "flags": set(),
    "cli": {"flags", "train", "sft", "evaluate", "summarizer", "rewards", "report"},
}
TORCH_ALONE = {"numerics"}


def imports_of(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            if node.module == "softspoken":
                names |= {f"softspoken.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def rooms() -> dict[str, Path]:
    return {path.stem: path for path in SOURCE.glob("*.py") if not path.stem.startswith("__")}


def test_every_room_imports_only_what_it_may():
    wrong = []
    for room, path in rooms().items():
        ours = {name.split(".")[1] for name in imports_of(path) if name.startswith("softspoken.")}
        wrong += [f"{room} → {name}" for name in sorted(ours - EVERYWHERE - MAY_IMPORT[room])]
    assert not wrong


def test_the_list_names_every_room_and_has_no_circle():
    assert set(MAY_IMPORT) == set(rooms())
    done: set[str] = set()
    while len(done) < len(MAY_IMPORT):
        free = {room for room, needs in MAY_IMPORT.items() if room not in done and needs <= done}
        assert free, f"a circle among {sorted(set(MAY_IMPORT) - done)}"
        done |= free


def test_numerics_imports_only_torch():
    for room in TORCH_ALONE:
        outside = {name.split(".")[0] for name in imports_of(rooms()[room])} - {"__future__", "math"}
        assert outside == {"torch"}
