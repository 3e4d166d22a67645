"""What is measured on one response, whatever the task; what else there is to measure, the task brings."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from softspoken.data.words import count_words, words
from softspoken.rewards.overlap import chrf
from softspoken.rewards.rouge import rouge
from softspoken.tasks.task import TOXIC, Task
from softspoken.types import Example, InputError, Response

WINDOW = 256
"""Examples answered, scored and written at once."""
COPIED = 4
"""Words in a row that count as copied where the text has them too."""
LOOP, LOOPS = 3, 3
"""A response is degenerate that says some 3 words in a row 3 times or more."""

Similarity = Callable[[list[str], list[str]], list[float]]
"""Texts and as many others → how alike each two are: the cosine of their embeddings."""

Slices = dict[str, NDArray[np.bool_]]
"""name → which examples are in it; `all` first."""


class Judge(Protocol):
    """What evaluation needs of softspoken.rewards.judges.Judge."""

    @property
    def name(self) -> str: ...
    @property
    def labels(self) -> list[str]: ...
    def __call__(self, texts: list[str]) -> dict[str, list[float]]: ...
    def clear_cache(self) -> None: ...


def judge_texts(judges: list[Judge], texts: list[str]) -> list[dict[str, dict[str, float]]]:
    """For each text: {judge: {label: probability}}."""
    judged = {judge.name: judge(texts) for judge in judges} if texts else {}
    return [
        {name: {label: p[row] for label, p in labels.items()} for name, labels in judged.items()}
        for row in range(len(texts))
    ]


def toxicity_metrics(scored: dict[str, dict[str, float]], judges: list[Judge]) -> dict[str, float]:
    """The first judge's main label as `toxicity`, its others by their names; the main label of each other judge by that judge's."""
    if not judges:
        return {}
    main, *others = judges
    toxicity = scored[main.name][main.labels[0]]
    return {
        "toxicity": toxicity,
        "toxic_rate": float(toxicity > TOXIC),
        # Its label of that name, where the spec names another as the main one, is in the rows' scores alone.
        **{label: scored[main.name][label] for label in main.labels[1:] if label != "toxicity"},
        **{judge.name: scored[judge.name][judge.labels[0]] for judge in others},
    }


def surface_metrics(response: Response, example: Example) -> dict[str, float]:
    """What can be said of a response without a reference.

    `degenerate_rate` counts loops, the typical failure of greedy decoding (Holtzman et al. 2020). `copied_share`, the share of
    its 4-grams that stand in a line of the text, is 1 − the share of novel ones (See et al. 2017).
    """
    said = words(response.text)
    metrics = {
        "length": float(count_words(response.text)),
        "empty_rate": float(not response.text.strip()),
        "degenerate_rate": float(max(Counter(ngrams(said, LOOP)).values(), default=0) >= LOOPS),
    }
    if response.cut is not None:
        metrics["truncated_rate"] = float(response.cut)
    if pieces := ngrams(said, COPIED):
        there = _example_ngrams(example.text)
        metrics["copied_share"] = sum(piece in there for piece in pieces) / len(pieces)
    return metrics


def reference_metrics(response: str, example: Example, two_references: bool) -> dict[str, float]:
    """ROUGE and chrF in points against the references, the best of several; with `two_references`, ROUGE-L against the nearer of
    these and the literal one as well. The length is compared with the references' mean."""
    references = example.references
    metrics = {kind: 100 * score for kind, score in rouge(references, response).items()}
    if two_references:
        literal = [example.literal_reference] if example.literal_reference else []
        other = 100 * rouge(literal, response, ["rougeL"])["rougeL"] if literal else 0.0
        metrics["rougeL_nearer"] = max(metrics["rougeL"], other)
    metrics["chrf"] = chrf(response, references)
    metrics["length_ratio"] = count_words(response) * len(references) / sum(map(count_words, references))
    return metrics


def similarity_metrics(
    similarity: Similarity, responses: list[str], examples: list[Example], word: str
) -> list[dict[str, float]]:
    """For each response, how near it is to its text (`similarity_WORD`) and, where there is one, to its nearest
    reference."""
    found = [{f"similarity_{word}": value} for value in similarity(responses, [example.text for example in examples])]
    pairs = [(row, reference) for row, example in enumerate(examples) for reference in example.references]
    values = similarity([responses[row] for row, _ in pairs], [reference for _, reference in pairs])
    for (row, _), value in zip(pairs, values, strict=True):
        found[row]["similarity_reference"] = max(value, found[row].get("similarity_reference", -1.0))
    return found


def ngrams(said: list[str], size: int) -> list[tuple[str, ...]]:
    return list(zip(*(said[first:] for first in range(size)), strict=False))


@functools.lru_cache(maxsize=1024)
def _example_ngrams(example: str) -> frozenset[tuple[str, ...]]:
    return frozenset(piece for line in example.splitlines() for piece in ngrams(words(line), COPIED))


def slice_examples(
    task: Task, examples: list[Example], judge: Judge | None, advance: Callable[[int], object]
) -> Slices:
    """`all` and the task's own parts, without those that are empty; `advance` is told how many texts more were judged."""

    def toxicity(texts: list[str]) -> list[float]:
        assert judge
        found = judge(texts)[judge.labels[0]]
        advance(len(texts))
        return found

    slices = {"all": np.ones(len(examples), dtype=bool)}
    for name, members in task.slices(examples, toxicity if judge else None).items():
        slices[name] = np.array(members, dtype=bool)
        if len(members) != len(examples):
            raise InputError(
                f"task {task.name}: slice {name!r} has {len(members)} members for {len(examples)} examples; give one each"
            )
    return {name: members for name, members in slices.items() if members.any()}
