"""What an evaluation shows, in words that its numbers decide: it can say that no effect is shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from softspoken.report.alternatives import unbeaten, weighed
from softspoken.report.measures import (
    HOW,
    NO_BREAK,
    REWARD,
    beyond_chance,
    find,
    given_systems,
    in_sentence,
    is_alternative,
    is_kept,
    is_lost,
    mark_of,
    measure,
    of_margin,
    other_judges,
    p_of,
    reward_in_words,
    signed_as,
    slice_label,
    task_of,
    toward,
    toxicity,
    written,
)
from softspoken.tasks.task import Guard, Measure
from softspoken.types import Comparison, Decoding, EvalReport, Interval, counted

LENGTH_MARGIN = 0.25
"""Share by which the length may change without a remark."""
FEW_EXAMPLES = 100
FEWEST_GROUPS = 6
"""Of fewer, no permutation test comes below 0.05 (2 of 2⁵ is 0.06), and a bootstrap's interval is too narrow to rule anything out."""
BASE = "base"
INTERVAL = "95 % interval "
UNITS = {"points": " points", "share": " percentage points"}
DIRECTION = {"lower": "fall", "higher": "rise"}
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
    """One on the objective, one on the reward, one on each guard and one on what else was lost, each with 95 % intervals."""
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
            f"Only {counted(n, words.text, words.texts)} {'was' if n == 1 else 'were'} evaluated: differences between systems may well be "
            f"chance. Use {FEW_EXAMPLES} or more."
        )
    if report.dataset.get("truncated"):
        found.append(
            f"{report.dataset['truncated']} of {n} {words.texts} were longer than the model reads and were cut."
        )
    judged = judged_systems(report)
    for metric, what in MORE_OF.items():
        for one in _of(report, metric):
            if one.b in judged and beyond_chance(one) > 0:
                more = f"{100 * one.difference.mean:.1f} percentage points more {words.responses} {what} than {one.a}"
                found.append(f"{one.b} leaves {more} ({HOW[one.decoding]}).")
    for one in _of(report, "length"):
        if one.b in judged and beyond_chance(one) and one.ratio and abs(one.ratio.mean - 1) > LENGTH_MARGIN:
            change = 100 * (one.ratio.mean - 1)
            kind = "longer" if change > 0 else "shorter"
            found.append(
                f"{one.b}'s {words.responses} are {abs(change):.0f} % {kind} than {one.a}'s ({HOW[one.decoding]})."
            )
    return found + [remark for name in judged for remark in _disagreements(report, name)]


