"""Imports go one way (design, section 3): each room knows only what it must, and so does each file inside it."""

import ast
import sys
from pathlib import Path

import softspoken

SOURCE = Path(softspoken.__file__).parent
FOUNDATION = {
    "types": set(),
    "config": {"types"},
    "runtime": {"types"},
    "hub": {"types"},
    "mini": {"types"},
}
"""Any room may import these."""
MAY_IMPORT = FOUNDATION | {
    "data": set(),
    "models": {"data"},
    "rl": {"storage", "models", "data"},
    "rewards": {"storage", "models", "data"},
    "storage": {"data"},
    "sft": {"storage", "tasks", "models", "data"},
    "inference": {"storage", "report", "rl", "rewards", "tasks", "models", "data"},
    "serving": {"evaluation", "inference", "rewards", "tasks", "models", "data"},
    "tasks": {"data"},
    "report": {"storage", "tasks", "data"},
    "evaluation": {"storage", "inference", "rewards", "tasks", "report", "models", "data"},
    "training": {"storage", "evaluation", "inference", "report", "rl", "rewards", "tasks", "models", "data"},
    "train": {"storage", "training", "evaluation", "report", "rl", "rewards", "tasks", "models", "data"},
    "dpo": {"storage", "training", "rl", "tasks", "models", "data"},
    "trl": {"rl", "models", "data"},
    "sweep": {"storage", "train", "training", "report", "tasks", "data"},
    "estimating": {"rl", "models", "data"},
    "cli": {
        "estimating",
        "dpo",
        "sweep",
        "data",
        "tasks",
        "serving",
        "train",
        "sft",
        "evaluation",
        "inference",
        "rewards",
        "report",
    },
}
INSIDE = {
    "runtime": {
        "addresses": set(),
        "interrupt": set(),
        "loading": set(),
        "own_code": set(),
        "repeating": set(),
        "processes": set(),
        "progress": {"processes"},
    },
    "storage": {"run_folder": set(), "lines_file": {"run_folder"}, "unfinished": {"run_folder"}},
    "config": {
        "kinds": set(),
        "ranges": set(),
        "help": {"ranges"},
        "presets": set(),
        "rewards": set(),
        "specs": {"rewards"},
        "naming": set(),
        "idle": set(),
        "trained": {"kinds"},
        "training": {"help", "kinds", "presets", "ranges", "rewards", "specs", "trained"},
        "warm_start": {"help", "kinds", "ranges", "trained"},
        "preference": {"help", "kinds", "ranges", "trained"},
        "evaluation": {"help", "kinds", "naming", "ranges", "rewards", "specs"},
        "inference": {"kinds", "ranges", "specs"},
        "sweeping": {"help", "ranges"},
        "estimating": {"kinds", "ranges", "trained", "training"},
        "serving": {"help", "kinds", "naming", "ranges", "specs"},
    },
    "data": {
        "files": set(),
        "words": set(),
        "labels": set(),
        "columns": set(),
        "reading": {"files", "columns"},
        "holding_out": set(),
        "prompts": set(),
        "batches": {"prompts"},
    },
    "models": {
        "cpu": set(),
        "learning_rates": set(),
        "cross_attention": set(),
        "families": set(),
        "generation": set(),
        "pretrained": {"families", "generation"},
        "languages": set(),
        "adapters": {"pretrained"},
        "trained": {"cpu", "families", "adapters"},
        "quantized": {"families", "pretrained"},
        "room": {"pretrained", "adapters"},
    },
    "rl": {
        "numerics": set(),
        "agreement": set(),
        "policy": {"agreement", "numerics"},
        "sharding": set(),
        "products": {"numerics", "policy"},
        "loading": {"agreement", "policy", "products", "sharding"},
        "graphs": {"policy", "numerics"},
        "sharing": {"policy"},
        "replays": {"graphs", "policy", "numerics"},
        "rollout": {"graphs", "policy", "numerics", "replays", "sharding", "sharing"},
        "losses": {"numerics"},
        "optimise": {"sharding", "numerics", "replays", "rollout", "policy", "losses"},
        "ppo": {"numerics", "rollout", "policy", "losses", "optimise"},
        "groups": {"numerics", "rollout", "policy", "losses", "optimise"},
        "chosen": {"numerics", "rollout", "policy", "losses", "optimise", "groups"},
        "joining": set(),
        "given": {"policy", "rollout"},
        "checkpoint": {"policy"},
        "tracking": set(),
        "scaling": set(),
    },
    "rewards": {
        "text_models": set(),
        "judges": {"text_models"},
        "classified": {"text_models"},
        "similarity": {"text_models"},
        "overlap": set(),
        "rouge": set(),
        "functions": set(),
        "served": {"functions"},
        "terms": {"judges", "classified", "similarity", "overlap", "rouge", "functions", "served"},
        "score": {"judges", "terms"},
        "server": {"terms"},
    },
    "inference": {
        "decoding": set(),
        "engines": {"decoding"},
        "generator": {"decoding", "engines"},
        "answer": {"choosing", "generator"},
        "choosing": {"engines", "generator"},
        "export": {"decoding", "engines", "generator", "choosing"},
    },
    "serving": {
        "keys": set(),
        "guard": set(),
        "batching": set(),
        "observed": set(),
        "asking": set(),
        "models": {"batching"},
        "http": {"batching", "keys", "observed"},
        "api": {"asking", "batching", "guard", "http", "keys", "models", "observed"},
        "serve": {"api", "guard", "http", "keys", "models"},
        "shown": {"guard"},
        "demo": {"guard", "models", "shown"},
    },
    "evaluation": {
        "metrics": set(),
        "resampling": set(),
        "rows": set(),
        "analysis": {"resampling", "metrics"},
        "responses": set(),
        "earlier": {"rows"},
        "systems": {"metrics", "responses"},
        "notes": {"systems"},
        "measure": {"metrics", "rows", "systems"},
        "evaluate": {"notes", "measure", "systems", "rows", "earlier", "analysis", "metrics", "resampling"},
        "given": {"evaluate", "measure", "responses", "systems"},
    },
    "tasks": {"task": set(), "summarization": {"task"}, "detoxification": {"task"}, "translation": {"task"}},
    "report": {
        "measures": set(),
        "card": {"measures", "page"},
        "tables": {"measures"},
        "alternatives": {"measures"},
        "verdict": {"alternatives", "measures"},
        "placing": set(),
        "charts": {"measures", "placing", "tables"},
        "curves": {"charts"},
        "running": {"charts", "curves", "measures"},
        "end_record": set(),
        "examples": {"charts", "measures", "verdict"},
        "every_row": {"examples", "measures", "verdict"},
        "page": {"charts", "every_row", "measures"},
        "report": {
            *("card", "every_row", "examples", "charts", "curves", "measures", "page", "tables", "verdict"),
            *("end_record", "running"),
        },
        "shown": {"report", "running", "measures", "page", "charts", "curves", "examples", "tables", "verdict"},
        "sweep_page": {"page"},
        "compare": {"report", "charts", "curves", "measures", "page", "tables", "verdict"},
    },
    "training": {
        "fresh": set(),
        "focus": {"start"},
        "measuring": set(),
        "watch": set(),
        "boards": set(),
        "validation": set(),
        "resuming": {"watch"},
        "start": {"resuming"},
        "final_evaluation": {"start"},
        "keeping": {"start", "validation", "watch"},
    },
    "estimating": {
        "architectures": set(),
        "tracing": set(),
        "passes": {"tracing"},
        "memory": {"architectures", "passes"},
        "table": {"memory"},
    },
    "cli": {
        "faults": set(),
        "commands": set(),
        "doctor": set(),
        "flags": {"commands", "doctor"},
        "main": {"commands", "doctor", "faults", "flags"},
    },
}
"""Which files of its own folder a file may import; trl's, which share what TRL kept in one class, may import each other."""
FREE = {"trl"}


