"""What evaluation compares: references, models with and without adapters, files of responses, and the cheap alternatives.

A system is named on the command line, and read or loaded when its turn comes; a window of examples in, their responses out.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from softspoken.config import EvaluateConfig
from softspoken.config.naming import BASE, HUMAN, named_adapters, named_sources
from softspoken.data.files import SUFFIXES, file_suffix
from softspoken.data.prompts import PromptFormat
from softspoken.data.words import any_of, words
from softspoken.evaluation.metrics import Judge
from softspoken.evaluation.responses import as_ours, read_responses
from softspoken.inference.choosing import use_engine
from softspoken.inference.generator import Generator
from softspoken.models.adapters import adapter_folder
from softspoken.models.pretrained import require_seq2seq
from softspoken.models.room import require_fit
from softspoken.tasks.task import MASK, TOXIC, Task, Words
from softspoken.types import Decoding, Example, InputError, Response

log = logging.getLogger(__name__)

BANNED, MASKED, COPY, DELETE = "banned_words", "masked_words", "copy", "delete"


@dataclass(frozen=True)
class Window:
    """Some of the dialogues, in a row, and what is wanted of each."""

    examples: list[Example]
    first: int
    """The number of the first one among all."""
    decoding: Decoding | None
    samples: int
    """Summaries of each dialogue; 1 but for `sampled`."""
    seed: int
    """Of the draws, this window's own."""


Generate = Callable[[Window], list[list[Response]]]
"""Each dialogue's summaries. It may have `truncated`: how many dialogues it had to cut so far."""
Load = Callable[[], Generate]
Rework = Callable[[Window, list[list[str]]], list[list[str]]]
"""The window and the base's own summaries of it, decoded the same way → others, made of them."""
Score = Callable[[list[str], list[Example]], list[float]]


@dataclass(frozen=True)
class System:
    name: str
    ways: dict[Decoding | None, int]
    """How it decodes → summaries of each dialogue."""
    loads: list[Load] = field(default_factory=list)
    """One for each training seed; called when its turn comes, and what it returns is let go of after it."""
    rework: Rework | None = None
    """Instead of `loads`: what is done to the base's summaries."""

    @property
    def trainings(self) -> range:
        """Their numbers; what reworks the base's summaries counts as one."""
        return range(max(1, len(self.loads)))


def human(examples: list[Example]) -> System:
    """Every reference of an example is a response to it."""

    def references(window: Window) -> list[list[Response]]:
        return [[Response(text) for text in example.references] for example in window.examples]

    return System(HUMAN, {None: max(len(example.references) for example in examples)}, [lambda: references])


def without(example: Example, number: int) -> Example:
    """With its other references: what its own `number` is measured against, for a reference proves nothing about itself."""
    others = [text for place, text in enumerate(example.references) if place != number]
    return replace(example, reference=next(iter(others), None), further_references=tuple(others[1:]))


def both_ways(samples: int) -> dict[Decoding | None, int]:
    return {"greedy": 1, "sampled": samples} if samples else {"greedy": 1}


