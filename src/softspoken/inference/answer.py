"""The generate command: texts as they come, a response to each as it is made.

The input is looked at before anything is imported that takes seconds: a wrong column is said at once.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from softspoken.config import GenerateConfig
from softspoken.data.columns import Columns, find_text
from softspoken.data.files import (
    LONGEST_LINE,
    TABLES,
    file_rows,
    file_suffix,
    lines_of,
    open_text,
    parse_json_lines,
    saying_what_is_wrong,
)
from softspoken.data.reading import to_examples
from softspoken.runtime import processes
from softspoken.runtime.loading import importing
from softspoken.runtime.progress import Speed, progress_bar
from softspoken.storage.lines_file import LinesFile
from softspoken.tasks.task import Task, asked, load_task
from softspoken.types import InputError, counted

if TYPE_CHECKING:
    from softspoken.data.prompts import PromptFormat

log = logging.getLogger(__name__)

Rows = Iterator[Mapping[str, Any]]


def generate(config: GenerateConfig, input: TextIO, output: TextIO) -> None:
    """Responses to `config.file` (or of `input`) to `config.output`, a JSON line each, or to `output`, as they are made: JSON lines too, or
    plain text for plain text."""
    task = load_task(config.task) if config.task else None
    word = task.words.response if task else "response"
    if processes.size() > 1 and config.file == "-":
        raise InputError("several processes cannot share standard input; give a file")
    with processes.joined(config.device), _file(config, word) as file:
        if not processes.from_first(file is not None and file.is_finished):
            _generate(config, task, word, input, output, file)


def _file(config: GenerateConfig, word: str) -> AbstractContextManager[LinesFile | None]:
    if config.output is None or not processes.first():
        return nullcontext()
    inputs = [*([config.file] if config.file != "-" else []), config.model, config.adapter]
    return LinesFile("generate", asdict(config), inputs=inputs, key=word)


def _generate(
    config: GenerateConfig, task: Task | None, word: str, input: TextIO, output: TextIO, file: LinesFile | None
) -> None:
    name = "standard input" if config.file == "-" else config.file
    own = {"own_text": task.text_column, "pair": task.pair_column} if task else {"own_text": None}
    languages = {"source": config.source_language, "target": config.target_language}
    columns = Columns(config.text_column, wants_reference=False, **own, **languages)
    total = _checked_count(config, columns, name)
    as_json, rows = _read(config, input, name)
    columns = columns if as_json else Columns("text")
    start = list(islice(rows, 1))
    if start:
        find_text(start[0], columns, name)

    prompt_format = _prompt_format(config, task)
    examples = to_examples(
        chain(start, rows),
        source=name,
        columns=columns,
        on_bad_row=config.on_bad_row,
        cleaned=prompt_format.clean,
        say=total is None,
    )
    first = next(examples, None)  # input that cannot be read is said before the model is loaded
    if first is None:
        raise InputError(f"{name} has no text in it; give JSON lines with id and text, or plain text")
    with importing():  # transformers imports a model's own file when the model is loaded
        from softspoken.inference.choosing import use_engine
        from softspoken.inference.generator import WINDOW, Generator

        generator = Generator.from_pretrained(
            config.model,
            adapter=config.adapter,
            device=config.device,
            max_new_tokens=config.max_new_tokens,
            prompt_format=prompt_format,
            quantization=config.quantization,
        )
    one, many = (task.words.text, task.words.texts) if task else ("text", "texts")
    use_engine(generator, config.engine)
    done = processes.from_first(file.begin(config.batch_size * WINDOW) if file else 0)
    left = islice(chain([first], examples), done, None)
    where = file or output
    with progress_bar("generate", Speed(many), output=None if file else output) as progress:
        bar = progress.add_task("generate", total=total, completed=done)
        for count, (example, text) in enumerate(generator.stream(left, config.batch_size, shared=True)):
            if as_json or file:
                where.write(json.dumps({"id": example.id, word: text}, ensure_ascii=False) + "\n")
            else:
                where.write(("\n" if count else "") + _block(text) + "\n")
            where.flush()
            progress.advance(bar)
    if file:
        file.finish()
    if truncated := sum(processes.gather(generator.truncated)):
        side = "end" if generator.prompt_format.truncation_side == "right" else "beginning"
        log.warning(
            "%s longer than %d tokens; the %s was cut off",
            counted(truncated, f"{one} was", f"{many} were"),
            generator.prompt_format.max_prompt_tokens,
            side,
        )


def _prompt_format(config: GenerateConfig, task: Task | None) -> PromptFormat:
    with importing():
        from softspoken.data.prompts import PromptFormat
        from softspoken.models.adapters import adapter_folder
        from softspoken.models.pretrained import prompt_format_for

    folder = adapter_folder(config.adapter) if config.adapter else None
    default = PromptFormat(task.template) if task else None
    return prompt_format_for(config.model, folder, default=default, **asked(task, config))


def _read(config: GenerateConfig, input: TextIO, name: str) -> tuple[bool, Rows]:
    """(whether JSON lines are to be written, the rows) of a data file, a text file or a stream."""
    file, path = config.file, Path(config.file)
    if file != "-" and file_suffix(path) in TABLES:
        return True, iter(file_rows(path))
    if file != "-" and (path.is_dir() or not path.exists()):
        raise InputError(f"no file at {file}; give a text, JSON, JSONL, CSV or Parquet file, or - for standard input")
    lines = _lines(lines_of(input, name) if file == "-" else _open(path), name)
    start = list(islice((line for line in lines if line.strip()), 1))
    lines = chain(start, lines)
    if start and start[0].lstrip().startswith("{"):
        return True, parse_json_lines(lines, source=name)
    return False, ({"text": block} for block in _blocks(lines))


def _checked_count(config: GenerateConfig, columns: Columns, name: str) -> int | None:
    """How many texts a file holds: read through once, so that row 900,000 is found bad now and not in an hour.

    A stream cannot be read twice; and with `skip` nothing needs to be found. Then the number is not known.
    """
    if config.on_bad_row == "skip" or config.file == "-" or not Path(config.file).is_file():
        return None
    as_json, rows = _read(config, sys.stdin, name)
    return sum(1 for _ in to_examples(rows, source=name, columns=columns if as_json else Columns("text"), say=as_json))


def _open(path: Path) -> Iterator[str]:
    with open_text(path) as file:
        yield from lines_of(file, str(path))


def _lines(lines: Iterable[str], source: str) -> Iterator[str]:
    with saying_what_is_wrong(source):
        for number, line in enumerate(lines):
            yield line if number else line.removeprefix("\ufeff")


def _block(text: str) -> str:
    """Without blank lines, which stand between texts."""
    return "\n".join(line for line in text.splitlines() if line.strip())


def _blocks(lines: Iterable[str]) -> Iterator[str]:
    """Runs of lines between blank ones."""
    block: list[str] = []
    length = 0
    for line in chain(lines, [""]):
        if line.strip():
            block.append(line)
            length += len(line)
            if length > LONGEST_LINE:
                raise InputError(
                    f"there are more than {LONGEST_LINE:,} characters before a blank line; put one between any two texts"
                )
        elif block:
            yield "".join(block).rstrip("\r\n")
            block, length = [], 0
