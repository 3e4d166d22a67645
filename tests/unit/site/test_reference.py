"""The command reference is written from the parsers: here only that no command is without its page, and that a flag reads as it does."""

import re
import sys
from pathlib import Path

import pytest

import softspoken
from softspoken.cli.commands import CONFIGS

DOCS = Path(__file__).parents[3] / "docs"


def test_every_command_has_a_page():
    pages = {path.stem: path.read_text(encoding="utf-8") for path in (DOCS / "reference/commands").glob("*.md")}
    del pages["index"]
    assert sorted(pages) == sorted(CONFIGS)
    assert [name for name, text in pages.items() if f"```{{softspoken-command}} {name}\n" not in text] == []


def test_every_public_name_is_in_the_reference():
    text = "".join((DOCS / f"reference/{page}.md").read_text(encoding="utf-8") for page in ("python", "configs"))
    named = re.findall(r"(?:auto\w+:: softspoken\.|softspoken-config} )(\w+)$", text, flags=re.MULTILINE)
    assert sorted(named) == sorted({*softspoken.__all__} - {"__version__"})


def test_help_is_shown_as_it_is(monkeypatch):
    pytest.importorskip("sphinx")
    monkeypatch.syspath_prepend(DOCS / "_ext")
    import reference

    sys.modules.pop("reference")
    assert reference._plain("a *b* of {text}, with --judge A_B") == r"a \*b\* of `{text}`, with `--judge` A\_B"
    flags = {action.dest: reference._written(action) for action in reference._parser("evaluate")._actions}
    assert (flags["limit"], flags["judge"]) == ("--limit N", "--judge JUDGE ...")
    [file] = [reference._written(action) for action in reference._parser("score")._actions if action.dest == "file"]
    assert file == "FILE"
