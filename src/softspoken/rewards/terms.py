"""Summaries in, scores out: what training raises, as a weighted sum of named terms.

A term is any callable `(responses, examples) -> list of float`, one number for each response, higher is better. Built in,
each in [0, 1]:

- `mini`, `detoxify:VARIANT`, `detoxify:VARIANT:LABEL`: 1 − toxicity (or LABEL) by a classifier;
- `hf:MODEL:LABEL`: the probability of LABEL by a hub classifier, so LABEL is what to raise; `hf:MODEL:-LABEL`: 1 − it, for
  a label to lower (softspoken.judges says how that goes with judges);
- `rouge:rouge1`, `rouge:rouge2`, `rouge:rougeL`, `rouge:rougeLsum`: F-measure against the reference, with stemming;
- `similarity:MODEL`: cosine of the mean-pooled embeddings of summary and dialogue by a hub encoder, from [−1, 1] to [0, 1];
- `cosine:MODEL`: the same cosine, as it is, negative ones as 0;
- `chrf`, `bleu`: sacrebleu's, against the references, from points to [0, 1];
- `length:MIN-MAX`: 1 for MIN to MAX words, falling in a straight line to 0 at MIN/2 below and 1.5 MAX above;
- `package.module:function`: your own.

A product of them (`mini * chrf`) is a term as well, and each factor of it is logged.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import logging
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, TextIO

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoTokenizer

from softspoken.config import ScoreConfig
from softspoken.config.ranges import factors, reward_weights
from softspoken.data.files import lines_of, open_text, saying_what_is_wrong
from softspoken.data.words import count_words
from softspoken.lines_file import LinesFile
from softspoken.models.pretrained import from_pretrained
from softspoken.progress import Speed, progress_bar
from softspoken.rewards.judges import JUDGES, Judge, TextModel, is_judge, load_judge
from softspoken.rewards.overlap import bleu, chrf
from softspoken.rewards.rouge import KINDS, rouge
from softspoken.types import Example, InputError, RunError, Scores

__all__ = ["Judge", "Reward", "WeightedReward", "default_judge", "judge_term", "load_judge", "load_reward", "score"]

log = logging.getLogger(__name__)

Reward = Callable[[list[str], list[Example]], list[float]]

REWARDS = f"{JUDGES}, rouge:rougeL, chrf, bleu, similarity:MODEL, cosine:MODEL, length:MIN-MAX, or your own as package.module:function"
OVERLAPS = {"chrf": chrf, "bleu": bleu}
TOXIC_NAME = re.compile(r"(severe_|very )?(toxic|insult|hate|hateful|obscen|threat|abus|offens)", re.IGNORECASE)


def load_reward(
    spec: str | dict[str, float], *, device: str = "cpu", batch_size: int = 64, detoxify_sha256: str | None = None
) -> WeightedReward:
    """The terms that `spec` names (`"detoxify:original + 0.2*rouge:rougeL"`, or a mapping of term to weight), loaded.

    >>> from softspoken.types import Example
    >>> reward = softspoken.load_reward("rouge:rougeL + 0.5*length:2-4")
    >>> reward(["Tea at five."], [Example("1", "Ben: Tea at five.", reference="Tea at five.")]).total.tolist()
    [1.5]
    """
    weights = reward_weights(spec)
    if not any(weights.values()):
        raise InputError(f"reward {spec!r} needs at least one term with a weight other than 0; use {REWARDS}")
    load = functools.partial(_load_term, device=device, batch_size=batch_size, detoxify_sha256=detoxify_sha256)
    names = dict.fromkeys(factor for term in weights for factor in factors(term))
    return WeightedReward({name: load(name) for name in names}, weights)


@dataclass(frozen=True)
class WeightedReward:
    terms: dict[str, Reward]
    """Each by its own name, the factors of products among them."""
    weights: dict[str, float]
    """Of a term, or of a product of several."""

    def __call__(self, responses: list[str], examples: list[Example]) -> Scores:
        """Every term of every response, and their weighted sum; `dialogues[i]` is what `responses[i]` summarizes.

        Raises RunError, with the term's name and the text, for a term that fails or returns anything but one finite number each.
        """
        if len(responses) != len(examples):
            raise ValueError(f"{len(responses)} responses, {len(examples)} examples: one example for each response")
        terms = {name: _checked(name, term, responses, examples) for name, term in self.terms.items()}
        for name in [name for name in self.weights if name not in terms]:
            terms[name] = torch.stack([terms[factor] for factor in factors(name)]).prod(dim=0)
        total = torch.zeros(len(responses), dtype=torch.float64)
        for name, weight in self.weights.items():
            total += weight * terms[name]
        for number in (~torch.isfinite(total.float())).nonzero().flatten().tolist():
            parts = " + ".join(f"{self.weights[name]:g} * {terms[name][number]:g} ({name})" for name in self.weights)
            raise RunError(f"the rewards of {_quoted(responses[number])} add up to more than float32 holds: {parts}")
        return Scores(total.float(), {name: values.float() for name, values in terms.items()})

    @property
    def needs_references(self) -> list[str]:
        """The terms that compare with a reference, so that missing ones can be found before the run."""
        return [name for name in self.terms if name.startswith("rouge:") or name in OVERLAPS]

    def clear_cache(self) -> None:
        """Forget the texts seen: after each step, so that a run which was stopped and one which was not go on alike."""
        for term in self.terms.values():
            if isinstance(term, JudgeReward | Similarity):
                term.clear_cache()


def _checked(name: str, term: Reward, responses: list[str], examples: list[Example]) -> Tensor:
    """[N] float64."""
    if not responses:
        return torch.zeros(0, dtype=torch.float64)
    try:
        returned: Any = term(list(responses), list(examples))  # copies: a term may do to them what it likes
        values = list(returned) if _is_list(returned) else None  # a generator runs only now
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
        if not _is_finite(value):
            raise RunError(
                f"reward {name!r} returned {value!r} for {_quoted(response)}; it must be a finite number, and one of float32"
            )
    return torch.tensor([float(value) for value in values], dtype=torch.float64)


def _is_list(returned: Any) -> bool:
    """Whether it may hold a number for each text, in their order: a set has none, nor a mapping, and a text's letters are no numbers."""
    flat = not isinstance(returned, Tensor) or returned.ndim == 1
    return flat and isinstance(returned, Iterable) and not isinstance(returned, str | bytes | Mapping | Set)


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

    def clear_cache(self) -> None:
        self.judge.clear_cache()


