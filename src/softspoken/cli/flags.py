"""argv → (command, its settings): every field of a command's dataclass in config/ is a flag, with the text under it as help.

For a command with --config, precedence is defaults < --preset < --config < flags, in whatever order they are written.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import re
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import shtab
import yaml
from jsonargparse import ArgumentParser

from softspoken.cli.commands import ALWAYS, CONFIGS, EXAMPLES, POSITIONAL, USAGE, WITH_CONFIG_FILE
from softspoken.cli.doctor import versions
from softspoken.config.help import field_docs, purpose_of, settings_of
from softspoken.config.presets import presets
from softspoken.config.ranges import BOUNDS, remedy
from softspoken.types import InputError

LONGEST_CONFIG = 1_000_000
"""Bytes."""
FILES = ("file", "dir", "runs", "config", "output", "model", "adapter", "dataset", "eval_dataset", "resume")
"""What may be a path, for the shell to complete."""


OF_ANOTHER_RUN = ("output", "overwrite", "resume", "push_to_hub")
"""Settings that are not taken from a run's own config.yaml."""


def parse(argv: Sequence[str]) -> tuple[str, Any]:
    """The command and its settings. Raises InputError with one sentence about what is wrong with them."""
    parsers = {name: _parser(name) for name in CONFIGS}
    top = _top(parsers)
    argv = [re.sub(r"^--[a-zA-Z-]+", lambda option: "--" + option[0][2:].replace("-", "_"), word) for word in argv]
    words = [word for word in argv if not word.startswith("-")]
    command = words[0] if words and words[0] in CONFIGS else ""
    if not command and (words or not {"-h", "--help", "--version"} & {*argv}):
        problem = f"there is no command {words[0]!r}{_did_you_mean(words[0], CONFIGS)}" if words else "no command given"
        raise InputError(f"{problem}; there is {', '.join(CONFIGS)} (softspoken --help explains them)")
    try:
        flags = dict(top.parse_args(argv, defaults=False)[command].items())
    except argparse.ArgumentError as error:
        raise InputError(_sentence(command, str(error))) from error
    except (ValueError, OverflowError, RecursionError) as error:
        raise InputError(f"{command}: {_beyond_reading(error, argv)}") from error
    return command, _config(command, parsers[command], flags)


def completion(shell: str) -> str:
    """A script for `shell` that completes commands, flags, names of files and the values of settings that have few."""
    parsers = {name: _parser(name) for name in CONFIGS}
    for name, parser in parsers.items():
        hints = typing.get_type_hints(CONFIGS[name])
        for action in parser._actions:
            if choices := _choices(hints.get(action.dest)):
                action.choices = choices
            elif action.dest in FILES:
                action.complete = shtab.FILE
    return shtab.complete(_top(parsers), shell)


def _top(parsers: dict[str, ArgumentParser]) -> ArgumentParser:
    top = ArgumentParser(
        prog="softspoken",
        description="Reinforcement learning for encoder–decoder language models: raise what a reward\n"
        "measures (summaries that repeat no abuse, better translations, a score of your\n"
        "own), hold on to the rest, and show whether it worked.",
        epilog="softspoken COMMAND --help explains a command. The whole job on embedded models: softspoken train",
        formatter_class=_help_format,
        version=versions(),
        exit_on_error=False,
        allow_abbrev=False,
    )
    commands = top.add_subcommands(title="commands", metavar="COMMAND")
    for name, parser in parsers.items():
        commands.add_subcommand(name, parser, help=_one_line(CONFIGS[name]))
    return top


def _config(command: str, parser: ArgumentParser, flags: dict[str, Any]) -> Any:
    preset, file = flags.pop("preset", None), flags.pop("config", None)
    for name, given in (("preset", preset), ("config", file)):
        if given is not None and not given.strip():
            raise InputError(f"{name} is empty; give a value or leave it out (is a shell variable not set?)")
    settings = {**(_preset(preset) if preset else {}), **(_from_file(command, parser, file) if file else {}), **flags}
    settings = {**ALWAYS.get(command, {}), **settings}
    config_class = CONFIGS[command]
    for field in dataclasses.fields(config_class):
        if field.default is dataclasses.MISSING and settings.get(field.name) is None:
            option = field.name.upper() if POSITIONAL.get(command) == field.name else f"--{field.name}"
            raise InputError(f"{command} needs {option}: {field_docs(config_class)[field.name]}")
    return config_class(**settings)


