"""Imports go one way (design, section 3): each room knows only what it must."""

import ast
import sys
from pathlib import Path

import softspoken

SOURCE = Path(softspoken.__file__).parent
EVERYWHERE = {"types", "config", "mini"}
MAY_IMPORT = {
    "types": set(),
    "config": set(),
    "mini": set(),
    "numerics": set(),
    "cpu": set(),
    "hub": set(),
    "progress": set(),
    "data": {"hub"},
    "pretrained": {"data", "hub"},
    "adapters": {"pretrained", "hub"},
    "judges": {"pretrained", "hub"},
    "rewards": {"judges", "pretrained", "data", "progress"},
    "cross_attention": set(),
    "model": {"cpu", "numerics", "data", "pretrained", "adapters", "cross_attention"},
    "graphs": {"model", "numerics"},
    "reading": {"model"},
    "rollout": {"data", "graphs", "model", "numerics", "reading"},
    "optimise": {"numerics", "rollout", "model"},
    "ppo": {"numerics", "rollout", "model", "optimise"},
    "rloo": {"numerics", "rollout", "model", "optimise"},
    "checkpoint": {"model"},
    "tracking": {"progress"},
    "sft": {"data", "pretrained", "adapters"},
    "summarizer": {"data", "pretrained", "adapters", "progress", "model", "rollout"},
    "summary_metrics": set(),
    "resampling": set(),
    "analysis": {"resampling", "summary_metrics"},
    "rows": set(),
    "systems": {"adapters", "data", "pretrained", "summarizer", "summary_metrics"},
    "evaluate": {
        *(
            "cpu",
            "data",
            "rewards",
            "systems",
            "rows",
            "analysis",
            "summarizer",
            "summary_metrics",
            "resampling",
            "report",
            "pretrained",
            "adapters",
            "progress",
        ),
    },
    "measures": set(),
    "tables": {"measures"},
    "alternatives": {"measures"},
    "verdict": {"alternatives", "measures"},
    "placing": set(),
    "charts": {"measures", "placing", "tables"},
    "curves": {"charts"},
    "examples": {"charts", "measures", "verdict"},
    "page": {"charts", "measures"},
    "report": {"data", "examples", "charts", "curves", "measures", "page", "tables", "verdict"},
    "compare": {"report", "charts", "curves", "measures", "page", "tables", "verdict"},
    "train": {
        "cpu",
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
    "trl": {"model", "rollout", "ppo", "numerics", "data", "pretrained", "adapters", "hub", "trl"},
    "flags": set(),
    "cli": {"flags", "train", "sft", "evaluate", "summarizer", "rewards", "report", "compare"},
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
    modules = {path.stem: path for path in SOURCE.glob("*.py") if not path.stem.startswith("__")}
    return modules | {path.parent.name: path for path in SOURCE.glob("*/__init__.py")}


def files_of(room: Path) -> list[Path]:
    """A room is a module or, where that outgrew one file, a package, whose modules may import each other."""
    return sorted(room.parent.glob("*.py")) if room.name == "__init__.py" else [room]


def test_every_room_imports_only_what_it_may():
    wrong = []
    for room, path in rooms().items():
        names = set().union(*(imports_of(file) for file in files_of(path)))
        ours = {name.split(".")[1] for name in names if name.startswith("softspoken.")}
        wrong += [f"{room} → {name}" for name in sorted(ours - EVERYWHERE - MAY_IMPORT[room])]
    assert not wrong


def test_the_list_names_every_room_and_has_no_circle():
    assert set(MAY_IMPORT) == set(rooms())
    done: set[str] = set()
    while len(done) < len(MAY_IMPORT):
        free = {room for room, needs in MAY_IMPORT.items() if room not in done and needs - {room} <= done}
        assert free, f"a circle among {sorted(set(MAY_IMPORT) - done)}"
        done |= free


def test_numerics_imports_only_torch():
    for room in TORCH_ALONE:
        outside = {name.split(".")[0] for name in imports_of(rooms()[room])} - set(sys.stdlib_module_names)
        assert outside == {"torch"}
