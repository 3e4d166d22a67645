"""Responses in, scores out: what training raises, as a weighted sum of named terms.

A term is any callable `(responses, examples) -> numbers`, one for each response, higher is better, or None where it has no opinion.
Built in, each in [0, 1] unless it says otherwise:

- `mini`, `detoxify:VARIANT`, `detoxify:VARIANT:LABEL`: 1 − toxicity (or LABEL) by a classifier;
- `hf:MODEL:LABEL`: the probability of LABEL by a hub classifier, so LABEL is what to raise; `hf:MODEL:-LABEL`: 1 − it, for
  a label to lower (rewards/judges.py says how that goes with judges);
- `hf:MODEL:LABEL:pair`, `:logit`, `:pair:logit`, `entails:MODEL`: of text and response together, and raw outputs (classified.py);
- `rouge:rouge1`, `rouge:rouge2`, `rouge:rougeL`, `rouge:rougeLsum`: F-measure against the reference, with stemming;
- `chrf`, `bleu`: sacrebleu's of a sentence, against the references, from points to [0, 1] (overlap.py);
- `similarity:MODEL`: cosine of the mean-pooled embeddings of response and text by a hub encoder, from [−1, 1] to [0, 1];
- `cosine:MODEL`: the same cosine, as it is, negative ones as 0;
- `length:MIN-MAX`: 1 for MIN to MAX words, falling in a straight line to 0 at MIN/2 below and 1.5 MAX above;
- `package.module:function`, `./file.py:function`, and functions given in Python: your own (functions.py);
- `http://HOST/PATH`: a server's (served.py).

A product of them (`mini * chrf`) is a term as well, and each factor of it is logged.
"""

from __future__ import annotations

import functools
import logging
import math
import re
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from softspoken.config.rewards import Reward as Asked
from softspoken.config.rewards import (
    factors,
    is_classified,
    is_judge,
    reward_functions,
    reward_weights,
)
from softspoken.config.specs import REWARDS, length_bounds, require_term
from softspoken.data.reading import list_of_texts
from softspoken.data.words import count_words
from softspoken.rewards.classified import Classified, load_classified
from softspoken.rewards.functions import OwnFunction, as_term, load_function
from softspoken.rewards.judges import Judge, load_judge
from softspoken.rewards.overlap import bleu, chrf
from softspoken.rewards.rouge import rouge
from softspoken.rewards.served import is_served, load_served
from softspoken.rewards.similarity import Similarity, load_similarity
from softspoken.types import Example, InputError, RunError, Scores

__all__ = [
    "Judge",
    "Reward",
    "Similarity",
    "WeightedReward",
    "default_judge",
    "judge_term",
    "load_judge",
    "load_reward",
    "load_similarity",
]

log = logging.getLogger(__name__)

Reward = Callable[[list[str], list[Example]], Iterable[float | None]]

OVERLAPS = {"chrf": chrf, "bleu": bleu}
TOXIC_NAME = re.compile(r"(severe_|very )?(toxic|insult|hate|hateful|obscen|threat|abus|offens)", re.IGNORECASE)


def load_reward(
    spec: Asked, *, device: str = "cpu", batch_size: int = 64, detoxify_sha256: str | None = None
) -> WeightedReward:
    """The terms that `spec` names (`"detoxify:original + 0.2*rouge:rougeL"`, a function, or a list or mapping of such), loaded.

    >>> from softspoken.types import Example
    >>> reward = softspoken.load_reward("rouge:rougeL + 0.5*length:2-4")
    >>> reward(["Tea at five."], [Example("1", "Ben: Tea at five.", reference="Tea at five.")]).total.tolist()
    [1.5]
    """
    weights, functions = reward_weights(spec), reward_functions(spec)
    if not any(weights.values()):
        raise InputError(f"reward {spec!r} needs at least one term with a weight other than 0; use {REWARDS}")
    load = functools.partial(_load_term, device=device, batch_size=batch_size, detoxify_sha256=detoxify_sha256)
    names = dict.fromkeys(factor for term in weights for factor in factors(term))
    terms = {name: as_term(name, functions[name]) if name in functions else load(name) for name in names}
    return WeightedReward(terms, weights)


