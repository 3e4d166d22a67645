"""The reference pages, from what is run: commands from their parsers, settings from their dataclasses. Nothing is copied by hand."""

import argparse
import dataclasses
import re
import textwrap
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import softspoken
from softspoken.cli.commands import CONFIGS
from softspoken.cli.flags import _one_line, _parser
from softspoken.config.help import field_docs, settings_of
from softspoken.config.ranges import BOUNDS


class Commands(SphinxDirective):
    """Every command with its sentence; a command without a page is a link to nothing, which fails the build."""

    def run(self) -> list[nodes.Node]:
        rows = [
            f"| {{doc}}`softspoken {name} <{name}>` | {_plain(_one_line(config))} |" for name, config in CONFIGS.items()
        ]
        return _parsed(self, ["| command | what it does |", "|---|---|", *rows])


class Command(SphinxDirective):
    """A command's usage, sentence, examples and every flag, from its own parser."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        parser = _parser(name)
        purpose, _, examples = str(parser.description).partition("\n\nexamples:\n")
        lines = [_plain(purpose), "", "```text", str(parser.usage), "```", ""]
        lines += ["```text", *textwrap.dedent(examples).splitlines(), "```", ""]
        lines += [f":::{{program}} softspoken {name}", ":::", ""]
        for action in parser._actions:
            if action.dest != "help":
                lines += [f":::{{option}} {_written(action)}", _plain(str(action.help) % {}), ":::", ""]
        return _parsed(self, lines)


class Settings(SphinxDirective):
    """Every setting of a configuration, with its type, default, bounds and help."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        config: Any = getattr(softspoken, name)
        docs = field_docs(config)
        lines = [f"::::{{py:class}} softspoken.{name}(*, …)", _plain(config.__dict__["__doc__"].purpose), ""]
        lines += ["```pycon", *config.__dict__["__doc__"].example.splitlines(), "```", ""]
        for field in settings_of(config):
            lines += [f":::{{py:attribute}} {field.name}", f":type: {field.type}", f':value: "{field.default!r}"']
            if field.default is dataclasses.MISSING:
                lines.pop()
            about = f" ({BOUNDS[field.name]})" if field.name in BOUNDS else ""
            lines += ["", _plain(docs[field.name] + about), ":::", ""]
        return _parsed(self, [*lines, "::::"])


def _written(action: argparse.Action) -> str:
    """`--steps N`, `--judge JUDGE ...`, or `FILE` for what stands without a flag."""
    value = str(action.metavar or action.dest.upper())
    if not action.option_strings:
        return value
    several = " ..." if action.nargs == "+" else ""
    return f"{action.option_strings[-1]} {value}{several}"


def _plain(text: str) -> str:
    """Text as Markdown that shows it as it is, but for flags and names in braces or with an equals sign, which are code."""
    found = re.split(r"(--[a-z_]+|\{\w+\}|https?://\S+?(?=[\s,;)]|$))", text)
    return "".join(
        f"`{part}`" if n % 2 else re.sub(r"([\\`*_\[\]<>#|~])", r"\\\1", part) for n, part in enumerate(found)
    )


def _parsed(directive: SphinxDirective, lines: list[str]) -> list[nodes.Node]:
    holder = nodes.container()
    directive.state.nested_parse(StringList(lines, directive.get_source_info()[0]), directive.content_offset, holder)
    return holder.children


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("softspoken-commands", Commands)
    app.add_directive("softspoken-command", Command)
    app.add_directive("softspoken-config", Settings)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
