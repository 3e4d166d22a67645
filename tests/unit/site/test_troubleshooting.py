"""Every error that docs/troubleshooting.md quotes is one that the source can say."""

import ast
import re
from pathlib import Path

import softspoken

SOURCE = Path(softspoken.__file__).parent
PAGE = Path(__file__).parents[3] / "docs/troubleshooting.md"


def said() -> set[str]:
    """Every text in the source, with … for what is filled in."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in SOURCE.rglob("*.py")]
    return {text for tree in trees for node in ast.walk(tree) if (text := text_of(node)) and len(text) > 20}


def text_of(node: ast.AST) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return ""


def test_the_quoted_errors_are_the_sources():
    quoted = re.findall(r"^`(.+)`\n: ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(quoted) > 20
    source = said()
    assert [error for error in quoted if error not in source] == []
