"""The trained system against what a user would try first (best of N, banned words, masking, a warm start), and against systems
they brought. Reinforcement learning has to beat the former where it claims to, or the report says that it does not."""

from __future__ import annotations

from softspoken.report.measures import (
    HOW,
    Sign,
    find,
    given_systems,
    in_sentence,
    is_alternative,
    measure,
    of_margin,
    task_of,
    toward,
    written,
)
from softspoken.tasks.task import Guard
from softspoken.types import Comparison, Decoding, EvalReport

Signs = tuple[Sign, dict[Guard, Sign]]
"""In the objective and in each guard: 1 where the trained system is better beyond chance, −1 where it is worse."""


def weighed(report: EvalReport, name: str) -> list[str]:
    """A sentence for each system that `name` does not beat in every way of decoding, and one for those it does."""
    beaten: dict[str, list[str]] = {}
    found = []
    pairs = _pairs(report, name)
    gained = task_of(report).objective.gained
    for other in dict.fromkeys(other for other, _ in pairs):
        decodings = [decoding for each, decoding in pairs if each == other]
        signs = {decoding: _compared(report, name, other, decoding) for decoding in decodings}
        if all(gain > 0 and min(kept.values(), default=0) >= 0 for gain, kept in signs.values()):
            beaten.setdefault(_cost(report, name, other, decodings), []).append(other)
        else:
            cheap = ", which needs no reinforcement learning" if is_alternative(other) else ""
            parts = [
                f"{_judgement(report, *signs[how])} {HOW[how]} ({_figures(report, name, other, how)})"
                for how in decodings
            ]
            found.append(f"Against {other}{cheap}, {name} is {' and '.join(parts)}.")
    return found + [
        f"{name} is {gained} than {' and than '.join(others)}{f', {cost}' if cost else ''}."
        for cost, others in beaten.items()
    ]


def _one_sided(report: EvalReport) -> list[Guard]:
    """What another system may have more of: a guard that goes both ways holds against the base alone."""
    return [guard for guard in task_of(report).guards if guard.better]


def _cost(report: EvalReport, name: str, other: str, decodings: list[Decoding]) -> str:
    """What `name` pays in the guards for being better than `other`: nothing only where the interval says so."""
    free, parts, unknown = [], [], []
    for guard in _one_sided(report):
        known = measure(guard.metric, report)
        losses = [_lowest(report, name, other, decoding, guard) for decoding in decodings]
        if any(low is None for low in losses):
            unknown.append(in_sentence(known))
        elif all(low is not None and low > -guard.margin for low in losses):
            free.append(in_sentence(known))
        else:
            margin = of_margin(guard, known).removesuffix(f" of {in_sentence(known)}")
            parts.append(f"with no loss in {in_sentence(known)} shown, nor one of {margin} ruled out")
    if free:
        parts.insert(0, f"at no cost in {' or '.join(free)}")
    if unknown:
        parts.append(f"and {' and '.join(unknown)}, which would show a cost, was not measured")
    return ", ".join(parts)


def _lowest(report: EvalReport, name: str, other: str, decoding: Decoding, guard: Guard) -> float | None:
    """The lower end of what `name` has more of than `other`, the guard's good side up; None where it was not measured."""
    if one := _paired(report, name, other, decoding, guard.metric):
        low, high = one.difference.low, one.difference.high
        low, high = (low, high) if one.b == name else (-high, -low)
    else:
        own, others = (find(report, system, decoding).metrics.get(guard.metric) for system in (name, other))
        if own is None or others is None:
            return None
        low, high = own.low - others.high, own.high - others.low
    return low if guard.better == "higher" else -high


def _judgement(report: EvalReport, gain: Sign, kept: dict[Guard, Sign]) -> str:
    objective = task_of(report).objective
    worse, better = (
        " and ".join(in_sentence(measure(guard.metric, report)) for guard, sign in kept.items() if sign == wanted)
        for wanted in (-1, 1)
    )
    label = in_sentence(measure(objective.metric, report))
    gained, lost = (
        f"{word} in {label}" if word in ("better", "worse") else word for word in (objective.gained, objective.lost)
    )
    if gain > 0:
        return f"{gained} but worse in {worse}" if worse else gained
    opening = lost if gain < 0 else f"not shown to be {gained}"
    return f"{opening} but better in {better}" if better else f"{opening} and worse in {worse}" if worse else opening


def unbeaten(report: EvalReport, name: str) -> list[str]:
    """The alternatives that are at least as good and keep at least as much, in some way of decoding, as far as is shown."""
    found = [
        other
        for other, decoding in _pairs(report, name)
        for gain, kept in [_compared(report, name, other, decoding)]
        if is_alternative(other) and gain <= 0 and max(kept.values(), default=0) <= 0
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


def _compared(report: EvalReport, name: str, other: str, decoding: Decoding) -> Signs:
    """`name` against `other`; 0 where the difference may be chance."""
    objective = task_of(report).objective
    kept = {guard: _sign(report, name, other, decoding, guard.metric, guard.better) for guard in _one_sided(report)}
    return _sign(report, name, other, decoding, objective.metric, objective.better), kept


def _sign(report: EvalReport, name: str, other: str, decoding: Decoding, metric: str, better: str) -> Sign:
    """By the paired interval where the two were compared with each other; else only intervals that do not touch decide."""
    if one := _paired(report, name, other, decoding, metric):
        return _turned(toward(one, better), one.b == name)
    own, others = (find(report, system, decoding).metrics.get(metric) for system in (name, other))
    if own is None or others is None:
        return 0
    higher: Sign = -1 if own.high < others.low else 1 if own.low > others.high else 0
    return _turned(higher, better == "higher")


def _turned(sign: Sign, as_it_is: bool) -> Sign:
    return sign if as_it_is else (-1 if sign > 0 else 1 if sign < 0 else 0)


def _paired(report: EvalReport, name: str, other: str, decoding: Decoding, metric: str) -> Comparison | None:
    """The two compared on all examples, whichever of them came first."""
    key = (decoding, "all", metric, {name, other})
    return next(
        (one for one in report.comparisons if (one.decoding, one.slice, one.metric, {one.a, one.b}) == key), None
    )


def _figures(report: EvalReport, name: str, other: str, decoding: Decoding) -> str:
    own, others = find(report, name, decoding).metrics, find(report, other, decoding).metrics
    metrics = [task_of(report).objective.metric, *(guard.metric for guard in _one_sided(report))]
    return ", ".join(
        f"{in_sentence(known)} {written(known, own[metric].mean)} against {written(known, others[metric].mean)}"
        for metric in metrics
        for known in [measure(metric, report)]
        if metric in own and metric in others
    )
