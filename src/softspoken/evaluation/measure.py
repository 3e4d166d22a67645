"""One system at a time: its responses to all examples, a window at a time, scored and written as rows."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from softspoken.config.naming import BASE, HUMAN
from softspoken.evaluation.metrics import (
    WINDOW,
    Judge,
    Similarity,
    Slices,
    judge_texts,
    reference_metrics,
    similarity_metrics,
    surface_metrics,
    toxicity_metrics,
)
from softspoken.evaluation.rows import RowsFile
from softspoken.evaluation.systems import Generate, Score, System, Window, without
from softspoken.runtime import processes
from softspoken.tasks.task import Task
from softspoken.types import Example, Response


@dataclass(frozen=True)
class Term:
    """A reward that is measured of each response under a name of its own."""

    score: Score
    needs_reference: bool


@dataclass(frozen=True)
class Job:
    """What all systems are measured on and by, and where their rows and the progress go."""

    task: Task
    examples: list[Example]
    slices: Slices
    judges: list[Judge]
    terms: dict[str, Term]
    similarity: Similarity | None
    seed: int
    rows: RowsFile
    advance: Callable[[str, int], None]


def measure(system: System, job: Job) -> None:
    """Answer, score and write all examples, a window at a time; windows that were written before the stop are left out."""
    several = len(system.trainings) > 1
    for training in system.trainings:
        generate: Generate | None = None
        windows = [
            Window(job.examples[first : first + WINDOW], first, decoding, samples, job.seed + first)
            for decoding, samples in system.ways.items()
            for first in range(0, len(job.examples), WINDOW)
        ]
        missing = [window for window in windows if _window_name(system.name, training, window) not in job.rows]
        job.advance(system.name, _responses_in(windows) - _responses_in(missing))
        for start in range(0, len(missing), processes.size()):
            together = missing[start : start + processes.size()]
            made = []
            for window in processes.turns(together):  # each process takes one
                generate = generate or _start(system, training, job)
                before = getattr(generate, "truncated", 0)
                responses = generate(window)
                cut = getattr(generate, "truncated", 0) - before
                made.append((_rows(system.name, training if several else None, window, responses, job), cut))
                forget(job)
            for window, (rows, cut) in zip(together, processes.in_turn(made, len(together)), strict=True):
                job.rows.add(_window_name(system.name, training, window), rows, cut)
                job.advance(f"{system.name} {window.decoding or ''}", _responses_in([window]))
        del generate
        _free_memory()


def _responses_in(windows: list[Window]) -> int:
    return sum(len(window.examples) * window.samples for window in windows)


def _start(system: System, training: int, job: Job) -> Generate:
    if system.rework is None:
        return system.loads[training]()
    rework = system.rework

    def generate(window: Window) -> list[list[Response]]:
        texts: list[list[str]] = [[] for _ in window.examples]
        for row in job.rows.read(_window_name(BASE, 0, window)):
            texts[row["row"] - window.first].append(row[job.task.words.response])
        return [[Response(text) for text in own] for own in rework(window, texts)]

    return generate


def _window_name(system: str, training: int, window: Window) -> str:
    return "|".join(map(str, (system, window.decoding, training, window.first)))


def _rows(
    system: str, training: int | None, window: Window, responses: list[list[Response]], job: Job
) -> list[dict[str, Any]]:
    places = [(place, sample) for place, own in enumerate(responses) for sample in range(len(own))]
    texts = [responses[place][sample].text for place, sample in places]
    owners = [window.examples[place] for place, _ in places]
    if system == HUMAN:
        owners = [without(owner, sample) for owner, (_, sample) in zip(owners, places, strict=True)]
    two_references = any(example.literal_reference for example in job.examples)
    words = job.task.words
    alike: list[dict[str, float]] = [{} for _ in texts]
    if job.similarity:
        alike = similarity_metrics(job.similarity, texts, owners, words.text)
    terms = term_metrics(job.task, job.terms, texts, owners)
    rows = []
    for (place, sample), owner, scored, similarities, measured in zip(
        places, owners, judge_texts(job.judges, texts), alike, terms, strict=True
    ):
        example, response = window.examples[place], responses[place][sample]
        number = window.first + place
        many = similarities | measured
        metrics = response_metrics(response, owner, scored, many, job.task, job.judges, two_references)
        rows.append(
            {
                "row": number,
                "id": example.id,
                "system": system,
                "seed": training,
                "decoding": window.decoding,
                "sample": sample if window.decoding == "sampled" or sample else None,
                "slices": [name for name, members in job.slices.items() if members[number]],
                words.text: example.text,
                "reference": example.reference,
                **({"further_references": further} if (further := example.further_references) else {}),
                words.response: response.text,
                "scores": {
                    name: {label: round(p, 6) for label, p in labels.items()} for name, labels in scored.items()
                },
                "metrics": {metric: round(value, 6) for metric, value in metrics.items()},
            }
        )
    return rows


def response_metrics(
    response: Response,
    example: Example,
    scored: dict[str, dict[str, float]],
    further: dict[str, float],
    task: Task,
    judges: list[Judge],
    two_references: bool,
) -> dict[str, float]:
    """All that is measured of one response: `scored` is what the judges said of it, `further` what was measured of many at once."""
    metrics = toxicity_metrics(scored, judges) | surface_metrics(response, example) | further
    if example.reference:
        metrics |= reference_metrics(response.text, example, two_references)
    return metrics | task.metrics(response.text, example)


def term_metrics(task: Task, terms: dict[str, Term], texts: list[str], owners: list[Example]) -> list[dict[str, float]]:
    """For each text the task's terms by their names, and the products of them; a term that compares with references only where
    there is one."""
    rows: list[dict[str, float]] = [{} for _ in texts]
    for name, term in terms.items():
        asked = [place for place, owner in enumerate(owners) if owner.reference or not term.needs_reference]
        if asked:
            scores = term.score([texts[place] for place in asked], [owners[place] for place in asked])
            for place, value in zip(asked, scores, strict=True):
                if value == value:  # else it has no opinion
                    rows[place][name] = value
    for name, factors in task.products.items():
        for row in rows:
            if all(factor in row for factor in factors):
                row[name] = math.prod(row[factor] for factor in factors)
    return rows


def forget(job: Job) -> None:
    """A score depends, in its last digits, on the texts it was computed with: a run that goes on after a stop must have no
    other batches than one that was not stopped."""
    for judge in job.judges:
        judge.clear_cache()


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
