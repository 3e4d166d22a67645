"""What a task says of itself. A task is a file with a `TASK` in it: one of this folder by its name, or a user's own by its path.

The training loop knows none of them. What the report needs (words, objective, guards, labels) is data alone and goes into
eval.json, so that a report is written without running anybody's code.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from softspoken.runtime.own_code import module_of_file
from softspoken.types import Example, InputError

Form = Literal["probability", "points", "share", "fraction", "number"]
"""How a figure is written: 0.034, 42.1, 3.4 %, 0.871, or as large as it is. All but `points` (0 to 100) and `number` are in [0, 1]."""
Toxicity = Callable[[list[str]], list[float]]
"""Texts → their toxicity by the first judge."""
TOXIC = 0.5
"""A text is toxic above this."""
MASK = "[…]"
"""Stands for a toxic word. Not ***, which classifiers that have seen curses disguised like that take for one: the words would be
judged as said."""


@dataclass(frozen=True)
class Words:
    """What the task calls things, in the report and in what is written."""

    text: str = "text"
    texts: str = "texts"
    response: str = "response"
    responses: str = "responses"


@dataclass(frozen=True)
class Measure:
    """What a metric is called. `{text}`, `{texts}`, `{response}` and `{responses}` stand for the task's words."""

    label: str
    explanation: str = ""
    form: Form = "number"
    better: Literal["lower", "higher", ""] = ""
    """Empty where neither way is better by itself."""
    group: str = "Other figures"
    """The heading it stands under in the tables."""


@dataclass(frozen=True)
class Objective:
    """The metric that training is to move."""

    metric: str
    better: Literal["lower", "higher"]
    gained: str = "better"
    """What responses are that have more of it, as in "tuned writes less toxic summaries than base"."""
    lost: str = "worse"


@dataclass(frozen=True)
class Guard:
    """A metric that must not be lost. The words go on after "The summaries …"."""

    metric: str
    margin: float
    """In the metric's own unit: a loss of so much must be ruled out."""
    better: Literal["lower", "higher", ""] = "higher"
    """Empty where it may move neither way by more than the margin."""
    kept: str = "stayed as good"
    gained: str = "came closer to the references"
    lost: str = "got worse"


def no_metrics(response: str, example: Example) -> dict[str, float]:
    return {}


def no_slices(examples: list[Example], toxicity: Toxicity | None) -> dict[str, Sequence[bool]]:
    return {}


@dataclass(frozen=True)
class Task:
    name: str
    objective: Objective
    reward: str
    """What training raises unless told otherwise; {NAME} stands for the term of that name."""
    template: str = "{text}"
    """The prompt, where neither the model nor the user has one."""
    words: Words = Words()
    text_column: str | None = None
    """Where the text is, a dotted name for a nested column; None finds the usual names."""
    reference_column: str | None = None
    pair_column: str | None = None
    """A column that may hold text and reference by their languages, as the hub's translation sets have."""
    clean: bool = False
    """Whether texts lose blank lines and the blanks at the ends of lines."""
    strip: bool = True
    """Whether responses lose the white space around them."""

    guards: tuple[Guard, ...] = ()
    guarded: str = "quality"
    """What the guards guard, in a word."""
    judge: str | None = None
    """The judge of toxicity, where the user names none; without one toxicity is not measured."""
    terms: dict[str, str] = field(default_factory=dict)
    """Metric → the reward it is measured by, which --measure NAME=REWARD replaces."""
    products: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Metric → the terms whose product it is, response by response."""
    metrics: Callable[[str, Example], dict[str, float]] = no_metrics
    """Further metrics of one response."""
    slices: Callable[[list[Example], Toxicity | None], dict[str, Sequence[bool]]] = no_slices
    """Parts of the examples: name → which are in it."""
    baselines: tuple[str, ...] = ()
    """Cheap alternatives that `train` has evaluated beside its own result."""

    measures: dict[str, Measure] = field(default_factory=dict)
    """The words of metrics that are its own, or that it calls otherwise than others do."""
    slice_labels: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Slice → its name in a table and a line about it."""
    overview: tuple[str, ...] = ()
    """Metrics in the table of systems, after the objective and the guards."""
    purpose: str = "answers better by a measure of its own"
    """What the adapter is to do, on its model card: "A LoRA adapter, trained to be one that …"."""
    tag: str = "text2text-generation"
    """The hub's name for the task."""
    sample: str = "This is a text."
    """A text for the card's examples of use."""
    limits: tuple[str, ...] = ()
    """What whoever uses the adapter must know, a sentence or two each."""
    telling_slice: str | None = None
    """The slice whose objective stands among the verdict's figures."""