def _disagreements(report: EvalReport, name: str) -> list[str]:
    found = []
    fallen = {one.decoding for one in _of(report, "toxicity", name) if beyond_chance(one) < 0}
    for judge, metric in other_judges(report).items():
        for one in _of(report, metric, name):
            if one.decoding in fallen and beyond_chance(one) >= 0:
                found.append(
                    f"The judges disagree: {report.judges[0]} finds {name} less toxic ({HOW[one.decoding]}), {judge} "
                    f"does not ({_difference(one, measure(metric, report))}). A drop only one judge sees may be that judge fooled."
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
    rewarded, lost = _of(report, REWARD, name), _lost(report, name)
    gained = task.objective.gained.capitalize()
    outcome: Outcome
    if any(sign < 0 for sign in signs):
        outcome, headline = "bad", "It made things worse"
    elif not any(sign > 0 for sign in signs):
        outcome, headline = "bad", "No effect is shown"
        if not _are_enough(report):
            groups = "groups of " if _groups(report) < report.dataset["n"] else ""
            outcome, headline = "mixed", f"Too few {groups}{task.words.texts} to tell"
        elif rewarded and all(toward(one, "higher") > 0 for one in rewarded):
            label = in_sentence(measure(task.objective.metric, report))
            outcome, headline = "mixed", f"The reward rose; no {DIRECTION[task.objective.better]} in {label} is shown"
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
    elif lost:
        names = _and(list(dict.fromkeys(in_sentence(known) for known, _ in lost)))
        outcome, headline = "mixed", f"{gained}, but with a loss in {names}"
    elif as_good := unbeaten(report, name):
        outcome, headline = "mixed", f"It worked, but not better than {_and(as_good)}"
    else:
        outcome, headline = "good", "It worked"
    sentences = [
        _on_objective(report, moved),
        *_on_reward(report, rewarded),
        *_on_guards(report, name, guarded),
        *_on_losses(lost),
    ]
    return Verdict(
        name,
        outcome,
        headline,
        sentences,
        _second_opinions(report, name) + weighed(report, name),
        _figures(report, name),
    )


def _groups(report: EvalReport) -> int:
    """How many of the texts are independent; an eval.json from before this was recorded says only how many there are."""
    groups: int = report.dataset.get("groups", report.dataset["n"])
    return groups


def _are_enough(report: EvalReport) -> bool:
    return _groups(report) >= FEWEST_GROUPS


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
    if known.better == "lower" and mark_of(one, known) == "better" and one.ratio:
        return _times_lower(one.ratio)
    return _difference(one, known)


def _difference(one: Comparison, known: Measure) -> str:
    mean, ends = _change(one, known)
    return f"difference {mean}, {ends}"


def _change(one: Comparison, known: Measure) -> tuple[str, str]:
    """−3.7 percentage points, and 95 % interval −5.1 to −2.2."""
    mean, low, high = (
        signed_as(value, known).partition(NO_BREAK)[0]
        for value in (one.difference.mean, one.difference.low, one.difference.high)
    )
    return mean + UNITS.get(known.form, ""), f"{INTERVAL}{low} to {high}"


def _figures(report: EvalReport, name: str) -> list[Figure]:
    """The objective greedy, sampled, in the slice that tells most, and by the other judges; then reward, guards and the rest."""
    task = task_of(report)
    objective, part = task.objective.metric, task.telling_slice
    wanted = [(objective, "all", how, f", {how}") for how in HOW]
    if part:
        wanted += [
            (objective, part, "greedy", f" on {slice_label(part, report)[0].lower()} {task.words.texts}, greedy")
        ]
    wanted += [(metric, "all", "greedy", f" by {judge}, greedy") for judge, metric in other_judges(report).items()]
    wanted += [(metric, "all", how, f", {how}") for metric in (REWARD, *(g.metric for g in task.guards)) for how in HOW]
    worse = {(one.metric, one.decoding) for _, one in _lost(report, name)}
    wanted += [
        (metric, "all", how, f", {how}")
        for metric in task.overview
        for how in HOW
        if how == "greedy" or (metric, how) in worse
    ]
    compared: dict[tuple[str, str, str], Comparison] = {
        (one.metric, one.slice, one.decoding): one for one in report.comparisons if (one.a, one.b) == (BASE, name)
    }
    found = []
    for metric, part, decoding, label in dict.fromkeys(wanted):
        if one := compared.get((metric, part, decoding)):
            known = measure(metric, report)
            as_ratio = known.better == "lower" and known.form != "share"
            found.append(_less(report, one, label) if as_ratio else _more(one, known, label))
    return found


def _less(report: EvalReport, one: Comparison, label: str) -> Figure:
    """Of what is better when lower: 6.4× less toxic, where it is certain; the bare ratio where it may be chance."""
    objective, known = task_of(report).objective, measure(one.metric, report)
    name, less, more = in_sentence(known), f"less {in_sentence(known)}", f"more {in_sentence(known)}"
    if known.group == "Toxicity":
        name, less, more = "toxicity", "less toxic", "more toxic"
    elif one.metric == objective.metric:
        less, more = objective.gained, objective.lost
    ratio, mark = one.ratio, mark_of(one, known)
    if ratio is None or ratio.mean == 0:
        mean, ends = _change(one, known)
        return Figure(mean, f"{name}{label}", ends.removeprefix(INTERVAL), mark)
    if mark == "better":
        most = _times(ratio.low) if ratio.low else "∞"
        return Figure(f"{_times(ratio.mean)}×", f"{less}{label}", f"{_times(ratio.high)} to {most}", mark)
    words = more if mark else f"the {name} of base"
    return Figure(f"{ratio.mean:.2f}×", f"{words}{label}", f"{ratio.low:.2f} to {ratio.high:.2f}", mark)


def _more(one: Comparison, known: Measure, label: str) -> Figure:
    """A difference: of what is better when higher, or no way by itself, and of every share."""
    mean, ends = _change(one, known)
    number, _, unit = mean.partition(" ")
    name = f"points of {in_sentence(known)}" if known.form == "points" else in_sentence(known)
    return Figure(
        f"{number} pp" if unit and known.form == "share" else number,
        f"{name}{label}",
        ends.removeprefix(INTERVAL),
        mark_of(one, known),
    )


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


def _on_reward(report: EvalReport, comparisons: list[Comparison]) -> list[str]:
    """None where it was not measured."""
    if not comparisons:
        return []
    known, signs = measure(REWARD, report), [toward(one, "higher") for one in comparisons]
    if any(sign < 0 for sign in signs):
        opening = "The reward falls"
    elif all(sign > 0 for sign in signs):
        opening = "The reward rises"
    else:
        opening = "Whether the reward rises depends on the decoding" if any(signs) else "No rise of the reward is shown"
    changes = [
        f"from {written(known, _mean(report, one.a, one))} to {written(known, _mean(report, one.b, one))} {HOW[one.decoding]} "
        f"({_difference(one, known)})"
        for one in comparisons
    ]
    return [f"{opening}: the mean of {reward_in_words(report.config.get('reward'))} goes {' and '.join(changes)}."]


def _lost(report: EvalReport, name: str) -> list[tuple[Measure, Comparison]]:
    """What the task watches beside its objective and guards and is worse beyond chance."""
    watched = [
        (measure(metric, report), one) for metric in task_of(report).overview for one in _of(report, metric, name)
    ]
    return [(known, one) for known, one in watched if mark_of(one, known) == "worse"]


def _on_losses(lost: list[tuple[Measure, Comparison]]) -> list[str]:
    said = []
    for known, one in lost:
        mean, ends = _change(one, known)
        said.append(f"{in_sentence(known)} changes by {mean} {HOW[one.decoding]} ({ends}, {p_of(one)})")
    return [f"Lost beyond chance: {_and(said)}."] if said else []


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
    if not _are_enough(report):
        opening = f"Whether the {responses} {guard.kept} cannot be told from so few"
    elif guard.better and all(toward(one, guard.better) > 0 for one in comparisons):
        opening = f"The {responses} {guard.gained}"
    elif all(is_kept(guard, one.difference) for one in comparisons):
        worse = guard.better and any(toward(one, guard.better) < 0 for one in comparisons)
        opening = (
            f"The {responses} {guard.lost}, though by less than {margin}"
            if worse
            else f"The {responses} {guard.kept}, to within {margin}"
        )
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
        mean, ends = _change(one, known)
        changes.append(f"{mean} ({ends}) {HOW[one.decoding]}{length}")
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
    change = round(100 * (ratio.mean - 1))
    return f"{change:+} %".replace("-", "−") if change else "0 %"