@dataclass(frozen=True)
class WeightedReward:
    terms: Mapping[str, Reward]
    """Each by its own name, the factors of products among them."""
    weights: dict[str, float]
    """Of a term, or of a product of several."""

    def __call__(self, responses: list[str], examples: list[Example]) -> Scores:
        """Every term of every response, and their weighted sum; `examples[i]` is what `responses[i]` answers.

        A term that has no opinion on a response is NaN there and left out of its sum, which is NaN where none has one. Raises
        RunError, with the term's name and the text, for a term that fails or returns anything else than one finite number each.
        """
        responses = list_of_texts(responses, "responses")
        if len(responses) != len(examples):
            raise InputError(
                f"there are {len(responses)} responses and {len(examples)} examples; give one for each response"
            )
        terms = {name: _checked(name, term, responses, examples) for name, term in self.terms.items()}
        for name in [name for name in self.weights if name not in terms]:
            terms[name] = torch.stack([terms[factor] for factor in factors(name)]).prod(dim=0)
        total = weighted_sum(terms, self.weights)
        for number in total.float().isinf().nonzero().flatten().tolist():
            parts = " + ".join(f"{self.weights[name]:g} * {terms[name][number]:g} ({name})" for name in self.weights)
            raise RunError(f"the rewards of {_quoted(responses[number])} add up to more than float32 holds: {parts}")
        return Scores(total.float(), {name: values.float() for name, values in terms.items()})

    @property
    def needs_references(self) -> list[str]:
        """The terms that compare with a reference, so that missing ones can be found before the run."""
        return [name for name in self.terms if name.startswith("rouge:") or name in OVERLAPS]

    @property
    def needs_texts(self) -> list[str]:
        """The terms that compare with the text."""
        return [
            name for name, term in self.terms.items() if isinstance(term, Similarity) or getattr(term, "pair", False)
        ]

    def require_columns(self, examples: list[Example]) -> None:
        """Raises InputError for a term in TRL's form that asks for a column that no row has; one that some have is None elsewhere."""
        for term in self.terms.values():
            if isinstance(term, OwnFunction):
                term.require_columns(examples)

    @property
    def truncated(self) -> int:
        """How many texts were longer than a term's model takes, and were cut, so far."""
        return sum(getattr(term, "truncated", 0) for term in self.terms.values())

    def clear_cache(self) -> None:
        """Forget the texts seen: after each step, so that a run which was stopped and one which was not go on alike."""
        for term in self.terms.values():
            if isinstance(term, JudgeReward | Similarity | Classified):
                term.clear_cache()


def weighted_sum(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Of terms [N], NaN where a term has no opinion → [N] float64, NaN where none that counts has one."""
    first = next(iter(terms.values()))
    total, opinions = torch.zeros(len(first), dtype=torch.float64), torch.zeros(len(first), dtype=torch.bool)
    for name, weight in weights.items():
        has = ~terms[name].isnan()
        total += torch.where(has, weight * terms[name].double(), 0.0)
        opinions |= has & (weight != 0)
    return torch.where(opinions, total, torch.nan)


def _checked(name: str, term: Reward, responses: list[str], examples: list[Example]) -> Tensor:
    """[N] float64, NaN for None."""
    if not responses:
        return torch.zeros(0, dtype=torch.float64)
    try:
        returned: Any = term(list(responses), list(examples))  # copies: a term may do to them what it likes
        values = _listed(returned) if _is_list(returned) else None  # a generator runs only now
    except (InputError, RunError):
        raise
    except (Exception, SystemExit) as error:  # sys.exit() in a reward is no way to end a run well
        raise RunError(
            f"reward {name!r} failed with {type(error).__name__}: {error} ({_quoted(responses[0])} is the first text)"
        ) from error
    if values is None:
        raise RunError(
            f"reward {name!r} must return a list, one number for each text; for {_quoted(responses[0])} it returned {returned!r}"
        )
    if len(values) != len(responses):
        raise RunError(
            f"reward {name!r} returned {len(values)} scores for {len(responses)} texts, of which {_quoted(responses[0])} is the first"
        )
    for value, response in zip(values, responses, strict=True):
        if value is not None and not _is_finite(value):
            raise RunError(
                f"reward {name!r} returned {value!r} for {_quoted(response)}; it must be a finite number, and one of float32, or None"
            )
    return torch.tensor([math.nan if value is None else float(value) for value in values], dtype=torch.float64)


def _is_list(returned: Any) -> bool:
    """Whether it may hold a number for each text, in their order: a set has none, nor a mapping, and a text's letters are no numbers."""
    flat = getattr(returned, "ndim", 1) == 1  # of an array, a tensor or a column of a table
    return flat and isinstance(returned, Iterable) and not isinstance(returned, str | bytes | Mapping | Set)


def _listed(returned: Any) -> list[Any]:
    """A tensor and an array at once: from a GPU one value at a time is slow."""
    return list(returned.tolist() if hasattr(returned, "tolist") else returned)


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value) and abs(value) <= torch.finfo(torch.float32).max
    except (TypeError, OverflowError):
        return False


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 200 else text[:200] + "…")


