"""The score command: lines or rows in, a JSON line out for each; any reward, over standard input, a file, or as a server.

A single classifier says how toxic each is; every other reward its score, and each of its terms by its own name. What is wrong with the
first row is said before torch is imported.
"""

from __future__ import annotations

import json
import logging
import math
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TextIO

from softspoken.config import ScoreConfig
from softspoken.config.rewards import is_judge, reward_weights
from softspoken.data.columns import USUAL_TEXTS, Columns, find_references, find_text, has, value_of
from softspoken.data.files import (
    TABLES,
    file_rows,
    file_suffix,
    lines_of,
    open_text,
    parse_json_lines,
    saying_what_is_wrong,
)
from softspoken.runtime import processes
from softspoken.runtime.loading import importing
from softspoken.runtime.progress import Speed, progress_bar
from softspoken.storage.lines_file import LinesFile
from softspoken.types import Example, InputError

if TYPE_CHECKING:
    from softspoken.rewards.judges import Judge
    from softspoken.rewards.terms import WeightedReward

log = logging.getLogger(__name__)

USUAL_RESPONSES = ("response", "completion", "prediction", "hypothesis")


@dataclass(frozen=True)
class Asked:
    """One response, and what it answers; `id` is None for a line of text."""

    response: str
    example: Example
    id: str | None


def score(config: ScoreConfig, input: TextIO, output: TextIO) -> None:
    """Write a JSON line for each line or row of `config.file` (or of `input`, for `-`) to `config.output`, or to `output` as they are
    made: `text`, `toxicity` and the other labels of a classifier, else `response`, `score` and `terms`.

    `toxicity` is the classifier's own label of that name or, where it has none, the one that the spec names.
    """
    if processes.size() > 1 and config.file == "-":
        raise InputError("several processes cannot share standard input; give a file")
    with processes.joined(config.device), _file(config) as file:
        if not processes.from_first(file is not None and file.is_finished):
            _score(config, input, output, file)


def _file(config: ScoreConfig) -> AbstractContextManager[LinesFile | None]:
    if config.output is None or not processes.first():
        return nullcontext()
    inputs = [*([config.file] if config.file != "-" else []), config.reward]
    key = "toxicity" if is_judge(config.reward) else "score"
    return LinesFile("score", asdict(config), inputs=inputs, key=key)


def _score(config: ScoreConfig, input: TextIO, output: TextIO, file: LinesFile | None) -> None:
    reward_weights(config.reward)  # what cannot be read is said first
    with _opened(config.file, input) as source:
        name = "standard input" if config.file == "-" else config.file
        total = _count(config, source, name)
        given = _asked(config, source, name)
        start = list(islice(given, 1))
        scorer = (
            _judging(config) if is_judge(config.reward) else _rewarding(config, lines=bool(start and not start[0].id))
        )
        window = 1 if source.isatty() else 8 * config.batch_size  # several batches, for sorting by length to pay
        done = processes.from_first(file.begin(window) if file else 0)
        left = islice(chain(start, given), done, None)
        where = file or output
        with progress_bar("score", Speed("lines"), output=None if file else output) as progress:
            task = progress.add_task("score", total=total, completed=done)
            while asked := list(islice(left, window * processes.size())):
                windows = [asked[start : start + window] for start in range(0, len(asked), window)]
                made = [list(scorer.lines(own)) for own in processes.turns(windows)]  # each process takes one
                for lines in processes.in_turn(made, len(windows)):
                    where.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
                    where.flush()
                    progress.advance(task, len(lines))
                scorer.clear_cache()  # a window's scores come of its own batches, whoever scores it and wherever a stop was
    if file:
        file.finish()
    if cut := sum(processes.gather(scorer.truncated)):
        log.warning("%d lines were longer than %s takes%s and were cut", cut, config.reward, scorer.limit)


# ------------------------------------------------------------------------------------------------------------- scoring


@dataclass(frozen=True)
class Judging:
    judge: Judge

    def lines(self, asked: list[Asked]) -> Iterator[dict[str, Any]]:
        judge = self.judge
        main = "toxicity" if "toxicity" in judge.labels else judge.labels[0]
        scores = judge([one.response for one in asked])
        for row, one in enumerate(asked):
            others = {label: round(scores[label][row], 6) for label in judge.labels if label != main}
            yield {**_id(one), "text": one.response, "toxicity": round(scores[main][row], 6), **others}

    def clear_cache(self) -> None:
        self.judge.clear_cache()

    @property
    def truncated(self) -> int:
        return self.judge.truncated

    @property
    def limit(self) -> str:
        return f" ({self.judge.model.max_tokens} tokens)"


@dataclass(frozen=True)
class Rewarding:
    reward: WeightedReward
    limit: str = ""

    def lines(self, asked: list[Asked]) -> Iterator[dict[str, Any]]:
        scores = self.reward([one.response for one in asked], [one.example for one in asked])
        terms = {name: values.tolist() for name, values in scores.terms.items()}
        for row, (one, total) in enumerate(zip(asked, scores.total.tolist(), strict=True)):
            each = {name: _number(values[row]) for name, values in terms.items()}
            yield {**_id(one), "response": one.response, "score": _number(total), "terms": each}

    def clear_cache(self) -> None:
        self.reward.clear_cache()

    @property
    def truncated(self) -> int:
        return self.reward.truncated


def _id(one: Asked) -> dict[str, str]:
    return {} if one.id is None else {"id": one.id}


def _number(value: float) -> float | None:
    """None where a term has no opinion."""
    return None if math.isnan(value) else round(value, 6)