def imports_of(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def ours(path: Path) -> list[list[str]]:
    """What a file imports of ours: ["rl", "policy", "Policy"] for `from softspoken.rl.policy import Policy`."""
    return [name.split(".")[1:] for name in sorted(imports_of(path)) if name.startswith("softspoken.")]


def modules(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.py")} - {"__init__", "__main__"}


def folders() -> set[str]:
    return {path.parent.name for path in SOURCE.glob("*/__init__.py")}


def files_of(room: str) -> list[Path]:
    return sorted((SOURCE / room).glob("*.py")) or [SOURCE / f"{room}.py"]


def without_circle(may_import: dict[str, set[str]]) -> None:
    done: set[str] = set()
    while len(done) < len(may_import):
        free = {name for name, needs in may_import.items() if name not in done and needs <= done}
        assert free, f"a circle among {sorted(set(may_import) - done)}"
        done |= free


def test_every_room_imports_only_what_it_may():
    wrong = []
    for room, needs in MAY_IMPORT.items():
        allowed = needs | {room} | (set() if room in FOUNDATION else set(FOUNDATION))
        wrong += [
            f"{path.relative_to(SOURCE)} → {'.'.join(name)}"
            for path in files_of(room)
            for name in ours(path)
            if name[0] not in allowed
        ]
    assert not wrong


def test_every_file_imports_only_what_it_may_of_its_own_folder():
    wrong = []
    for folder, may_import in INSIDE.items():
        for name, needs in may_import.items():
            inside = {other[1] for other in ours(SOURCE / folder / f"{name}.py") if other[0] == folder and other[1:]}
            wrong += [f"{folder}/{name} → {other}" for other in sorted(inside - needs)]
    assert not wrong


def test_the_lists_name_every_room_and_file_and_have_no_circle():
    assert set(MAY_IMPORT) == folders() | modules(SOURCE)
    assert set(INSIDE) | FREE == folders()
    without_circle(MAY_IMPORT)
    for folder, may_import in INSIDE.items():
        assert set(may_import) == modules(SOURCE / folder)
        without_circle(may_import)


def test_a_folders_init_says_what_it_is_for_and_has_no_logic():
    for folder in folders():
        first, *rest = ast.parse((SOURCE / folder / "__init__.py").read_text(encoding="utf-8")).body
        assert isinstance(first, ast.Expr), folder
        assert all(isinstance(node, ast.ImportFrom | ast.Assign) for node in rest), folder


def test_numerics_imports_only_torch():
    outside = {name.split(".")[0] for name in imports_of(SOURCE / "rl/numerics.py")} - set(sys.stdlib_module_names)
    assert outside == {"torch"}