def judge_term(reward: str | dict[str, float]) -> str | None:
    """The first classifier among the terms of a reward, by its term's name; toxicity is 1 − that term."""
    return next(filter(is_judge, (factor for term in reward_weights(reward) for factor in factors(term))), None)


def default_judge(reward: str | dict[str, float]) -> str:
    """The judge whose toxicity is 1 − the first classifier among the terms; `mini` if there is none."""
    term = judge_term(reward) or "mini"
    if not term.startswith("hf:"):
        return term
    # An hf spec names a number that a reward raises and a judge calls toxicity, so the one's sign is the other's opposite.
    kind, model, label = term.split(":", maxsplit=2)
    return f"{kind}:{model}:{label[1:] if label.startswith('-') else '-' + label}"


# ------------------------------------------------------------------------------------------------- the other terms


def _load_term(spec: str, *, device: str, batch_size: int, detoxify_sha256: str | None) -> Reward:
    kind, _, rest = spec.partition(":")
    if is_judge(spec):
        judge = load_judge(spec, device=device, batch_size=batch_size, detoxify_sha256=detoxify_sha256)
        if kind == "hf" and TOXIC_NAME.match(judge.labels[0]):
            log.warning("reward %s raises %r; to lower it, write hf:MODEL:-%s", spec, judge.labels[0], judge.labels[0])
        return JudgeReward(judge, lower=kind != "hf")
    if kind == "rouge":
        if rest not in KINDS:
            raise InputError(
                f"reward {spec!r}: no such ROUGE; use one of {', '.join(f'rouge:{name}' for name in KINDS)}"
            )
        return Rouge(spec, rest)
    if spec in OVERLAPS:
        return Overlap(spec)
    if kind == "length":
        return _load_length(spec, rest)
    if kind in ("similarity", "cosine") and rest:
        return load_similarity(rest, device=device, batch_size=batch_size, plain=kind == "cosine")
    if re.fullmatch(r"[^\W\d][\w.]*:[^\W\d][\w.]*", spec):
        return _load_function(spec)
    raise InputError(f"unknown reward {spec!r}; use {REWARDS}")


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