FUNCTIONS = ("metrics", "slices")


def asked(task: Task | None, config: Any) -> dict[str, Any]:
    """How a text becomes a prompt, by the settings of a command and the task: fields of PromptFormat, None for what neither
    says and whatever is saved beside the model does."""
    return {
        "template": config.prompt_template,
        "max_prompt_tokens": config.max_prompt_tokens,
        "truncation_side": config.truncation_side,
        "source_language": config.source_language,
        "target_language": config.target_language,
        "clean": task.clean if task else None,
        "strip": task.strip if task else None,
    }


def terms_of(task: Task, replaced: Sequence[str] | None) -> dict[str, str]:
    """The task's terms, some of them measured otherwise: `replaced` as NAME=REWARD."""
    terms = dict(task.terms)
    for one in replaced or ():
        name, _, spec = one.partition("=")
        if name not in terms or not spec:
            has = f"it has {', '.join(terms)}" if terms else "it has none of the kind"
            raise InputError(
                f"measure {one!r} cannot be used: write NAME=REWARD with a measure of task {task.name}; {has}"
            )
        terms[name] = spec
    return terms


def reward_of(task: Task, replaced: Sequence[str] | None) -> str:
    """What training raises where it is not told otherwise."""
    return task.reward.format(**terms_of(task, replaced))


def load_task(name: str) -> Task:
    """The task of that name or, for the path of a Python file, that file's TASK. Raises InputError where there is none."""
    path = Path(name)
    if path.suffix == ".py":
        return _from_file(path)
    if name not in task_names():
        raise InputError(
            f"there is no task {name!r}; there is {', '.join(task_names())}, or give a Python file of your own"
        )
    found: Task = importlib.import_module(f"softspoken.tasks.{name}").TASK
    return found


def task_names() -> list[str]:
    return sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py") if path.stem != "task")


def _from_file(path: Path) -> Task:
    """The user's own code, named on their own command line; its functions can then be rewards too, as STEM:FUNCTION."""
    if not path.is_file():
        raise InputError(f"task: no file at {path}; give a Python file with a TASK in it")
    found = getattr(module_of_file(path, "task"), "TASK", None)
    if not isinstance(found, Task):
        raise InputError(
            f"task {path} has no TASK made by softspoken.tasks.task.Task; docs/howto/tasks.md shows a whole one"
        )
    return found


def told(task: Task) -> dict[str, Any]:
    """All but its functions, as JSON holds it."""
    data = {name: value for name, value in asdict(task).items() if name not in FUNCTIONS}
    found: dict[str, Any] = json.loads(json.dumps(data))
    return found


def retold(saved: dict[str, Any]) -> Task:
    """A task without its functions, from what `told` made of it; what a later version added is left out."""
    known = {one.name for one in fields(Task)} - {*FUNCTIONS}
    made: dict[str, Any] = {name: value for name, value in saved.items() if name in known}
    made["objective"] = Objective(**made["objective"])
    made["words"] = Words(**made.get("words", {}))
    made["guards"] = tuple(Guard(**one) for one in made.get("guards", ()))
    made["measures"] = {name: Measure(**one) for name, one in made.get("measures", {}).items()}
    made["slice_labels"] = {name: tuple(one) for name, one in made.get("slice_labels", {}).items()}
    for name in ("overview", "limits", "baselines"):
        made[name] = tuple(made.get(name, ()))
    return Task(**made)
