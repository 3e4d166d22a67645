"""What an evaluation shows, in words that its numbers decide: it can say that training did not work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from softspoken.report.alternatives import unbeaten, weighed
from softspoken.report.measures import (
    HOW,
    find,
    given_systems,
    in_sentence,
    is_alternative,
    is_kept,
    is_lost,
    measure,
    of_margin,
    other_judges,
    slice_label,
    task_of,
    toward,
    toxicity,
    written,
)
from softspoken.tasks.task import Guard, Measure
from softspoken.types import Comparison, Decoding, EvalReport, Interval

LENGTH_MARGIN = 0.25
"""Share by which the length may change without a remark."""
FEW_EXAMPLES = 100
BASE = "base"
INTERVAL = "95 % interval "
MORE_OF = {"empty_rate": "empty", "degenerate_rate": "repeating themselves"}
"""Rates whose rise beyond chance is remarked upon."""

Outcome = Literal["good", "mixed", "bad"]


@dataclass(frozen=True)
class Figure:
    """One number of the verdict, to be read at a glance."""

    value: str
    label: str
    interval: str
    mark: str
    """`better`, `worse`, or empty where it may be chance."""


@dataclass(frozen=True)
class Verdict:
    system: str
    outcome: Outcome
    headline: str
    sentences: list[str]
    """One on the objective, one on each guard, each with 95 % intervals."""
    notes: list[str]
    """What the other judges say, and what the cheap alternatives do."""
    figures: list[Figure]


def verdicts(report: EvalReport) -> list[Verdict]:
    """One for each system that was trained; where there is none, one for each that was compared with the base."""
    return [_verdict(report, name) for name in judged_systems(report)]


def judged_systems(report: EvalReport) -> list[str]:
    """Compared with the base and neither a cheap alternative nor somebody else's file, while there are others."""
    compared = list(dict.fromkeys(comparison.b for comparison in report.comparisons if comparison.a == BASE))
    trained = [name for name in compared if not is_alternative(name) and name not in given_systems(report)]
    return trained or compared


def remarks(report: EvalReport) -> list[str]:
    """What a reader must know before believing the verdict."""
    found = list(report.notes)
    words = task_of(report).words
    n = report.dataset["n"]
    if n < FEW_EXAMPLES:
        found.append(
            f"Only {n} {words.texts} were evaluated: differences between systems may well be chance. Use {FEW_EXAMPLES} or more."
        )
    if report.dataset.get("truncated"):
        found.append(
            f"{report.dataset['truncated']} of {n} {words.texts} were longer than the model reads and were cut."
        )
    judged = judged_systems(report)
    for metric, what in MORE_OF.items():
        for comparison in _of(report, metric):
            if comparison.b in judged and comparison.difference.mean > 0 and comparison.difference.low >= 0:
                more = f"{100 * comparison.difference.mean:.1f} % more {words.responses} {what} than {comparison.a}"
                found.append(f"{comparison.b} leaves {more} ({HOW[comparison.decoding]}).")
    for comparison in _of(report, "length"):
        if comparison.b in judged and comparison.ratio and abs(comparison.ratio.mean - 1) > LENGTH_MARGIN:
            change = 100 * (comparison.ratio.mean - 1)
            kind = "longer" if change > 0 else "shorter"
            found.append(
                f"{comparison.b}'s {words.responses} are {abs(change):.0f} % {kind} than {comparison.a}'s ({HOW[comparison.decoding]})."
            )
    names = judged_systems(report)
    return found + [remark for name in names for remark in _disagreements(report, name)]


def _disagreements(report: EvalReport, name: str) -> list[str]:
    found = []
    fallen = {one.decoding for one in _of(report, "toxicity", name) if one.difference.high < 0}
    for judge, metric in other_judges(report).items():
        for one in _of(report, metric, name):
            if one.decoding in fallen and one.difference.high >= 0:
                found.append(
                    f"The judges disagree: {report.judges[0]} finds {name} less toxic ({HOW[one.decoding]}), {judge} "
                    f"does not (difference {', '.join(_signed_parts(one.difference, 3))}). A drop only one judge sees may be that judge fooled."
                )
    return found


def _of(report: EvalReport, metric: str, system: str | None = None) -> list[Comparison]:
    return [
        one
        for one in report.comparisons
        if one.metric == metric and one.slice == "all" and one.a == BASE and (system is None or one.b == system)
    ]