# ------------------------------------------------------------------------------------------------- judges as rewards


@dataclass(frozen=True)
class JudgeReward:
    judge: Judge
    lower: bool
    """Whether the judge's main label is to be lowered; if not, raised."""

    def __call__(self, responses: list[str], examples: list[Example]) -> list[float]:
        scores = self.judge(responses)[self.judge.labels[0]]
        return [1.0 - score for score in scores] if self.lower else scores

    @property
    def truncated(self) -> int:
        return self.judge.truncated

    def clear_cache(self) -> None:
        self.judge.clear_cache()


def judge_term(reward: Asked) -> str | None:
    """The first classifier among the terms of a reward, by its term's name; toxicity is 1 − that term."""
    return next(filter(is_judge, (factor for term in reward_weights(reward) for factor in factors(term))), None)


def default_judge(reward: Asked) -> str:
    """The judge whose toxicity is 1 − the first classifier among the terms; `mini` if there is none."""
    term = judge_term(reward) or "mini"
    if not term.startswith("hf:"):
        return term
    # An hf spec names a number that a reward raises and a judge calls toxicity, so the one's sign is the other's opposite.
    kind, model, label = term.split(":", maxsplit=2)
    return f"{kind}:{model}:{label[1:] if label.startswith('-') else '-' + label}"


# ------------------------------------------------------------------------------------------------- the other terms


def _load_term(spec: str, *, device: str, batch_size: int, detoxify_sha256: str | None) -> Reward:
    require_term(spec)
    kind, _, rest = spec.partition(":")
    if is_served(spec):
        return load_served(spec)
    if is_classified(spec):
        return load_classified(spec, device=device, batch_size=batch_size)
    if is_judge(spec):
        judge = load_judge(spec, device=device, batch_size=batch_size, detoxify_sha256=detoxify_sha256)
        if kind == "hf" and TOXIC_NAME.match(judge.labels[0]):
            log.warning("reward %s raises %r; to lower it, write hf:MODEL:-%s", spec, judge.labels[0], judge.labels[0])
        return JudgeReward(judge, lower=kind != "hf")
    if kind == "rouge":
        return Rouge(spec, rest)
    if spec in OVERLAPS:
        return Overlap(spec)
    if kind == "length":
        return Length(*length_bounds(spec))
    if kind in ("similarity", "cosine"):
        return load_similarity(rest, device=device, batch_size=batch_size, plain=kind == "cosine")
    return load_function(spec)


@dataclass(frozen=True)
class Rouge:
    name: str
    kind: str

    def __call__(self, responses: list[str], examples: list[Example]) -> list[float]:
        return [self._score(response, example) for response, example in zip(responses, examples, strict=True)]

    def _score(self, response: str, example: Example) -> float:
        return rouge(_references(self.name, example), response, [self.kind])[self.kind]


@dataclass(frozen=True)
class Overlap:
    name: str

    def __call__(self, responses: list[str], examples: list[Example]) -> list[float]:
        measure = OVERLAPS[self.name]
        pairs = zip(responses, examples, strict=True)
        # Rounding may carry an exact match past 100.
        return [min(1.0, measure(response, _references(self.name, example)) / 100) for response, example in pairs]


def _references(name: str, example: Example) -> list[str]:
    if not example.reference:
        raise InputError(
            f"reward {name} needs references, and the row {example.id!r} has none; name their column with --reference_column"
        )
    return example.references


@dataclass(frozen=True)
class Length:
    shortest: int
    longest: int

    def __call__(self, responses: list[str], examples: list[Example]) -> list[float]:
        return [self._score(count_words(response)) for response in responses]

    def _score(self, words: int) -> float:
        if words < self.shortest:
            return max(0.0, 1 - (self.shortest - words) / (self.shortest / 2))
        if words > self.longest:
            return max(0.0, 1 - (words - self.longest) / (self.longest / 2))
        return 1.0
