"""Every command line that the README and the pages show is one that softspoken takes: its flags, the kinds of their values, and settings that go
together."""

import functools
import re
import shlex
from pathlib import Path

from softspoken.cli import flags
from softspoken.types import InputError

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted({*(ROOT / "docs").rglob("*.md")} - {ROOT / "docs/results.md"})]
"""Results are written from records, which leave out where they were written to."""
CELL = re.compile(r"^%%sh\n(.*?)^```", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"^ *(?:torchrun .*-m |accelerate launch .*-m )?softspoken (?=[a-z])(.+)$", re.MULTILINE)
BEHIND = re.compile(r" {2,}[^-\s].*$| (?:>|<|\|\|?) .*$")
"""A remark, two spaces or more away, or what the shell does with it."""


def commands(text: str) -> list[list[str]]:
    """As words; of what is indented, or in a cell that the shell runs."""
    text = text.replace("\\\n", "")
    shown = "\n".join([*CELL.findall(text), *re.findall(r"^ {4}.*$", text, flags=re.MULTILINE)])
    return [shlex.split(BEHIND.sub("", command)) for command in COMMAND.findall(shown)]


def test_a_command_is_found_with_its_words():
    text = "    softspoken train --reward 'a + b' \\\n      --steps 2    and no more\n\nsoftspoken is prose\n\n%%sh\nsoftspoken score < x.txt\n```\n"
    assert commands(text) == [["score"], ["train", "--reward", "a + b", "--steps", "2"]]


def test_each_is_taken(monkeypatch):
    monkeypatch.setattr(flags, "_parser", functools.cache(flags._parser))  # which take most of the time
    shown = {tuple(words): page.name for page in PAGES for words in commands(page.read_text(encoding="utf-8"))}
    assert len(shown) > 40
    refused = []
    for words, page in shown.items():
        try:
            flags.parse(list(words))
        except InputError as error:
            refused.append((page, " ".join(words)[:100], str(error)))
    assert refused == []