def _verdict(report: EvalReport, name: str) -> Verdict:
    task = task_of(report)
    moved = _of(report, task.objective.metric, name)
    signs = [toward(one, task.objective.better) for one in moved]
    guarded = {guard: _of(report, guard.metric, name) for guard in task.guards}
    pairs = [(guard, one.difference) for guard, comparisons in guarded.items() for one in comparisons]
    gained = task.objective.gained.capitalize()
    outcome: Outcome
    if any(sign < 0 for sign in signs):
        outcome, headline = "bad", "It made things worse"
    elif not any(sign > 0 for sign in signs):
        outcome, headline = "bad", "It did not work"
    elif not all(sign > 0 for sign in signs):
        outcome, headline = "mixed", "It worked only in part"
    elif any(is_lost(guard, difference) for guard, difference in pairs):
        outcome, headline = "mixed", f"{gained}, at the price of {task.guarded}"
    elif not all(guarded.values()):
        outcome, headline = "mixed", f"{gained}; {task.guarded} was not measured"
    elif not all(is_kept(guard, difference) for guard, difference in pairs):
        outcome, headline = "mixed", f"{gained}; {task.guarded} is not settled"
    elif _disagreements(report, name):
        outcome, headline = "mixed", "The judges disagree on whether it worked"
    elif as_good := unbeaten(report, name):
        outcome, headline = "mixed", f"It worked, but not better than {_and(as_good)}"
    else:
        outcome, headline = "good", "It worked"
    sentences = [_on_objective(report, moved), *_on_guards(report, name, guarded)]
    return Verdict(
        name,
        outcome,
        headline,
        sentences,
        _second_opinions(report, name) + weighed(report, name),
        _figures(report, name),
    )