def _load_length(spec: str, bounds: str) -> Length:
    match = re.fullmatch(r"(\d+)-(\d+)", bounds)
    if not match or not 0 < int(match[2]) >= int(match[1]):
        raise InputError(f"reward {spec!r}: give the bounds in words, the shorter first, like length:5-30")
    return Length(int(match[1]), int(match[2]))


class Similarity:
    """How near a response is to its text in an encoder's eyes; a text longer than the encoder takes is cut."""

    def __init__(self, embed: TextModel, *, plain: bool = False) -> None:
        """`plain`: the cosine itself, nothing for a negative one; else from [−1, 1] to [0, 1]."""
        self.embed, self.plain = embed, plain

    def __call__(self, responses: list[str], examples: list[Example]) -> list[float]:
        cosines = self.cosine(responses, [example.text for example in examples])
        return [max(0.0, cosine) if self.plain else (1 + cosine) / 2 for cosine in cosines]

    def cosine(self, texts: list[str], others: list[str]) -> list[float]:
        """In [−1, 1], of each text and its counterpart."""
        if not texts:
            return []
        embedded = torch.stack(self.embed(texts)), torch.stack(self.embed(others))
        return torch.cosine_similarity(*embedded, dim=-1).clamp(-1, 1).tolist()

    def clear_cache(self) -> None:
        self.embed.clear_cache()


def load_similarity(model: str, *, device: str, batch_size: int, plain: bool = False) -> Similarity:
    load = functools.partial(
        from_pretrained, model=model, ways_on="give the folder of a local copy as similarity:FOLDER"
    )
    config = load(AutoConfig.from_pretrained)
    tokenizer = load(AutoTokenizer.from_pretrained)
    encoder, loaded = load(AutoModel.from_pretrained, dtype=torch.float32, output_loading_info=True)
    # A pooler is often not saved, nor read here; anything else that is absent would be random numbers.
    missing = sorted(name for name in loaded["missing_keys"] if "pooler" not in name)
    if missing:
        raise InputError(f"{model} is not a trained encoder: it lacks the weights of {missing[0]}")
    if config.is_encoder_decoder:
        encoder = encoder.get_encoder()
    return Similarity(
        TextModel(encoder, tokenizer, _mean_pooled, device=device, batch_size=batch_size, cache_size=10_000),
        plain=plain,
    )


def _mean_pooled(output: Any, mask: Tensor) -> Tensor:
    """Mean of the last hidden states [B, T, D] over the mask [B, T] → [B, D]."""
    weights = mask.unsqueeze(-1).to(output.last_hidden_state.dtype)
    return (output.last_hidden_state * weights).sum(dim=1) / weights.sum(dim=1)


