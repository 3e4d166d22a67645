"""Systems × examples → eval.json: every system's responses scored the same way, with intervals, and compared with the base.

The flow: load each system in turn and let it go after → `measure` its greedy and its sampled responses, a window at a time (rows
go to the disk as they come, so that a run that was stopped goes on there) → `analyse` the rows, slice by slice → eval.json,
report.html.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import itertools
import json
import logging
import math
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from typing import Any

from softspoken.config import EvaluateConfig
from softspoken.config.naming import BASE, named_adapters, named_sources
from softspoken.config.rewards import Reward, reward_weights
from softspoken.data.columns import columns_of
from softspoken.data.holding_out import group_names, hold_out
from softspoken.data.prompts import PromptFormat
from softspoken.data.reading import (
    is_one_set,
    iterate_examples,
    name_of,
    only_split,
    read_examples,
    record_of,
    require_references,
)
from softspoken.evaluation import resampling
from softspoken.evaluation.analysis import analyse, collect
from softspoken.evaluation.earlier import recorded, require_free, require_same
from softspoken.evaluation.measure import Job, Term, forget, measure
from softspoken.evaluation.metrics import Judge, Similarity, slice_examples
from softspoken.evaluation.notes import notes_on, on_several_references, on_what_was_trained_on, settings_of
from softspoken.evaluation.rows import (
    PARTIAL_FILE,
    ROWS_FILE,
    STATE_FILE,
    RowsFile,
    discard,
    is_started,
    rows_bytes,
)
from softspoken.evaluation.systems import (
    Score,
    System,
    human,
    is_model,
    named_systems,
)
from softspoken.inference.decoding import length_limit
from softspoken.models.adapters import adapter_folder, require_fitting
from softspoken.models.cpu import tune_cpu
from softspoken.models.pretrained import prompt_format_for, read_seq2seq, require_seq2seq, resolve_device
from softspoken.models.room import fitting_of, require_fit
from softspoken.report.measures import REWARD
from softspoken.report.report import EVAL_FILE, REPORT_FILE, report_page
from softspoken.report.report import read_report as read_report
from softspoken.rewards.terms import JudgeReward, WeightedReward, load_judge, load_reward, load_similarity
from softspoken.runtime import processes
from softspoken.runtime.interrupt import Interrupted
from softspoken.runtime.progress import Speed, progress_bar
from softspoken.storage.run_folder import RunFolder, passing_folder, require_place, require_room, stamps
from softspoken.tasks.summarization import TASK as SUMMARIZATION
from softspoken.tasks.task import Task, asked, load_task, reward_of, terms_of, told
from softspoken.types import EvalReport, Example, InputError, counted, one_line

log = logging.getLogger(__name__)

FEW_EXAMPLES = 100
PACKAGES = (
    *("softspoken", "torch", "transformers", "peft", "detoxify", "rouge-score", "sacrebleu", "alt-profanity-check"),
)
WRITTEN = (EVAL_FILE, ROWS_FILE, PARTIAL_FILE, STATE_FILE, REPORT_FILE)


@dataclass(frozen=True)
class Prepared:
    """All that an evaluation needs, opened and checked."""

    config: EvaluateConfig
    task: Task
    examples: list[Example]
    judges: Sequence[Judge]
    terms: dict[str, Term]
    similarity: Similarity | None
    systems: list[System]
    files: dict[str, Any]
    notes: list[str]
    asks_models: bool = True
    """Whether any of what is compared is a model of `config`."""


def evaluate(config: EvaluateConfig) -> EvalReport:
    """The command: human, base and other systems on one dataset; writes eval.json, eval_rows.jsonl and report.html."""
    rewards = reward_weights(config.reward) if config.reward else {}
    given = [*(config.adapter or []), *(config.system or []), *(config.judge or []), config.similarity, *rewards]
    require_place(config.output, [config.model, name_of(config.dataset), *given], WRITTEN)
    output = RunFolder(config.output, add=True) if processes.first() else passing_folder()
    with processes.joined(config.device), output as folder:
        if processes.first():
            require_free(config, folder.path)
        try:
            prepared = prepare(config)
            whole = config.resume and (folder.path / EVAL_FILE).exists() and not is_started(folder.path)
            before = require_same(prepared.config, folder.path) if whole else None
            if before is None and processes.first():
                each = sum(len(system.trainings) * sum(system.ways.values()) for system in prepared.systems)
                require_room(folder.path, rows_bytes(prepared.examples, each), "its rows")
            folder.begin()
            if processes.from_first(before is None):
                return measure_prepared(prepared, folder, resume=config.resume)
            text = processes.from_first((folder.path / EVAL_FILE).read_text(encoding="utf-8") if before else "")
            if before is None:  # in another process than the first, which alone has it
                folder.write(EVAL_FILE, text)
                return read_report(folder.path)
            log.info("resume: the evaluation in %s had come to its end", folder.path)
            folder.write(REPORT_FILE, report_page(folder.path))  # before which it may have been stopped
            return before
        except Interrupted as stopped:
            if config.resume or folder.has(STATE_FILE):
                stopped.go_on = "softspoken evaluate … --resume true"
            raise


def prepare(config: EvaluateConfig, *, say: bool = True) -> Prepared:
    """Open and check everything, before anything is written. Raises InputError for what cannot be had.

    `say` what was taken from the dataset, and what is odd in it, unless that was done when it was read for the training.
    """
    tune_cpu()
    task = load_task(config.task)
    adapters = [folder for folders in named_adapters(config.adapter or []).values() for folder in folders]
    for adapter in adapters:
        adapter_folder(adapter)  # one that is not there is better said before the base has run
    require_seq2seq(config.model)  # and a base before anything is written
    prompt_format = _prompt_format(config, task, next(iter(adapters), None))
    notes = notes_on(config, prompt_format)
    if not config.own_settings:  # each system's own may be others, and differences would come from them
        length = config.max_new_tokens or length_limit(config.model, next(iter(adapters), None))
        config = replace(config, max_new_tokens=length, **settings_of(prompt_format))
    folders = list(map(adapter_folder, adapters))
    for folder in (None, *folders):
        require_fit(config.model, folder, config.max_new_tokens)
    # The last of them has its turn hours after the first.
    require_fitting(config.model, folders)
    others = [
        source for sources in named_sources(config.system or []).values() for source in sources if is_model(source)
    ]
    for model in dict.fromkeys([*([] if config.quantization else [config.model]), *others]):
        read_seq2seq(model, dtype="auto")
    config = replace(config, split=_split_held_out_of(config))
    examples = _examples(config, task, say)
    notes += on_several_references(examples, task)
    device = str(resolve_device(config.device))
    judges, terms, similarity = judging(config, task, examples, notes, device)
    judge = next(iter(judges), None)
    systems = named_systems(
        config,
        task,
        None if config.own_settings else prompt_format,
        examples,
        judge,
        _score(config, task, judge, device, examples),
    )
    measured_by = [*judge_names(config, task), *terms_of(task, config.measure).values()]
    rewards = reward_weights(config.reward) if config.reward else {}
    sources = [*adapters, *(config.system or []), *measured_by, config.similarity or "", *rewards]
    return Prepared(config, task, examples, judges, terms, similarity, systems, stamps([config.model, *sources]), notes)


def judge_names(config: EvaluateConfig, task: Task) -> list[str]:
    return list(dict.fromkeys(config.judge or filter(None, [task.judge])))


def judging(
    config: EvaluateConfig, task: Task, examples: list[Example], notes: list[str], device: str
) -> tuple[Sequence[Judge], dict[str, Term], Similarity | None]:
    """What responses are measured by, loaded; what cannot be measured is noted."""
    sha256 = config.detoxify_sha256
    judges = [load_judge(spec, device=device, detoxify_sha256=sha256) for spec in judge_names(config, task)]
    named = terms_of(task, config.measure)
    terms = {name: _term(name, spec, config, device, examples) for name, spec in named.items()}
    terms |= _reward_term(config, device, examples, {judge.name: judge for judge in judges}, notes, task)
    similarity = load_similarity(config.similarity, device=device, batch_size=64) if config.similarity else None
    return judges, terms, similarity.cosine if similarity else None


def _examples(config: EvaluateConfig, task: Task, say: bool) -> list[Example]:
    if not config.held_out:
        return read_examples(config, task, config.limit, say=say)
    every = read_examples(config, task, None, say=say)
    _, held = hold_out(every, config.held_out, config.seed, name_of(config.dataset))
    return held[: config.limit]


def _split_held_out_of(config: EvaluateConfig) -> str:
    """The one that there is. Raises InputError where there are several: each of them is what it is."""
    if not config.held_out or is_one_set(config.dataset):
        return config.split
    only = only_split(config.dataset, config.dataset_config)
    if only is None:
        raise InputError(
            f"held_out is for a dataset that is one set or one split, and {name_of(config.dataset)} has several; leave it out"
        )
    return config.split if config.split.startswith(only) else only  # or a part of it


def measure_prepared(prepared: Prepared, folder: RunFolder, *, resume: bool) -> EvalReport:
    config = prepared.config
    report = evaluate_systems(
        prepared.systems,
        prepared.examples,
        prepared.judges,
        folder=folder,
        task=prepared.task,
        terms=prepared.terms,
        seed=config.seed,
        similarity=prepared.similarity,
        dataset={"id": record_of(config.dataset), "split": None if is_one_set(config.dataset) else config.split},
        config={name: value for name, value in recorded(config).items() if prepared.asks_models or name != "model"},
        files=prepared.files,
        notes=prepared.notes,
        alarms=on_what_was_trained_on(config, prepared.examples, prepared.task),
        resume=resume,
    )
    folder.write(REPORT_FILE, report_page(folder.path))
    return report


def require_examples(config: EvaluateConfig) -> list[Example]:
    """Raises InputError for a dataset, split, column or row that cannot be had: better before a training than after it."""
    reading = iterate_examples(
        config.dataset,
        config.split,
        dataset_config=config.dataset_config,
        columns=columns_of(config, load_task(config.task)),
        on_bad_row=config.on_bad_row,
        say=False,
    )
    with contextlib.closing(reading):
        if not (examples := list(itertools.islice(reading, config.limit))):
            raise InputError(
                f"eval_dataset {name_of(config.dataset)!r} has no usable rows; give one with at least one row"
            )
    return examples


def evaluate_systems(
    systems: Sequence[System],
    examples: list[Example],
    judges: Sequence[Judge],
    *,
    folder: RunFolder,
    task: Task = SUMMARIZATION,
    terms: dict[str, Term] | None = None,
    seed: int = 0,
    similarity: Similarity | None = None,
    dataset: dict[str, Any] | None = None,
    config: dict[str, Any] | None = None,
    files: dict[str, Any] | None = None,
    notes: list[str] | None = None,
    alarms: list[str] | None = None,
    resume: bool = False,
) -> EvalReport:
    """Measure each system in turn, compare all with `base`; writes eval.json and eval_rows.jsonl.

    The first judge's main label is the toxicity; without a judge there is none. References, where there are any, are the system
    `human`. With `resume`, what an evaluation of the same things (`files` say which weights) that was stopped has left in `folder`
    is gone on with.
    """
    if len(examples) < FEW_EXAMPLES:
        only = counted(len(examples), task.words.text, task.words.texts)
        log.warning("only %s: differences between systems may well be chance", only)
    if any(example.reference for example in examples):
        systems = [human(examples), *systems]
    made_of = {
        **(config or {}),
        "systems": [(system.name, list(system.ways.items()), len(system.loads)) for system in systems],
        "examples": _digest(examples),
        "files": files or {},
        "versions": _versions(),
    }
    total = len(examples) * sum(len(system.trainings) * sum(system.ways.values()) for system in systems)
    with RowsFile(folder, made_of, resume=resume) as rows:
        with _progress(None, "texts") as advance:
            slices = slice_examples(task, examples, next(iter(judges), None), lambda done: advance("slices", done))
        with _progress(total, task.words.responses) as advance:
            job = Job(task, examples, slices, list(judges), terms or {}, similarity, seed, rows, advance)
            forget(job)
            rows.as_in_the_first()
            for system in systems:
                measure(system, job)
        trainings = [(system.name, training) for system in systems for training in system.trainings]
        truncated = max((sum(rows.cut(name, "greedy", str(training))) for name, training in trainings), default=0)
        groups = resampling.group_numbers(group_names(examples))
        samples = {(system.name, way): number for system in systems for way, number in system.ways.items()}
        results, comparisons = analyse(collect(rows, groups, samples, task.words.response), groups, slices, seed)
        sizes = {"n": len(examples), "groups": int(groups.max()) + 1, "truncated": truncated}
        dataset = {"id": None, "split": None, **(dataset or {}), **sizes}
        names = [judge.name for judge in judges]
        report = EvalReport(
            dataset,
            names,
            results,
            comparisons,
            ROWS_FILE,
            told(task),
            notes or [],
            config or {},
            _versions(),
            alarms or [],
        )
        text = json.dumps(asdict(report), indent=1, allow_nan=False, ensure_ascii=False)
        rows.finish()
        folder.write(EVAL_FILE, text + "\n")
        discard(folder)
    _warn(report, systems, task)
    return report


def _prompt_format(config: EvaluateConfig, task: Task, adapter: str | None) -> PromptFormat:
    """How every system is asked: as the user says, else as the first adapter was or, without one, the base."""
    folder = adapter_folder(adapter) if adapter else None
    wanted = prompt_format_for(config.model, folder, default=PromptFormat(task.template), **asked(task, config))
    return wanted if config.own_settings else fitting_of(wanted, config.model)


def _score(
    config: EvaluateConfig, task: Task, judge: Judge | None, device: str, examples: list[Example]
) -> Score | None:
    """What best-of-N picks by: the reward or, without one, the least toxicity or the task's own; None where it is not asked for."""
    if not any(baseline.startswith("best_of_") for baseline in config.baseline or []):
        return None
    if not config.reward and judge and task.objective.metric == "toxicity":
        return lambda texts, _: [1.0 - toxicity for toxicity in judge(texts)[judge.labels[0]]]
    spec = config.reward or reward_of(task, config.measure)
    score = _term("reward", spec, config, device, examples).score
    # A response that it has no opinion on is not the best.
    return lambda texts, owners: [-math.inf if value != value else value for value in score(texts, owners)]


