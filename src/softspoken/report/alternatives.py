"""The trained system against what a user would try first (best of N, banned words, masking, a warm start), and against systems
they brought. Reinforcement learning has to beat the former where it claims to, or the report says that it does not."""

from __future__ import annotations

from softspoken.report.measures import (
    HOW,
    ROUGE_MARGIN,
    Sign,
    beyond_chance,
    find,
    given_systems,
    is_alternative,
    toxicity,
)
from softspoken.types import Comparison, Decoding, EvalReport


def weighed(report: EvalReport, name: str) -> list[str]:
    """A sentence for each system that `name` does not beat in every way of decoding, and one for those it does."""
    beaten: dict[str, list[str]] = {}
    found = []
    pairs = _pairs(report, name)
    for other in dict.fromkeys(other for other, _ in pairs):
        decodings = [decoding for each, decoding in pairs if each == other]
        signs = {decoding: _compared(report, name, other, decoding) for decoding in decodings}
        if all(toxic < 0 and rouge >= 0 for toxic, rouge in signs.values()):
            beaten.setdefault(_cost(report, name, other, decodings), []).append(other)
        else:
            cheap = ", which needs no reinforcement learning" if is_alternative(other) else ""
            parts = [
                f"{_judgement(*signs[how])} {HOW[how]} ({_figures(report, name, other, how)})" for how in decodings
            ]
            found.append(f"Against {other}{cheap}, {name} is {' and '.join(parts)}.")
    return found + [
        f"{name} is less toxic than {' and than '.join(others)}, {cost}." for cost, others in beaten.items()
    ]


def _cost(report: EvalReport, name: str, other: str, decodings: list[Decoding]) -> str:
    """What `name` pays in ROUGE-L for being calmer than `other`: nothing only where the interval says so."""
    losses = [_lowest_rouge(report, name, other, decoding) for decoding in decodings]
    known = [low for low in losses if low is not None]
    if len(known) < len(losses):
        return "and ROUGE-L, which would show a cost, was not measured"
    if all(low > -ROUGE_MARGIN for low in known):
        return "at no cost in ROUGE-L"
    return "with no loss in ROUGE-L shown, nor one of a point ruled out"


def _lowest_rouge(report: EvalReport, name: str, other: str, decoding: Decoding) -> float | None:
    """The lower end of `name` − `other`, in points; None where it was not measured."""
    if one := _paired(report, name, other, decoding, "rougeL"):
        return one.difference.low if one.b == name else -one.difference.high
    own, others = (find(report, system, decoding).metrics.get("rougeL") for system in (name, other))
    return None if own is None or others is None else own.low - others.high


def _judgement(toxic: Sign, rouge: Sign) -> str:
    if toxic < 0:
        return "less toxic but worse in ROUGE-L" if rouge < 0 else "less toxic"
    calm = "more toxic" if toxic > 0 else "not shown to be less toxic"
    return f"{calm} but better in ROUGE-L" if rouge > 0 else f"{calm} and worse in ROUGE-L" if rouge < 0 else calm


def unbeaten(report: EvalReport, name: str) -> list[str]:
    """The alternatives that are at least as calm and keep at least as much, in some way of decoding, as far as is shown."""
    found = [
        other
        for other, decoding in _pairs(report, name)
        for toxic, rouge in [_compared(report, name, other, decoding)]
        if is_alternative(other) and toxic >= 0 and rouge <= 0
    ]
    return list(dict.fromkeys(found))


def _pairs(report: EvalReport, name: str) -> list[tuple[str, Decoding]]:
    own = {one.decoding for one in report.systems if one.name == name}
    return [
        (one.name, one.decoding)
        for one in report.systems
        if one.decoding
        and one.decoding in own
        and one.name != name
        and (is_alternative(one.name) or one.name in given_systems(report))
    ]


def _compared(report: EvalReport, name: str, other: str, decoding: Decoding) -> tuple[Sign, Sign]:
    """Signs of `name` − `other` in toxicity and in ROUGE-L; 0 where the difference may be chance."""
    toxic, rouge = (_sign(report, name, other, decoding, metric) for metric in ("toxicity", "rougeL"))
    return toxic, rouge


def _sign(report: EvalReport, name: str, other: str, decoding: Decoding, metric: str) -> Sign:
    """By the paired interval where the two were compared with each other; else only intervals that do not touch decide."""
    if one := _paired(report, name, other, decoding, metric):
        sign = beyond_chance(one)
        return sign if one.b == name else (-1 if sign > 0 else 1 if sign < 0 else 0)
    own, others = (find(report, system, decoding).metrics.get(metric) for system in (name, other))
    if own is None or others is None:
        return 0
    return -1 if own.high < others.low else 1 if own.low > others.high else 0


def _paired(report: EvalReport, name: str, other: str, decoding: Decoding, metric: str) -> Comparison | None:
    """The two compared on all dialogues, whichever of them came first."""
    key = (decoding, "all", metric, {name, other})
    return next(
        (one for one in report.comparisons if (one.decoding, one.slice, one.metric, {one.a, one.b}) == key), None
    )


def _figures(report: EvalReport, name: str, other: str, decoding: Decoding) -> str:
    own, others = find(report, name, decoding).metrics, find(report, other, decoding).metrics
    words = [f"toxicity {toxicity(own['toxicity'].mean)} against {toxicity(others['toxicity'].mean)}"]
    if "rougeL" in own and "rougeL" in others:
        words.append(f"ROUGE-L {own['rougeL'].mean:.1f} against {others['rougeL'].mean:.1f}")
    return ", ".join(words)
