"""Systems × dialogues → eval.json: every system's summaries scored the same way, with intervals, and compared with the base.

The flow: load each system in turn and let it go after → `measure` its greedy and its sampled summaries (rows go to
eval_rows.jsonl as they come, only numbers stay) → `analyse` the numbers, slice by slice → eval.json, report.html.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib.metadata
import json
import logging
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from softspoken import resampling
from softspoken.config import EvaluateConfig
from softspoken.data import load_dialogues
from softspoken.pretrained import require_seq2seq, resolve_device
from softspoken.report import EVAL_FILE, write_report
from softspoken.report import read_report as read_report
from softspoken.resampling import Array, Groups
from softspoken.rewards import load_judge
from softspoken.summarizer import Summarizer, adapter_folder
from softspoken.summary_metrics import (
    WINDOW,
    Judge,
    Slices,
    judge_texts,
    reference_metrics,
    slice_dialogues,
    surface_metrics,
    toxicity_metrics,
)
from softspoken.types import Comparison, Decoding, Dialogue, EvalReport, InputError, Interval, SliceResult, SystemResult

log = logging.getLogger(__name__)

HUMAN, BASE = "human", "base"
ROWS_FILE = "eval_rows.jsonl"
FEW_DIALOGUES = 100
P99_FROM = 1_000
"""Summaries from which a 99th percentile means something."""
PACKAGES = ("softspoken", "torch", "transformers", "peft", "detoxify", "rouge-score")

Generate = Callable[[list[Dialogue], int, int], list[list[str]]]
"""(dialogues, samples, seed) → each dialogue's summaries: so many sampled at temperature 1 or, where samples is 0, the greedy one.
It may have `truncated`: how many dialogues it had to cut so far."""


@dataclass(frozen=True)
class Task:
    """What all systems are measured on, and where their rows and the progress go."""

    dialogues: list[Dialogue]
    slices: Slices
    judges: list[Judge]
    seed: int
    write_row: Callable[[dict[str, Any]], None]
    advance: Callable[[str, int], None]


@dataclass(frozen=True)
class Measured:
    """What is kept of one system's way of decoding: numbers only."""

    system: str
    decoding: Decoding | None
    values: dict[str, Array]
    """metric → [dialogues, samples]; NaN where a dialogue has no such value (it has no reference, say)."""


def evaluate(config: EvaluateConfig) -> EvalReport:
    """The command: human, base and the adapters on one dataset; writes eval.json, eval_rows.jsonl and report.html."""
    output = Path(config.output)
    if (output / EVAL_FILE).exists() and not config.overwrite:
        raise InputError(
            f"output {output} holds an evaluation; pass --overwrite true to replace it, or give another folder"
        )
    adapters = dict(zip(system_names(config.adapter or []), config.adapter or [], strict=True))
    for adapter in adapters.values():
        adapter_folder(adapter)  # one that is not there is better said before the base has run
    require_seq2seq(config.model)  # and a base before anything is written
    dialogues = load_dialogues(config.dataset, config.split, on_bad_row=config.on_bad_row, limit=config.limit)
    device = str(resolve_device(config.device))
    specs = list(dict.fromkeys(config.judge or ["mini"]))
    judges = [load_judge(spec, device=device, detoxify_sha256=config.detoxify_sha256) for spec in specs]
    systems = {
        name: functools.partial(_load_system, config, adapter) for name, adapter in {BASE: None, **adapters}.items()
    }
    report = evaluate_systems(
        systems,
        dialogues,
        judges,
        output=output,
        samples=config.samples,
        seed=config.seed,
        dataset={"id": config.dataset, "split": config.split},
        config=asdict(config),
    )
    write_report(output)
    return report