def _reward_term(
    config: EvaluateConfig, device: str, examples: list[Example], judges: dict[str, Any], notes: list[str], task: Task
) -> dict[str, Term]:
    """The reward itself, which the report speaks of; what is a judge as well answers once for both."""
    if not config.reward:
        return {}
    reward = load_reward(config.reward, device=device, detoxify_sha256=config.detoxify_sha256)
    if reward.needs_references and (without := sum(not example.reference for example in examples)):
        notes.append(
            f"The reward was not measured: {reward.needs_references[0]} compares with references, and {without} of "
            f"{len(examples)} {task.words.texts} have none."
        )
        return {}
    try:
        reward.require_columns(examples)
    except InputError as error:
        notes.append(f"The reward was not measured: {error}.")
        return {}
    shared = {
        name: replace(term, judge=judges[name]) if isinstance(term, JudgeReward) and name in judges else term
        for name, term in reward.terms.items()
    }
    return {REWARD: _as_term(replace(reward, terms=shared))}


def _as_term(reward: WeightedReward) -> Term:
    return Term(lambda texts, owners: reward(texts, owners).total.tolist(), bool(reward.needs_references))


def _term(name: str, spec: Reward, config: EvaluateConfig, device: str, examples: list[Example]) -> Term:
    reward = load_reward(spec, device=device, detoxify_sha256=config.detoxify_sha256)
    if reward.needs_references:
        require_references(examples, config.dataset, f"{name} ({reward.needs_references[0]})")
    reward.require_columns(examples)
    return _as_term(reward)