def named_systems(
    config: EvaluateConfig,
    task: Task,
    prompt_format: PromptFormat | None,
    examples: list[Example],
    judge: Judge | None,
    score: Score | None,
) -> list[System]:
    """The base, the adapters, the files and other models, the baselines, as `config` names them. Raises InputError for what is
    not there, before anything is loaded. All are asked by `prompt_format` or, without one, each as it was saved; `score` is what
    best-of-N picks by, higher is better."""
    ways = both_ways(config.samples)
    systems = [System(BASE, ways, [_Model(config, prompt_format)])]
    for name, adapters in named_adapters(config.adapter or []).items():
        systems.append(System(name, ways, [_Model(config, prompt_format, adapter=adapter) for adapter in adapters]))
    for name, sources in named_sources(config.system or []).items():
        files = [source for source in sources if not is_model(source)]
        if files and len(sources) > 1:
            raise InputError(
                f"system {name!r} is given {len(sources)} times, which only models can be; give each file a name of its own"
            )
        if files:
            systems.append(
                of_file(
                    name,
                    Path(files[0]),
                    examples,
                    task.words,
                    some=bool(config.limit or config.held_out),
                    strip=task.strip,
                )
            )
        else:
            systems.append(System(name, ways, [_Model(config, prompt_format, model=source) for source in sources]))
    toxic = _toxic_words(config, task, examples, judge)
    for baseline in dict.fromkeys(config.baseline or []):
        if baseline == BANNED:
            systems.append(System(BANNED, ways, [_Model(config, prompt_format, banned=toxic)]))
        elif baseline == MASKED:
            systems.append(System(MASKED, ways, rework=masking(toxic)))
        elif baseline == COPY:
            systems.append(rewriting(COPY, lambda text: text))
        elif baseline == DELETE:
            systems.append(rewriting(DELETE, deleting(toxic)))
        else:
            assert score
            n = int(baseline.removeprefix("best_of_"))
            systems.append(System(baseline, {"sampled": config.samples // n}, rework=best_of(n, score)))
    twice = [name for name, count in Counter([HUMAN, *(system.name for system in systems)]).items() if count > 1]
    if twice:
        raise InputError(f"{twice[0]!r} is the name of two systems; give one of them another, as NAME=FOLDER")
    return systems


def is_model(source: str) -> bool:
    """Of what --system names; anything else is a file of responses."""
    return file_suffix(Path(source)) not in SUFFIXES


# ------------------------------------------------------------------------------------------------------- models


@dataclass(frozen=True)
class _Model:
    """Loads a generator when called; that it is there is checked when this is made."""

    config: EvaluateConfig
    prompt_format: PromptFormat | None
    """How every system is asked; None for each as it was saved."""
    model: str = ""
    """The base model, unless it is another."""
    adapter: str | None = None
    banned: list[str] | None = None

    def __post_init__(self) -> None:
        if self.adapter:
            adapter_folder(self.adapter)
        elif self.model:
            require_seq2seq(self.model)
            require_fit(self.model, max_new_tokens=self.config.max_new_tokens)

    def __call__(self) -> Generate:
        config = self.config
        generator = Generator.from_pretrained(
            self.model or config.model,
            adapter=self.adapter,
            device=config.device,
            max_new_tokens=config.max_new_tokens,
            task=config.task,
            prompt_format=self.prompt_format,
            plain=not config.own_settings,
            quantization=None if self.model else config.quantization,
        )
        if not self.banned:
            use_engine(generator, config.engine)
        generator.ban(self.banned or [])
        return _Responses(generator, config.batch_size)


@dataclass(frozen=True)
class _Responses:
    generator: Generator
    batch_size: int

    @property
    def truncated(self) -> int:
        return self.generator.truncated

    def __call__(self, window: Window) -> list[list[Response]]:
        samples = window.samples if window.decoding == "sampled" else 0
        return self.generator.generate(window.examples, self.batch_size, samples=samples, seed=window.seed)


# -------------------------------------------------------------------------------------------------------- files


def of_file(
    name: str, path: Path, examples: list[Example], words: Words, *, some: bool = False, strip: bool = True
) -> System:
    """Somebody else's responses, as a system; `some`: see `read_responses`; `strip`: see `as_ours`."""
    found = read_responses(name, path, examples, words, some=some)
    samples = len(next(iter(found.values())))

    def generate(window: Window) -> list[list[Response]]:
        return [[Response(as_ours(text, strip=strip)) for text in found[example.id]] for example in window.examples]

    return System(name, {"sampled" if samples > 1 else "greedy": samples}, [lambda: generate])


# ---------------------------------------------------------------------------------------------------- baselines


def best_of(n: int, score: Score) -> Rework:
    """Of each `n` samples of the base the one with the highest score."""

    def rework(window: Window, summaries: list[list[str]]) -> list[list[str]]:
        texts = [texts[: len(texts) // n * n] for texts in summaries]
        owners = [example for example, own in zip(window.examples, texts, strict=True) for _ in own]
        scores = iter(score([text for own in texts for text in own], owners))
        scored = [[(next(scores), text) for text in own] for own in texts]
        return [
            [max(own[first : first + n], key=lambda pair: pair[0])[1] for first in range(0, len(own), n)]
            for own in scored
        ]

    return rework


def masking(toxic: Iterable[str]) -> Rework:
    """The base's summaries with these words masked, whatever their case."""
    pattern = any_of(toxic)

    def rework(window: Window, summaries: list[list[str]]) -> list[list[str]]:
        return [[pattern.sub(MASK, text) for text in texts] for texts in summaries]

    return rework


def rewriting(name: str, rewrite: Callable[[str], str]) -> System:
    """Each text itself, rewritten by rule, as its one response."""

    def generate(window: Window) -> list[list[Response]]:
        return [[Response(rewrite(example.text))] for example in window.examples]

    return System(name, {"greedy": 1}, [lambda: generate])


def deleting(toxic: Iterable[str]) -> Callable[[str], str]:
    """A text without these words, whatever their case, and without the gaps that they leave."""
    pattern = any_of(toxic)
    return lambda text: re.sub(r"[^\S\n]{2,}", " ", pattern.sub("", text)).strip() if pattern.search(text) else text


def _toxic_words(config: EvaluateConfig, task: Task, examples: list[Example], judge: Judge | None) -> list[str]:
    """Only where a baseline wants them."""
    wanted = [baseline for baseline in config.baseline or [] if baseline in (BANNED, MASKED, DELETE)]
    if not wanted:
        return []
    if not judge:
        raise InputError(
            f"baseline {wanted[0]!r} needs a judge of toxicity, and task {task.name} has none; pass --judge"
        )
    return toxic_words(examples, judge)


def toxic_words(examples: list[Example], judge: Judge) -> list[str]:
    """Those words of the dialogues that the judge finds toxic standing alone: a list made for these very dialogues, so better
    than one a user would have; and no list of slurs need be shipped."""
    vocabulary = sorted({word for example in examples for word in words(example.text)})
    scores: Any = judge(vocabulary)[judge.labels[0]]
    return [word for word, score in zip(vocabulary, scores, strict=True) if score > TOXIC]