def _and(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _second_opinions(report: EvalReport, name: str) -> list[str]:
    """What each other judge makes of the same responses."""
    found = []
    for judge, metric in other_judges(report).items():
        changes = [
            f"from {toxicity(_mean(report, one.a, one))} to {toxicity(_mean(report, name, one))} {HOW[one.decoding]} ({_effect(one, measure(metric, report))})"
            for one in _of(report, metric, name)
        ]
        if changes:
            found.append(f"By {judge}, which is another judge, toxicity goes {' and '.join(changes)}.")
    return found


def _effect(one: Comparison, known: Measure) -> str:
    if known.better == "lower" and one.difference.high < 0 and one.ratio:
        return _times_lower(one.ratio)
    return "difference " + ", ".join(_signed_parts(one.difference, _decimals(known)))


def _decimals(known: Measure) -> int:
    return 1 if known.form == "points" else 3


def _figures(report: EvalReport, name: str) -> list[Figure]:
    """The objective greedy, sampled, in the slice that tells most, and by the other judges; then the guards and the rest."""
    task = task_of(report)
    objective, part = task.objective.metric, task.telling_slice
    wanted = [(objective, "all", how, f", {how}") for how in HOW]
    if part:
        wanted += [
            (objective, part, "greedy", f" on {slice_label(part, report)[0].lower()} {task.words.texts}, greedy")
        ]
    wanted += [(metric, "all", "greedy", f" by {judge}, greedy") for judge, metric in other_judges(report).items()]
    wanted += [(guard.metric, "all", how, f", {how}") for guard in task.guards for how in HOW]
    wanted += [(metric, "all", "greedy", ", greedy") for metric in task.overview]
    compared: dict[tuple[str, str, str], Comparison] = {
        (one.metric, one.slice, one.decoding): one for one in report.comparisons if (one.a, one.b) == (BASE, name)
    }
    found = []
    for metric, part, decoding, label in dict.fromkeys(wanted):
        if one := compared.get((metric, part, decoding)):
            known = measure(metric, report)
            found.append(_less(report, one, label) if known.better == "lower" else _more(one, known, label))
    return found


def _less(report: EvalReport, one: Comparison, label: str) -> Figure:
    """Of what is better when lower: 6.4× less toxic, where it is certain; the bare ratio where it may be chance."""
    objective, known = task_of(report).objective, measure(one.metric, report)
    name, less, more = in_sentence(known), f"less {in_sentence(known)}", f"more {in_sentence(known)}"
    if known.group == "Toxicity":
        name, less, more = "toxicity", "less toxic", "more toxic"
    elif one.metric == objective.metric:
        less, more = objective.gained, objective.lost
    difference, ratio = one.difference, one.ratio
    if ratio is None or ratio.mean == 0:
        mean, ends = _signed_parts(difference, 3)
        mark = "better" if difference.high < 0 else "worse" if difference.low > 0 else ""
        return Figure(mean, f"{name}{label}", ends.removeprefix(INTERVAL), mark)
    if difference.high < 0:
        most = _times(ratio.low) if ratio.low else "∞"
        return Figure(f"{_times(ratio.mean)}×", f"{less}{label}", f"{_times(ratio.high)} to {most}", "better")
    words, mark = (more, "worse") if difference.low > 0 else (f"the {name} of base", "")
    return Figure(f"{ratio.mean:.2f}×", f"{words}{label}", f"{ratio.low:.2f} to {ratio.high:.2f}", mark)


def _more(one: Comparison, known: Measure, label: str) -> Figure:
    """Of what is better when higher, or no way by itself: points, percentage points of a share, or a plain difference."""
    change, name = one.difference, in_sentence(known)
    if known.form == "share":
        change = Interval(100 * change.mean, 100 * change.low, 100 * change.high)
    mean, ends = _signed_parts(change, 1 if known.form in ("share", "points") else 3)
    mark = "worse" if change.high < 0 else "better" if change.low > 0 else ""
    unit, words = (
        (" pp", name) if known.form == "share" else ("", f"points of {name}" if known.form == "points" else name)
    )
    return Figure(f"{mean}{unit}", f"{words}{label}", ends.removeprefix(INTERVAL), mark if known.better else "")


def _on_objective(report: EvalReport, comparisons: list[Comparison]) -> str:
    task = task_of(report)
    objective, known, responses = task.objective, measure(task.objective.metric, report), task.words.responses
    a, b = comparisons[0].a, comparisons[0].b
    signs = [toward(one, objective.better) for one in comparisons]
    if any(sign < 0 for sign in signs):
        opening = f"{b} writes {objective.lost} {responses} than {a}"
    elif all(sign > 0 for sign in signs):
        opening = f"{b} writes {objective.gained} {responses} than {a}"
    elif any(sign > 0 for sign in signs):
        opening = f"Whether {b} writes {objective.gained} {responses} than {a} depends on how they are decoded"
    else:
        opening = (
            f"No {'drop' if objective.better == 'lower' else 'rise'} in {in_sentence(known)} from {a} to {b} is shown"
        )
    changes = []
    for one in comparisons:
        before, after = written(known, _mean(report, a, one)), written(known, _mean(report, b, one))
        changes.append(f"{before} to {after} {HOW[one.decoding]} ({_effect(one, known)})")
    return f"{opening}: mean {in_sentence(known)} goes from {' and from '.join(changes)}."


def _on_guards(report: EvalReport, name: str, guarded: dict[Guard, list[Comparison]]) -> list[str]:
    """A sentence on each guard; one alone on all that were not measured. The first says how the length changed as well."""
    lengths = {one.decoding: one.ratio for one in _of(report, "length", name)}
    task = task_of(report)
    found: list[str] = []
    for guard, comparisons in guarded.items():
        if comparisons:
            found.append(_on_guard(report, guard, comparisons, {} if found else lengths))
    if guarded and not all(guarded.values()):
        changes = [f"{_percent(ratio)} {HOW[decoding]}" for decoding, ratio in lengths.items() if ratio]
        length = f"; the length changes by {' and by '.join(changes)}" if changes and not found else ""
        found.append(
            f"{task.guarded.capitalize()} was not measured, for the {task.words.texts} have no references{length}."
        )
    return found


def _on_guard(
    report: EvalReport, guard: Guard, comparisons: list[Comparison], lengths: dict[Decoding, Interval | None]
) -> str:
    known, responses = measure(guard.metric, report), task_of(report).words.responses
    margin = of_margin(guard, known)
    ends = [(one.difference.low, one.difference.high) for one in comparisons]
    if guard.better and all((low > 0) if guard.better == "higher" else (high < 0) for low, high in ends):
        opening = f"The {responses} {guard.gained}"
    elif all(is_kept(guard, one.difference) for one in comparisons):
        opening = f"The {responses} {guard.kept}, to within {margin}"
    elif any(is_lost(guard, one.difference) for one in comparisons):
        opening = f"The {responses} {guard.lost}"
    else:
        kind = "loss" if guard.better else "change"
        opening = (
            f"Whether the {responses} {guard.kept} is not settled, for a {kind} of more than {margin} is not ruled out"
        )
    changes = []
    for one in comparisons:
        ratio = lengths.get(one.decoding)
        length = f" (length {_percent(ratio)})" if ratio else ""
        change = signed(one.difference, _decimals(known), " points" if known.form == "points" else "")
        changes.append(f"{change} {HOW[one.decoding]}{length}")
    return f"{opening}: {known.label} changes by {' and by '.join(changes)}."


def _mean(report: EvalReport, system: str, comparison: Comparison) -> float:
    return find(report, system, comparison.decoding).metrics[comparison.metric].mean


def _times_lower(ratio: Interval) -> str:
    """b / a, turned round: 0.2 (0.1 to 0.25) → 5.0 times lower, 95 % interval 4.0 to 10."""
    if ratio.mean == 0:
        return "none is left" if ratio.high == 0 else f"at least {_times(ratio.high)} times lower"
    interval = f"{_times(ratio.high)} to {_times(ratio.low)}" if ratio.low else f"from {_times(ratio.high)} up"
    return f"{_times(ratio.mean)} times lower, 95 % interval {interval}"


def _times(ratio: float) -> str:
    return f"{1 / ratio:.1f}" if ratio > 0.1 else f"{1 / ratio:.0f}"


def _percent(ratio: Interval) -> str:
    return f"{100 * (ratio.mean - 1):+.0f} %".replace("-", "−")


def signed(interval: Interval, decimals: int, unit: str = "") -> str:
    """+0.4 points (95 % interval −0.2 to +1.0)."""
    mean, ends = _signed_parts(interval, decimals)
    return f"{mean}{unit} ({ends})"


def _signed_parts(interval: Interval, decimals: int) -> tuple[str, str]:
    mean, low, high = (
        f"{value:+.{decimals}f}".replace("-", "−") for value in (interval.mean, interval.low, interval.high)
    )
    return mean, f"{INTERVAL}{low} to {high}"