# ------------------------------------------------------------------------------------------------ files, terminal


def _warn(report: EvalReport, systems: Sequence[System], task: Task) -> None:
    if report.dataset["truncated"]:
        log.warning(
            "%d of %d %s were longer than the model reads and were cut",
            report.dataset["truncated"],
            report.dataset["n"],
            task.words.texts,
        )
    sampled = {system.name: system.ways["sampled"] for system in systems if system.ways.get("sampled", 1) > 1}
    for name, samples in sampled.items():
        if samples != sampled.get(BASE, samples) and "best_of_" not in name:
            log.warning(
                "%s has %d %s of a %s and base %d, so their expected maximum toxicity is not compared; --samples %d",
                name,
                samples,
                task.words.responses,
                task.words.text,
                sampled[BASE],
                samples,
            )


def _digest(examples: list[Example]) -> str:
    text = json.dumps([astuple(example) for example in examples], default=str)
    return hashlib.sha256(text.encode()).hexdigest()


@contextlib.contextmanager
def _progress(total: int | None, unit: str) -> Iterator[Callable[[str, int], None]]:
    with progress_bar("evaluate", "{task.fields[what]}", Speed(unit)) as bar:
        task = bar.add_task("evaluate", total=total, what="")
        yield lambda what, done: bar.update(task, advance=done, what=one_line(what))


def _versions() -> dict[str, str]:
    installed = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[package] = importlib.metadata.version(package)
    return {"python": platform.python_version(), **installed}
