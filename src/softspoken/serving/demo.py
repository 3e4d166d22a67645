"""`softspoken demo`: a page for people who look rather than read. Runs as a Space too: `blocks = page(DemoConfig(adapter=[…]));
blocks.launch(**blocks.look)`."""

from __future__ import annotations

import logging
import os
import threading
from typing import Any

from softspoken.config import DemoConfig, ServeConfig
from softspoken.data.reading import load_examples
from softspoken.data.words import words
from softspoken.inference.engines import Search
from softspoken.models.cpu import tune_cpu
from softspoken.models.pretrained import resolve_device
from softspoken.rewards.terms import load_judge
from softspoken.runtime.addresses import require_free
from softspoken.serving.guard import Guard
from softspoken.serving.models import BASE, Models, Served
from softspoken.serving.shown import CSS, Side, example_html, problem_html, result_html
from softspoken.tasks.summarization import speakers
from softspoken.tasks.task import Task, load_task
from softspoken.types import Example, InputError, Response

log = logging.getLogger(__name__)

EXAMPLES = 4
"""Of each kind, heated and everyday."""
MOST_CHARS = 20_000
WAITING = 16
"""Visitors that may wait for an answer."""


def demo(config: DemoConfig) -> None:
    """Until it is stopped. Raises InputError before it listens for what cannot be had."""
    require_free(config.host, config.port)
    blocks = page(config)
    blocks.queue(max_size=WAITING, default_concurrency_limit=1)
    launch = {
        "server_name": config.host,
        "server_port": config.port,
        "show_error": False,
        "share": False,
        "quiet": True,
    }
    _, address, _ = blocks.launch(prevent_thread_lock=True, **launch, **blocks.look)
    log.info("the page is at %s", address)
    blocks.block_thread()


def page(config: DemoConfig) -> Any:
    """The page, all loaded, before it listens. Its `look` goes into `launch`."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before it is imported: nobody is told
    try:
        import gradio
    except ImportError as error:
        raise InputError(f"demo needs the package {error.name}; pip install 'softspoken[demo]'") from error
    demonstration = Demonstration(config)
    task, choices = demonstration.task, demonstration.choices
    first = next(iter(choices))
    adapters = [name for name in demonstration.models.sources if name != BASE]
    with gradio.Blocks(title="softspoken", analytics_enabled=False) as blocks:
        gradio.HTML(
            f'<div class="ss-head"><h1>softspoken</h1><p>Take an example or paste a {task.words.text}: the base model and the tuned one '
            f"each write a {task.words.response}, and a judge scores both.</p></div>"
        )
        chosen = gradio.Dropdown(list(choices), value=first, label="Example", elem_id="example")
        shown = gradio.HTML(demonstration.example(first), elem_id="shown")
        own = gradio.Textbox(
            label=f"Or your own {task.words.text}, in place of the example",
            lines=4,
            max_length=MOST_CHARS,
            elem_id="own",
            placeholder=task.sample,
        )
        adapter = gradio.Dropdown(
            adapters,
            value=adapters[0] if adapters else None,
            label="Adapter",
            visible=len(adapters) > 1,
            elem_id="adapter",
        )
        ask = gradio.Button("Compare", variant="primary", elem_id="ask")
        result = gradio.HTML(elem_id="result")
        chosen.change(demonstration.example, chosen, shown, api_visibility="private", show_progress="hidden")
        ask.click(demonstration.compare, [chosen, own, adapter], result, api_visibility="private")
    plain = ["system-ui", "sans-serif"]  # no fonts from elsewhere
    blocks.look = {
        "footer_links": ["gradio"],
        "css": CSS,
        "theme": gradio.themes.Base(font=plain, font_mono=["monospace"]),
    }
    return blocks


class Demonstration:
    """What the page's parts call."""

    def __init__(self, config: DemoConfig) -> None:
        tune_cpu()
        self.config, self.task = config, load_task(config.task)
        judge = load_judge(
            config.judge, device=str(resolve_device(config.device)), detoxify_sha256=config.detoxify_sha256
        )
        self.guard = Guard(judge, config.guard_threshold, config.guard_samples, config.guard_refusal)
        self.models = _models(config, self.task)
        self.choices = _choices(self.task)
        self._one_at_a_time = threading.Lock()

    def example(self, choice: str) -> str:
        text = self.choices[choice]
        return example_html(text, self.guard.toxic_words([text]))

    def compare(self, choice: str, own: str, adapter: str | None) -> str:
        text = own if own and own.strip() else self.choices.get(choice, "")
        if not text.strip() or len(text) > MOST_CHARS:
            return problem_html(f"Give a {self.task.words.text} of up to {MOST_CHARS:,} characters.")
        try:
            with self._one_at_a_time:
                sides = [self._side(self.models[name], text) for name in (BASE, adapter) if name]
        except InputError as error:
            return problem_html(str(error))
        said = [*(side.first for side in sides), *(sample for side in sides for sample, _ in side.samples)]
        label = self.guard.judge.labels[0]
        return result_html(sides, self.guard.toxic_words(said), label, self.task.words)

    def _side(self, served: Served, text: str) -> Side:
        prompts = [prompt.ids for prompt in served.prompts([text])]
        [[first]] = served.respond(prompts, Search())
        samples = served.respond(prompts, Search(self.config.samples))[0] if self.config.samples else []

        def again(rows: list[int]) -> list[list[Response]]:
            return served.respond(prompts, Search(self.guard.samples))

        guarded = self.guard([first], again)[0]
        scores = self.guard.score([sample.text for sample in samples])
        pairs = [(sample.text, own) for sample, own in zip(samples, scores, strict=True)]
        return Side(served.name, first.text, guarded.first_scores, guarded, pairs)


def _models(config: DemoConfig, task: Task) -> Models:
    settings = ServeConfig(
        model=config.model,
        adapter=config.adapter,
        task=config.task,
        engine=config.engine,
        device=config.device,
    )
    models = Models(settings, task)
    models.sources = {BASE: None, **models.sources}
    models.load()
    return models


def _choices(task: Task) -> dict[str, str]:
    """Label → text: of the embedded test split heated and everyday dialogues, each of another scenario."""
    if task.name != "summarization":
        return {"A sample": task.sample}
    found: dict[str, str] = {}
    for kind, is_kind in (("Heated", _is_heated), ("Everyday", lambda example: not _is_heated(example))):
        groups: dict[str | None, Example] = {}
        for example in filter(is_kind, load_examples("mini", "test")):
            groups.setdefault(example.group, example)
        for number, example in enumerate(list(groups.values())[:EXAMPLES], start=1):
            found[f"{kind} {number}: {' and '.join(speakers(example.text))}, {len(words(example.text))} words"] = (
                example.text
            )
    return found


def _is_heated(example: Example) -> bool:
    return example.literal_reference is not None
