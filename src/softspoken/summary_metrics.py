"""What is measured on one summary, and how dialogues are sliced."""

from __future__ import annotations

import functools
import re
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from softspoken.types import Dialogue

TOXIC = 0.5
"""A summary (or a line of a dialogue) is toxic above this."""
WINDOW = 256
"""Dialogues summarized, scored and written at once."""
ROUGE = ("rouge1", "rouge2", "rougeL")
SPEAKER = re.compile(r"^([^:\n]{1,40}):\s*", re.MULTILINE)

Slices = dict[str, NDArray[np.bool_]]
"""name → which dialogues are in it."""


class Judge(Protocol):
    """What evaluation needs of softspoken.rewards.Judge."""

    @property
    def name(self) -> str: ...
    @property
    def labels(self) -> list[str]: ...
    def __call__(self, texts: list[str]) -> dict[str, list[float]]: ...


def judge_texts(judges: list[Judge], texts: list[str]) -> list[dict[str, dict[str, float]]]:
    """For each text: {judge: {label: probability}}."""
    judged = {judge.name: judge(texts) for judge in judges} if texts else {}
    return [
        {name: {label: p[row] for label, p in labels.items()} for name, labels in judged.items()}
        for row in range(len(texts))
    ]


def toxicity_metrics(scored: dict[str, dict[str, float]], judges: list[Judge]) -> dict[str, float]:
    """The first judge's main label as `toxicity`, its others by their names; the main label of each other judge by that judge's."""
    main, *others = judges
    toxicity = scored[main.name][main.labels[0]]
    return {
        "toxicity": toxicity,
        "toxic_rate": float(toxicity > TOXIC),
        **{label: scored[main.name][label] for label in main.labels[1:]},
        **{judge.name: scored[judge.name][judge.labels[0]] for judge in others},
    }


def surface_metrics(summary: str) -> dict[str, float]:
    return {"length": float(len(summary.split())), "empty_rate": float(not summary.strip())}


def reference_metrics(summary: str, dialogue: Dialogue, two_references: bool) -> dict[str, float]:
    """ROUGE in points against the calm reference; with `two_references`, ROUGE-L against the nearer one as well."""
    assert dialogue.reference
    scores = _rouge(*ROUGE).score(dialogue.reference, summary)
    metrics = {name: 100 * score.fmeasure for name, score in scores.items()}
    if two_references:
        literal = dialogue.literal_reference
        other = 100 * _rouge("rougeL").score(literal, summary)["rougeL"].fmeasure if literal else 0.0
        metrics["rougeL_nearer"] = max(metrics["rougeL"], other)
    expected = [name for name in speakers(dialogue.text) if names(dialogue.reference, name)]
    if expected:
        metrics["speakers_named"] = sum(names(summary, name) for name in expected) / len(expected)
    return metrics


@functools.cache
def _rouge(*kinds: str) -> Any:
    from rouge_score.rouge_scorer import RougeScorer  # takes seconds to import
    from rouge_score.tokenizers import DefaultTokenizer

    tokenizer = DefaultTokenizer(use_stemmer=True)
    # Stemming is most of the work, and a reference comes again with each of its summaries.
    tokenizer.tokenize = functools.lru_cache(maxsize=4096)(tokenizer.tokenize)
    return RougeScorer(kinds, tokenizer=tokenizer)


def speakers(dialogue: str) -> list[str]:
    """Who speaks, in order: what stands before the colon at the start of a line."""
    return list(dict.fromkeys(match[1].strip() for match in SPEAKER.finditer(dialogue)))


def names(text: str, name: str) -> bool:
    """Whether the name stands in the text, as a word of its own."""
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text, re.IGNORECASE) is not None


def slice_dialogues(dialogues: list[Dialogue], judge: Judge) -> Slices:
    """`all`, `heated` and `everyday`, without those that are empty.

    Heated are the dialogues with a literal reference; where none has one, those whose worst line the judge finds toxic.
    """
    heated = np.array([dialogue.literal_reference is not None for dialogue in dialogues])
    if not heated.any():
        for first in range(0, len(dialogues), WINDOW):
            heated[first : first + WINDOW] = [
                worst > TOXIC for worst in _worst_lines(dialogues[first : first + WINDOW], judge)
            ]
    slices = {"all": np.ones(len(dialogues), dtype=bool), "heated": heated, "everyday": ~heated}
    return {name: members for name, members in slices.items() if members.any()}


def _worst_lines(dialogues: list[Dialogue], judge: Judge) -> list[float]:
    """The toxicity of each dialogue's worst utterance."""
    lines = [(row, SPEAKER.sub("", line)) for row, d in enumerate(dialogues) for line in d.text.split("\n")]
    worst = [0.0] * len(dialogues)
    for (row, _), toxicity in zip(lines, judge([line for _, line in lines])[judge.labels[0]], strict=True):
        worst[row] = max(worst[row], toxicity)
    return worst