RENAMED = {
    "flan-t5-base": "preset flan-t5-base is called flan-t5-base-recipe now, for it is the recipe to the letter, whose learning rate hardly moves "
    "anything; to train FLAN-T5, give --model google/flan-t5-base, which takes the preset recommended"
}


def _preset(name: str) -> dict[str, Any]:
    known = presets()
    if name in RENAMED:
        raise InputError(RENAMED[name])
    if name not in known:
        raise InputError(
            f"there is no preset {name!r}{_did_you_mean(name, known)}; there is {', '.join(sorted(known))}"
        )
    return known[name]


def _from_file(command: str, parser: ArgumentParser, file: str) -> dict[str, Any]:
    """The settings in a YAML file: fields at the top, or under `config` as in a run's own config.yaml."""
    try:
        content = _yaml(Path(file))
    except OSError as error:
        raise InputError(
            f"config file {file} cannot be read ({error.strerror}); give a YAML file of settings"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(
            f"config file {file} is not YAML ({' '.join(str(error).split())}); write one 'field: value' a line"
        ) from error
    settings = content
    if isinstance(content, dict) and isinstance(content.get("config"), dict):
        # Another run's record: its settings, not its folder, which would be written again.
        settings = {name: value for name, value in content["config"].items() if name not in OF_ANOTHER_RUN}
    if not isinstance(settings, dict):
        raise InputError(f"config file {file} has no settings in it; write one 'field: value' a line")
    hints = typing.get_type_hints(CONFIGS[command])
    for name, value in settings.items():
        if name not in hints:
            raise InputError(f"config file {file}: {_unknown_field(command, str(name))}")
        if value is None and type(None) not in typing.get_args(hints[name]):
            raise InputError(f"config file {file}: {name} has no value: {remedy(hints[name])}")
        if isinstance(value, dict) and "a mapping" not in remedy(hints[name]):  # jsonargparse fails on one for a list
            raise InputError(f"config file {file}: {name} {value!r} cannot be used: {remedy(hints[name])}")
    try:
        return dict(parser.parse_object(settings, defaults=False).items())
    except argparse.ArgumentError as error:
        raise InputError(f"config file {file}: {_sentence(command, str(error), settings)}") from error
    except (ValueError, OverflowError, RecursionError) as error:
        raise InputError(f"config file {file}: {_beyond_reading(error, map(str, settings.values()))}") from error


def _yaml(path: Path) -> Any:
    """Its content. One that names parts of itself (`*alias`) is refused: in few lines such a file can say more than fits in memory."""
    with path.open("rb") as file:
        content = file.read(LONGEST_CONFIG + 1)
    if len(content) > LONGEST_CONFIG:
        raise InputError(f"config file {path} has more than {LONGEST_CONFIG:,} bytes; give a YAML file of settings")
    text = content.decode("utf-8-sig")
    try:
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise InputError(f"config file {path} has an alias (*name) in it; write out what it stands for")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST_CONFIG:  # reading on takes time by the square of the depth
                raise RecursionError
        return yaml.safe_load(text)
    except (OverflowError, RecursionError) as error:
        raise InputError(f"config file {path}: {_beyond_reading(error, [])}") from error
    except InputError:
        raise
    except ValueError as error:  # of Python's own: a number of more than 4,300 digits, a date that is none
        raise InputError(
            f"config file {path} has a value that cannot be read ({' '.join(str(error).split())})"
        ) from error


def _beyond_reading(error: Exception, words: Iterable[str]) -> str:
    what = "is nested too deep" if isinstance(error, RecursionError) else "is a number that is too long"
    return f"one of its settings {what} to be read ({max(words, key=len, default='')[:40]}…); give a shorter one"


def _parser(command: str) -> ArgumentParser:
    config_class = CONFIGS[command]
    file = POSITIONAL.get(command)
    parser = ArgumentParser(
        usage=f"softspoken {command} {USAGE.get(command, '[--OPTION VALUE ...]')}",
        description=f"{purpose_of(config_class)}\n\nexamples:\n{EXAMPLES[command]}",
        formatter_class=_help_format,
        exit_on_error=False,
        allow_abbrev=False,
    )
    if command == "train":
        parser.add_argument(
            "--preset", type=str, metavar="NAME", help=f"settings to start from: {', '.join(sorted(presets()))}"
        )
    if command in WITH_CONFIG_FILE:
        parser.add_argument("--config", type=str, metavar="FILE", help="YAML file of settings; flags go before it")
    hints, docs = typing.get_type_hints(config_class), field_docs(config_class)
    for field in settings_of(config_class):
        default = [] if field.default in (None, dataclasses.MISSING) else [f"default: {field.default}"]
        bounds = [str(BOUNDS[field.name])] if field.name in BOUNDS else []
        about = f" ({'; '.join(bounds + default)})" if bounds or default else ""
        text = (docs[field.name] + about).replace("%", "%%")
        if field.name == file:
            several = typing.get_origin(hints[file]) is list
            parser.add_argument(
                file,
                type=str,
                nargs="*" if several else "?",
                metavar=file.upper().rstrip("S") if several else file.upper(),
                help=text,
                default=argparse.SUPPRESS,
            )
        else:
            parser.add_argument(f"--{field.name}", help=text, **_accepts(hints[field.name]))
    return parser


def _help_format(prog: str) -> argparse.HelpFormatter:
    return argparse.RawDescriptionHelpFormatter(prog, max_help_position=28)


def _accepts(hint: Any) -> dict[str, Any]:
    """How argparse takes values of a type: `--overwrite` and `--overwrite false`; `--judge A B` and `--judge A --judge B`."""
    kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)] or [hint]
    if hint is bool:
        return {"type": bool, "nargs": "?", "const": True, "metavar": "true|false"}
    if typing.get_origin(kinds[0]) is list:
        return {"type": str, "nargs": "+", "action": "extend"}
    if choices := _choices(hint):
        return {"type": hint, "metavar": "|".join(map(str, choices))}
    metavar = {int: "N", float: "X"}.get(kinds[0])
    return {"type": hint, **({"metavar": metavar} if metavar else {})}


