"""No response leaves unjudged: one that is too toxic is made again, or its words are masked, or it is withheld."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from softspoken.data.words import any_of, words
from softspoken.rewards.judges import Judge
from softspoken.tasks.task import MASK, TOXIC
from softspoken.types import Response

Decision = Literal["passed", "retried", "masked", "refused"]
Scores = dict[str, float]
"""The probability of each of the judge's labels; the first is what the guard goes by."""
REMEMBERED = 2_000
"""Texts whose scores a server keeps."""


@dataclass(frozen=True)
class Guarded:
    response: Response
    """What may leave."""
    scores: Scores
    decision: Decision
    first_scores: Scores
    """Of what the model said first."""


class Guard:
    """Judges responses, and finds others for those above the threshold. May be called by several threads."""

    def __init__(self, judge: Judge, threshold: float, samples: int, refusal: str) -> None:
        """`samples`: responses that are drawn in place of one that is too toxic, of which the least toxic is taken; 0 for none."""
        self.judge, self.threshold, self.samples, self.refusal = judge, threshold, samples, refusal
        self._one_at_a_time = threading.Lock()
        if hasattr(judge.model, "cache_size"):
            judge.model.cache_size = REMEMBERED

    def score(self, texts: list[str]) -> list[Scores]:
        """Each text's probabilities by label."""
        with self._one_at_a_time:
            by_label = self.judge(texts)
        return [{label: by_label[label][row] for label in by_label} for row in range(len(texts))]

    def toxicity(self, scores: Scores) -> float:
        return scores[self.judge.labels[0]]

    def __call__(self, responses: list[Response], again: Callable[[list[int]], list[list[Response]]]) -> list[Guarded]:
        """`again`: draws `samples` responses for each of these rows."""
        first = self.score([response.text for response in responses])
        found = [Guarded(one, scores, "passed", scores) for one, scores in zip(responses, first, strict=True)]
        rows = [row for row, scores in enumerate(first) if self._is_too_toxic(scores)]
        if not rows:
            return found
        drawn = again(rows) if self.samples else [[] for _ in rows]
        judged = iter(self.score([response.text for own in drawn for response in own]))
        for row, own in zip(rows, drawn, strict=True):
            candidates = [(found[row].response, first[row]), *((response, next(judged)) for response in own)]
            best, scores = min(candidates, key=lambda candidate: self.toxicity(candidate[1]))
            found[row] = self._let_out(best, scores, first[row])
        return found

    def _let_out(self, best: Response, scores: Scores, first: Scores) -> Guarded:
        if not self._is_too_toxic(scores):
            return Guarded(best, scores, "retried", first)
        masked = self._masked(best.text)
        after = self.score([masked])[0]
        if masked != best.text and not self._is_too_toxic(after):
            return Guarded(Response(masked, best.cut), after, "masked", first)
        return Guarded(Response(self.refusal, cut=False), self.score([self.refusal])[0], "refused", first)

    def _masked(self, text: str) -> str:
        return any_of(self.toxic_words([text])).sub(MASK, text)

    def toxic_words(self, texts: list[str]) -> list[str]:
        """Those of the texts' words that the judge finds toxic standing alone."""
        vocabulary = sorted({word for text in texts for word in words(text)})
        scores = self.score(vocabulary)
        return [word for word, own in zip(vocabulary, scores, strict=True) if self.toxicity(own) > TOXIC]

    def _is_too_toxic(self, scores: Scores) -> bool:
        return self.toxicity(scores) > self.threshold