def evaluate_systems(
    systems: Mapping[str, Callable[[], Generate]],
    dialogues: list[Dialogue],
    judges: Sequence[Judge],
    *,
    output: Path,
    samples: int = 4,
    seed: int = 0,
    dataset: dict[str, Any] | None = None,
    config: dict[str, Any] | None = None,
) -> EvalReport:
    """Call each loader in turn, measure what it gives, compare all with `base`; writes eval.json and eval_rows.jsonl.

    The first judge's main label is the toxicity. References, where there are any, are the system `human`.
    """
    if len(dialogues) < FEW_DIALOGUES:
        log.warning("only %d dialogues: differences between systems may well be chance", len(dialogues))
    output.mkdir(parents=True, exist_ok=True)
    has_references = any(dialogue.reference for dialogue in dialogues)
    total = len(dialogues) * (has_references + len(systems) * (1 + samples))
    measured: list[Measured] = []
    truncated = 0
    with _rows_file(output) as write_row, _progress(total) as advance:
        slices = slice_dialogues(dialogues, judges[0])
        task = Task(dialogues, slices, list(judges), seed, write_row, advance)
        if has_references:
            measured.append(measure(HUMAN, None, _references, 0, task))
        for name, load in systems.items():
            generate = load()
            measured.append(measure(name, "greedy", generate, 0, task))
            truncated = max(truncated, getattr(generate, "truncated", 0))
            if samples:
                measured.append(measure(name, "sampled", generate, samples, task))
            del generate
            _free_memory()
    if truncated:
        log.warning("%d of %d dialogues were longer than the model reads and were cut", truncated, len(dialogues))
    groups = resampling.group_numbers([dialogue.group or f"id:{dialogue.id}" for dialogue in dialogues])
    results, comparisons = analyse(measured, groups, slices, seed)
    dataset = {"id": None, "split": None, **(dataset or {}), "n": len(dialogues), "truncated": truncated}
    names = [judge.name for judge in judges]
    report = EvalReport(dataset, names, results, comparisons, ROWS_FILE, config or {}, _versions())
    beside = output / f".{EVAL_FILE}.saving"
    beside.write_text(
        json.dumps(asdict(report), indent=1, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    beside.replace(output / EVAL_FILE)
    return report


def system_names(adapters: list[str]) -> list[str]:
    """`tuned` for one; for several, their folders' names (a run's for its `adapter` folder), longer where those are the same."""
    if len(adapters) < 2:
        return ["tuned"] * len(adapters)
    parts = [Path(adapter).parts for adapter in adapters]
    parts = [part[:-1] if part[-1] == "adapter" and len(part) > 1 else part for part in parts]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len({*names, HUMAN, BASE}) == len(names) + 2:
            return names
    raise InputError(
        f"adapter: {', '.join(adapters)} do not have distinct names; give each once, in a folder of its own name"
    )


# ------------------------------------------------------------------------------------------------------ systems


def _load_system(config: EvaluateConfig, adapter: str | None) -> Generate:
    return _Summaries(
        Summarizer.from_pretrained(
            config.model, adapter=adapter, device=config.device, max_new_tokens=config.max_new_tokens
        ),
        config.batch_size,
    )


@dataclass(frozen=True)
class _Summaries:
    summarizer: Summarizer
    batch_size: int

    @property
    def truncated(self) -> int:
        return self.summarizer.truncated

    def __call__(self, dialogues: list[Dialogue], samples: int, seed: int) -> list[list[str]]:
        texts = [dialogue.text for dialogue in dialogues]
        if samples:
            return self.summarizer.sample(texts, samples, seed, batch_size=self.batch_size)
        return [[summary] for summary in self.summarizer(texts, batch_size=self.batch_size)]


def _references(dialogues: list[Dialogue], samples: int, seed: int) -> list[list[str]]:
    return [[dialogue.reference] if dialogue.reference else [] for dialogue in dialogues]


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


# ------------------------------------------------------------------------------------------------------ measure


def measure(system: str, decoding: Decoding | None, generate: Generate, samples: int, task: Task) -> Measured:
    """Summarize, score and write all dialogues, a window at a time."""
    values: dict[str, Array] = {}
    shape = (len(task.dialogues), max(samples, 1))
    two_references = any(dialogue.literal_reference for dialogue in task.dialogues)
    for first in range(0, len(task.dialogues), WINDOW):
        window = task.dialogues[first : first + WINDOW]
        summaries = generate(window, samples, task.seed + first)
        places = [(row, sample) for row, texts in enumerate(summaries) for sample in range(len(texts))]
        scores = judge_texts(task.judges, [summaries[row][sample] for row, sample in places])
        for (row, sample), scored in zip(places, scores, strict=True):
            dialogue, text = window[row], summaries[row][sample]
            metrics = toxicity_metrics(scored, task.judges) | surface_metrics(text)
            if dialogue.reference and system != HUMAN:  # a reference proves nothing about itself
                metrics |= reference_metrics(text, dialogue, two_references)
            for metric, value in metrics.items():
                values.setdefault(metric, np.full(shape, np.nan))[first + row, sample] = value
            task.write_row(
                {
                    "row": first + row,
                    "id": dialogue.id,
                    "system": system,
                    "decoding": decoding,
                    "sample": sample if samples else None,
                    "slices": [name for name, members in task.slices.items() if members[first + row]],
                    "dialogue": dialogue.text,
                    "reference": dialogue.reference,
                    "summary": text,
                    "scores": {
                        name: {label: round(p, 6) for label, p in labels.items()} for name, labels in scored.items()
                    },
                    "metrics": {metric: round(value, 6) for metric, value in metrics.items()},
                }
            )
        task.advance(f"{system} {decoding or ''}", len(window) * shape[1])
    return Measured(system, decoding, values)


# ------------------------------------------------------------------------------------------------------ analyse


def analyse(
    measured: list[Measured], groups: Groups, slices: Slices, seed: int
) -> tuple[list[SystemResult], list[Comparison]]:
    """Numbers → intervals of every system, and comparisons of the base with every other system in each slice."""
    per_slice = {name: _analyse_slice(measured, groups, members, seed, name) for name, members in slices.items()}
    results = []
    for place, one in enumerate(measured):
        parts = {name: systems[place] for name, (systems, _) in per_slice.items()}
        whole = parts.pop("all")
        results.append(
            SystemResult(one.system, one.decoding, whole.n, whole.metrics, {k: v for k, v in parts.items() if v.n})
        )
    return results, [comparison for _, comparisons in per_slice.values() for comparison in comparisons]


def _analyse_slice(
    measured: list[Measured], groups: Groups, members: NDArray[np.bool_], seed: int, name: str
) -> tuple[list[SliceResult], list[Comparison]]:
    groups = np.unique(groups[members], return_inverse=True)[1]
    # A dialogue's value is the mean over its samples: they are no more independent than rows of a group.
    means = {
        (place, metric): values[members].mean(axis=1)
        for place, one in enumerate(measured)
        for metric, values in one.values.items()
        if not np.isnan(values[members]).all()
    }
    table = np.column_stack(list(means.values()))
    draws = dict(zip(means, resampling.bootstrap_means(table, groups, seed=seed).T, strict=True))
    systems = []
    for place, one in enumerate(measured):
        metrics = {
            metric: resampling.mean_interval(means[p, metric], draws[p, metric]) for p, metric in means if p == place
        }
        metrics |= _p99(one, groups, members, seed)
        systems.append(
            SliceResult(int((~np.isnan(means[place, "length"])).sum()) if (place, "length") in means else 0, metrics)
        )
    return systems, _compare_with_base(measured, means, draws, groups, seed, name)


def _p99(one: Measured, groups: Groups, members: NDArray[np.bool_], seed: int) -> dict[str, Interval]:
    toxicity = one.values["toxicity"][members]
    if (~np.isnan(toxicity)).sum() < P99_FROM:
        return {}
    return {"toxicity_p99": resampling.quantile_interval(toxicity, groups, 0.99, seed=seed)}


def _compare_with_base(
    measured: list[Measured],
    means: dict[tuple[int, str], Array],
    draws: dict[tuple[int, str], Array],
    groups: Groups,
    seed: int,
    slice_name: str,
) -> list[Comparison]:
    bases = {one.decoding: place for place, one in enumerate(measured) if one.system == BASE}
    pairs = [
        (bases[one.decoding], place, metric)
        for place, one in enumerate(measured)
        if one.system != BASE and one.decoding in bases
        for p, metric in means
        if p == place and (bases[one.decoding], metric) in means
    ]
    if not pairs:
        return []
    differences = np.column_stack([means[b, metric] - means[a, metric] for a, b, metric in pairs])
    p_values = resampling.permutation_p_values(differences, groups, seed=seed)
    comparisons = []
    for (a, b, metric), p_value in zip(pairs, p_values, strict=True):
        values = means[a, metric], means[b, metric], draws[a, metric], draws[b, metric]
        decoding = measured[b].decoding
        assert decoding
        comparisons.append(
            Comparison(
                BASE,
                measured[b].system,
                decoding,
                slice_name,
                metric,
                resampling.difference_interval(*values),
                resampling.ratio_interval(*values),
                float(p_value),
            )
        )
    return comparisons


# ------------------------------------------------------------------------------------------------ files, terminal


@contextlib.contextmanager
def _rows_file(output: Path) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Lines written beside; the file appears whole at the end, or not at all."""
    beside = output / f".{ROWS_FILE}.saving"
    try:
        with beside.open("w", encoding="utf-8") as file:
            yield lambda row: print(json.dumps(row, ensure_ascii=False), file=file)
        beside.replace(output / ROWS_FILE)
    finally:
        beside.unlink(missing_ok=True)


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Callable[[str, int], None]]:
    console = Console(stderr=True)
    columns = [
        TextColumn("[bold]evaluate"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
    ]
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("evaluate", total=total, speed="")

        def advance(what: str, summaries: int) -> None:
            progress.advance(task, summaries)
            speed = progress.tasks[0].speed
            progress.update(task, speed=f"{what}{f' · {speed:.1f} summaries/s' if speed else ''}")

        yield advance


def _versions() -> dict[str, str]:
    installed = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[package] = importlib.metadata.version(package)
    return {"python": platform.python_version(), **installed}