def _choices(hint: Any) -> tuple[str, ...]:
    """The values of a Literal, or of one that may be None."""
    kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)] or [hint]
    literal = next((kind for kind in (hint, kinds[0]) if typing.get_origin(kind) is Literal), None)
    return typing.get_args(literal) if literal else ()


def _one_line(config_class: type) -> str:
    return purpose_of(config_class).rstrip(".").replace("%", "%%")


# ---------------------------------------------------------------------------------------------- saying what is wrong


def _sentence(command: str, message: str, settings: dict[str, Any] | None = None) -> str:
    """jsonargparse's message, which may be many lines about types, as one sentence about a field."""
    if unknown := re.match(r"unrecognized arguments: (\S+)", message):
        word = unknown[1].partition("=")[0]
        return (
            _unknown_field(command, word[2:])
            if word.startswith("--")
            else f"{command} does not take {unknown[1]!r}; softspoken {command} --help says what it takes"
        )
    hints = typing.get_type_hints(CONFIGS[command])
    if found := re.search(r'Parser key "(\w+)"|argument --(\w+)', message):
        name = found[1] or found[2]
        if found[2]:
            return f"--{name} needs a value: {remedy(hints.get(name, str))}"
        value = settings[name] if settings else re.split(r"value: ", message)[-1].strip()
        return f"{name} {value!r} cannot be used: {remedy(hints[name])}"
    return " ".join(message.split())


SETTINGS_RENAMED = {
    ("sft", "lora"): "sft takes --trained lora in place of --lora, and the other kinds that train does",
    **{
        (
            command,
            "quantization",
        ): f"{command} takes --compute_type, CTranslate2's own name for how it computes; quantization is the bits of "
        "a base that torch holds (train, sft, dpo, evaluate, generate)"
        for command in ("export", "serve")
    },
}


def _unknown_field(command: str, name: str) -> str:
    if (command, name) in SETTINGS_RENAMED:
        return SETTINGS_RENAMED[command, name]
    fields = [field.name for field in dataclasses.fields(CONFIGS[command])]
    return f"{command} has no setting {name!r}{_did_you_mean(name, fields)}; softspoken {command} --help lists them all"


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


DEEPEST_CONFIG = 100
"""Lists and mappings within one another, at most."""
