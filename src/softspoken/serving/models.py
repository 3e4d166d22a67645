"""What is served: a base with each of its adapters by name, each loaded, merged and checked; and read again while others are asked."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from softspoken.config import ServeConfig
from softspoken.config.naming import served_adapters
from softspoken.data.prompts import PromptFormat, prompt_ids
from softspoken.inference.choosing import Choice, choose_engine, cores
from softspoken.inference.engines import CTranslate2, Search, content_digest
from softspoken.inference.generator import Generator
from softspoken.models.adapters import adapter_folder
from softspoken.models.pretrained import prompt_format_for, resolve_device
from softspoken.serving.batching import give_way
from softspoken.tasks.task import Task
from softspoken.types import Example, InputError, Response

log = logging.getLogger(__name__)

BASE = "base"
"""What the model without an adapter is called."""


@dataclass(frozen=True)
class Prompt:
    ids: list[int]
    cut: bool
    """Whether the text was longer than the model reads."""


@dataclass(frozen=True, eq=False)
class Served:
    """One model, of which answers say name and weights. Requests that came before it was read again keep the old one."""

    name: str
    generator: Generator
    choice: Choice
    weights: str
    """The first digits of what its content hashes to."""

    def prompts(self, texts: list[str]) -> list[Prompt]:
        found = []
        for text in texts:
            ids, cut = prompt_ids([Example("", text)], self.generator.tokenizer, self.generator.prompt_format)
            found.append(Prompt(ids[0], bool(cut)))
        return found

    def respond(self, prompts: list[list[int]], search: Search) -> list[list[Response]]:
        return self.generator.respond(prompts, search)


class Models:
    """By name; the first is what those get who name none."""

    def __init__(self, config: ServeConfig, task: Task) -> None:
        self.config, self.task = config, task
        self.sources = served_adapters(config.adapter or [])
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="reading", initializer=give_way)
        """One thread, whose engines' threads give way as it does."""
        self._served: dict[str, Served] = {}

    def load(self) -> None:
        """Raises InputError for the first that cannot be had."""
        for name, served in zip(self.sources, self._reading.map(self._read, self.sources), strict=True):
            self._served[name] = served
            log.info("%s is decoded by %s: %s", name, served.choice.engine, served.choice.why)

    @property
    def workers(self) -> int:
        """Batches at once: torch takes all cores for one."""
        by_torch = any(one.choice.engine == "torch" for one in self)
        return self.config.workers or (1 if by_torch else self._threads())

    def _threads(self) -> int:
        return cores() if resolve_device(self.config.device).type == "cpu" else 1

    def __getitem__(self, name: str | None) -> Served:
        """Raises InputError, which names what there is, for a name that is none."""
        if name is None:
            return next(iter(self._served.values()))
        if name not in self._served:
            raise InputError(f"there is no adapter {name!r}; there is {', '.join(self._served)}")
        return self._served[name]

    def __iter__(self) -> Iterator[Served]:
        return iter(self._served.values())

    def reload(self, name: str | None) -> dict[str, Served]:
        """Read one, or all, again from where they lie; all are in order before the first takes its place."""
        return self._reading.submit(self._reload, name).result()

    def _reload(self, name: str | None) -> dict[str, Served]:
        names = list(self.sources) if name is None else [self[name].name]
        fresh = {one: self._read(one) for one in names}
        self._served = {**self._served, **fresh}
        return fresh

    def _read(self, name: str) -> Served:
        config, adapter = self.config, self.sources[name]
        generator = Generator.from_pretrained(
            config.model,
            adapter=adapter,
            device=config.device,
            prompt_format=self._prompt_format(adapter),
        )
        digest = content_digest(generator.model, generator.tokenizer)
        workers = config.workers or self._threads()
        choice = choose_engine(
            generator, config.engine, compute_type=config.compute_type, workers=workers, digest=digest
        )
        if isinstance(generator.engine, CTranslate2):
            generator.engine = replace(generator.engine, pieces=1)  # each worker has batches of its own
            generator.model = None  # its weights are in the engine
        return Served(name, generator, choice, digest[:12])

    def _prompt_format(self, adapter: str | None) -> PromptFormat:
        task, config = self.task, self.config
        folder = adapter_folder(adapter) if adapter else None
        default = PromptFormat(task.template, clean=task.clean, strip=task.strip)
        return prompt_format_for(
            config.model,
            folder,
            default=default,
            template=config.prompt_template,
            max_prompt_tokens=config.max_prompt_tokens,
        )