def _load_function(spec: str) -> Reward:
    """The user's own callable, from an installed package or the current folder."""
    module, _, path = spec.partition(":")
    if str(Path.cwd()) not in sys.path:  # the softspoken command, unlike python, does not look there
        sys.path.append(str(Path.cwd()))
    try:
        function: Any = functools.reduce(getattr, path.split("."), importlib.import_module(module))
    except (Exception, SystemExit) as error:  # importing runs the user's code, which can fail in any way
        raise InputError(
            f"reward {spec!r} cannot be imported ({type(error).__name__}: {error}); use {REWARDS}"
        ) from error
    if not callable(function):
        raise InputError(
            f"reward {spec!r} is not a function; it must be one of (responses, examples) that returns a list of numbers"
        )
    try:
        inspect.signature(function).bind([], [])
    except TypeError as error:
        raise InputError(f"reward {spec!r} must take (responses, examples): {error}") from error
    except ValueError:  # a built-in that does not tell
        pass
    return function


# ----------------------------------------------------------------------------------------------------- the command


def score(config: ScoreConfig, input: TextIO, output: TextIO) -> None:
    """Write a JSON line for each line of `config.file` (or of `input`, for `-`) to `config.output`, or to `output` as they are made: `text`,
    `toxicity`, the other labels.

    `toxicity` is the classifier's own label of that name or, where it has none, the one that the spec names.
    """
    if config.output is None:
        _score(config, input, output, None)
        return
    inputs = [*([config.file] if config.file != "-" else []), config.reward]
    with LinesFile("score", asdict(config), inputs=inputs, key="toxicity") as file:
        if not file.is_finished:
            _score(config, input, output, file)


def _score(config: ScoreConfig, input: TextIO, output: TextIO, file: LinesFile | None) -> None:
    with _opened(config.file, input) as source:
        name = "standard input" if config.file == "-" else config.file
        total = _count_lines(source, name)
        judge = load_judge(
            config.reward, device=config.device, batch_size=config.batch_size, detoxify_sha256=config.detoxify_sha256
        )
        window = 1 if source.isatty() else 8 * config.batch_size  # several batches, for sorting by length to pay
        done = file.begin(window) if file else 0
        lines = islice(_lines(source, name), done, None)
        where = file or output
        with progress_bar("score", Speed("lines"), output=None if file else output) as progress:
            task = progress.add_task("score", total=total, completed=done)
            while texts := list(islice(lines, window)):
                where.writelines(_json_lines(judge, texts))
                where.flush()
                progress.advance(task, len(texts))
    if file:
        file.finish()
    if judge.truncated:
        log.warning(
            "%d lines were longer than %s takes (%d tokens) and were cut",
            judge.truncated,
            judge.name,
            judge.model.max_tokens,
        )


def _json_lines(judge: Judge, texts: list[str]) -> Iterator[str]:
    main = "toxicity" if "toxicity" in judge.labels else judge.labels[0]
    scores = judge(texts)
    for row, text in enumerate(texts):
        others = {label: round(scores[label][row], 6) for label in judge.labels if label != main}
        yield json.dumps({"text": text, "toxicity": round(scores[main][row], 6), **others}, ensure_ascii=False) + "\n"


def _opened(file: str, input: TextIO) -> AbstractContextManager[IO[str]]:
    if file == "-":
        return nullcontext(input)
    if not Path(file).is_file():
        raise InputError(f"no file at {file}; give a text file with a text on each line, or - for standard input")
    if Path(file).stat().st_size == 0:
        raise InputError(f"{file} is empty; give a text file with a text on each line")
    return open_text(Path(file))


def _lines(source: IO[str], name: str) -> Iterator[str]:
    with saying_what_is_wrong(name):
        for number, line in enumerate(lines_of(source, name)):
            yield line.rstrip("\r\n").removeprefix("" if number else "\ufeff")


def _count_lines(source: IO[str], name: str) -> int | None:
    """For the progress bar; and a file that is not UTF-8 is found out before anything is written. None for a stream."""
    if not source.seekable():
        return None
    start = source.tell()
    total = sum(1 for _ in _lines(source, name))
    source.seek(start)
    return total