def _judging(config: ScoreConfig) -> Judging:
    with importing():  # transformers imports a model's own file when the model is loaded
        from softspoken.rewards.judges import load_judge

        judge = load_judge(
            config.reward, device=config.device, batch_size=config.batch_size, detoxify_sha256=config.detoxify_sha256
        )
    return Judging(judge)


def _rewarding(config: ScoreConfig, *, lines: bool) -> Rewarding:
    with importing():
        from softspoken.rewards.terms import load_reward

        reward = load_reward(
            config.reward, device=config.device, batch_size=config.batch_size, detoxify_sha256=config.detoxify_sha256
        )
    if lines and (more := [*reward.needs_references, *reward.needs_texts]):
        raise InputError(
            f"reward {more[0]} compares a response with its text or reference, and lines have none; give rows (JSONL, CSV …) with both"
        )
    return Rewarding(reward)


# ------------------------------------------------------------------------------------------------------------- reading


def _asked(config: ScoreConfig, source: IO[str], name: str) -> Iterator[Asked]:
    """Of a file of rows or a stream of JSON lines its rows, else each line."""
    if _is_table(config.file):
        return _of_rows(file_rows(Path(config.file)), config, name)
    lines = _lines(source, name)
    start = list(islice(lines, 1))
    if config.file == "-" and start and start[0].lstrip().startswith("{"):
        return _of_rows(parse_json_lines(chain(start, lines), source=name), config, name)
    return (Asked(line, Example(str(number), ""), None) for number, line in enumerate(chain(start, lines), start=1))


def _of_rows(rows: Iterable[Mapping[str, Any]], config: ScoreConfig, name: str) -> Iterator[Asked]:
    response: str | None = None
    text: str | None = None
    references: list[str] = []
    for number, row in enumerate(rows, start=1):
        response = response or _response_column(row, config, name)
        others = {column: value for column, value in row.items() if column != response}
        text = text or _text_column(others, config, name)
        references = references or find_references(
            others, Columns(reference=config.reference_column, own_reference=None), name
        )
        yield _of_row(row, number, name, response, text, references)


def _response_column(row: Mapping[str, Any], config: ScoreConfig, name: str) -> str:
    wanted = config.response_column
    if wanted is not None:
        if not has(row, wanted):
            raise InputError(f"{name}: no column {wanted!r} (response_column); row 1 has {', '.join(map(str, row))}")
        return wanted
    for usual in USUAL_RESPONSES:
        if has(row, usual):
            return usual
    if is_judge(config.reward):  # which reads a text alone
        return find_text(row, Columns(config.text_column, own_text=None), name)
    raise InputError(
        f"{name}: none of its columns is known to be the response ({', '.join(USUAL_RESPONSES)} would be); row 1 has "
        f"{', '.join(map(str, row))}: name one with --response_column"
    )


def _text_column(row: Mapping[str, Any], config: ScoreConfig, name: str) -> str | None:
    """None where there is none and none was named: not every reward reads it."""
    if config.text_column is None and not any(has(row, usual) for usual in USUAL_TEXTS):
        return None
    if is_judge(config.reward):
        return None
    return find_text(row, Columns(config.text_column, own_text=None), name)


def _of_row(
    row: Mapping[str, Any], number: int, name: str, response: str, text: str | None, references: list[str]
) -> Asked:
    def value(column: str) -> Any:
        found = value_of(row, column)
        if not isinstance(found, str | list | tuple | None):
            raise InputError(
                f"{name}: row {number} has {reprlib.repr(found)} where text should be in column {column!r}"
            )
        return found

    found = value(response)
    if not isinstance(found, str):
        raise InputError(f"{name}: row {number} has no text in column {response!r}; give one, which may be empty")
    given = [value(column) for column in references]
    texts = [str(one) for each in given for one in (each if isinstance(each, list | tuple) else [each]) if one]
    own = row.get("id")
    example = Example(
        id=str(number) if own is None else str(own),
        text=str(value(text) or "") if text else "",
        reference=texts[0] if texts else None,
        further_references=tuple(texts[1:]),
        columns={column: value for column, value in row.items() if column not in (response, text, *references)},
        row=row,
    )
    return Asked(found, example, example.id)


def _is_table(file: str) -> bool:
    return file != "-" and file_suffix(Path(file)) in TABLES


def _opened(file: str, input: TextIO) -> AbstractContextManager[IO[str]]:
    if file == "-":
        return nullcontext(input)
    if not Path(file).is_file():
        raise InputError(f"no file at {file}; give a text file with a text on each line, or - for standard input")
    if Path(file).stat().st_size == 0:
        raise InputError(f"{file} is empty; give a text file with a text on each line")
    if file_suffix(Path(file)) == ".parquet":
        return nullcontext(input)  # it is no text, and is read by its name
    return open_text(Path(file))


def _lines(source: IO[str], name: str) -> Iterator[str]:
    with saying_what_is_wrong(name):
        for number, line in enumerate(lines_of(source, name)):
            yield line.rstrip("\r\n").removeprefix("" if number else "\ufeff")


def _count(config: ScoreConfig, source: IO[str], name: str) -> int | None:
    """For the progress bar; and what is wrong with a file is found out before anything is written. None for a stream."""
    if _is_table(config.file):
        return sum(1 for _ in _asked(config, source, name))
    if not source.seekable():
        return None
    start = source.tell()
    total = sum(1 for _ in _lines(source, name))
    source.seek(start)
    return total
