"""Results on disk, JSON and lines of it, whole or not there. Standard library only: the legacy environment imports it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Record = dict[str, Any]


def read_json(path: Path) -> Any:
    """None where there is no such file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def write_json(path: Path, content: Record) -> None:
    """A line for each field and, of a field that is a list of objects, for each of them: so that a change is a change of lines."""
    fields = ",\n".join(f"{json.dumps(name)}: {_by_line(value)}" for name, value in content.items())
    _write(path, f"{{\n{fields}\n}}\n")


def _by_line(value: Any) -> str:
    if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        return "[\n" + ",\n".join(json.dumps(one, ensure_ascii=False) for one in value) + "\n]"
    return json.dumps(value, ensure_ascii=False)


def read_lines(path: Path) -> list[Record]:
    """The records of a file with one a line; a last line that is not whole is left out."""
    return list(map(json.loads, path.read_text(encoding="utf-8").split("\n")[:-1])) if path.is_file() else []


def write_lines(path: Path, rows: Sequence[Record]) -> int:
    """How many they are."""
    _write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return len(rows)


def append(path: Path, record: Record) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.saving")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)
