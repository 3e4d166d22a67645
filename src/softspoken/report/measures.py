"""What the figures of an evaluation are called, what they mean, and which way is better: the words of every table and chart."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import PurePath
from typing import Literal

from softspoken.tasks.summarization import TASK as SUMMARIZATION
from softspoken.tasks.task import Form, Guard, Measure, Task, retold
from softspoken.types import Comparison, EvalReport, Interval, SystemResult

Sign = Literal[-1, 0, 1]
NO_BREAK = "\N{NO-BREAK SPACE}"
HUMAN, BASE, TUNED = "human", "base", "tuned"
DECODINGS = {"greedy": "Decoded greedily", "sampled": "Sampled at temperature 1"}
HOW = {"greedy": "decoded greedily", "sampled": "sampled at temperature 1"}
ALPHA = 0.05
TOXICITY, QUALITY, FORM, LABELS, OTHER = "Toxicity", "Quality", "Form", "The judge's other labels", "Other figures"
REWARD = "reward"
"""The metric that holds what training raised."""
GROUPS = ("Reward", TOXICITY, QUALITY, FORM, LABELS, OTHER)


def toxicity(value: float) -> str:
    """Three decimals, four where there would be little left."""
    return f"{value:.4f}" if 0 < abs(value) < 0.01 else f"{value:.3f}"


def _points(value: float) -> str:
    return f"{value:.1f}"


def _share(value: float) -> str:
    return f"{100 * value:.1f}{NO_BREAK}%"


def _fraction(value: float) -> str:
    return f"{value:.3f}"


def _number(value: float) -> str:
    return toxicity(value) if abs(value) < 10 else f"{value:.1f}"


FORMS: dict[Form, Callable[[float], str]] = {
    "probability": toxicity,
    "points": _points,
    "share": _share,
    "fraction": _fraction,
    "number": _number,
}

MEASURES = {
    "toxicity": Measure("Toxicity", "mean probability, by the first judge, that a {response} is toxic", "probability", "lower", TOXICITY),
    "toxic_rate": Measure("Toxic rate", "share of {responses} the first judge gives more than 0.5", "share", "lower", TOXICITY),
    "toxicity_p99": Measure("Toxicity, 99th percentile", "one {response} in a hundred is more toxic than this", "probability", "lower", TOXICITY),
    "expected_max_toxicity": Measure("Expected maximum toxicity", "mean over {texts} of the worst among their samples (Gehman et al. 2020)", "probability", "lower", TOXICITY),
    "toxicity_probability": Measure("Toxicity probability", "share of {texts} with a toxic {response} among their samples (Gehman et al. 2020)", "share", "lower", TOXICITY),
    "rouge1": Measure("ROUGE-1", "words shared with the reference, in points", "points", "higher", QUALITY),
    "rouge2": Measure("ROUGE-2", "word pairs shared with the reference, in points", "points", "higher", QUALITY),
    "rougeL": Measure("ROUGE-L", "longest common subsequence with the reference, in points", "points", "higher", QUALITY),
    "rougeLsum": Measure("ROUGE-Lsum", "ROUGE-L sentence by sentence, in points", "points", "higher", QUALITY),
    "rougeL_nearer": Measure("ROUGE-L, nearer reference", "against whichever is nearer, the calm reference or the literal one", "points", "higher", QUALITY),
    "chrf": Measure("chrF", "character n-grams shared with the reference, in points", "points", "higher", QUALITY),
    "similarity_reference": Measure("Similarity to reference", "cosine of the sentence embeddings; 1 is the same meaning", "fraction", "higher", QUALITY),
    "length": Measure("Length", "words in a {response}", "points", "", FORM),
    "length_ratio": Measure("Length ratio", "words in the {response} for each word of the reference", "fraction", "", FORM),
    "empty_rate": Measure("Empty", "share of {responses} with no text", "share", "lower", FORM),
    "truncated_rate": Measure("Truncated", "share of {responses} that the length limit cut off", "share", "lower", FORM),
    "degenerate_rate": Measure("Degenerate", "share of {responses} that say three words in a row three times or more", "share", "lower", FORM),
    "distinct_1": Measure("Distinct-1", "different words for each word written", "fraction", "", FORM),
    "distinct_2": Measure("Distinct-2", "different word pairs for each pair written", "fraction", "", FORM),
    "copied_share": Measure("Copied", "share of the {response}'s 4-grams that stand in the {text}", "share", "", FORM),
}  # fmt: skip
LABEL_NAMES = {
    "severe_toxicity": "Severe toxicity",
    "obscene": "Obscene",
    "threat": "Threat",
    "insult": "Insult",
    "identity_attack": "Identity attack",
    "sexual_explicit": "Sexually explicit",
}
JUDGES = "judges"
"""Stands for the toxicity by every judge but the first one."""
SIMILAR_TO_TEXT = Measure("Similarity to {text}", "cosine of the embeddings of {response} and {text}", "fraction", "higher", QUALITY)  # fmt: skip


def reward_in_words(reward: str | dict[str, float] | None) -> str:
    if isinstance(reward, dict):
        return " + ".join(name if weight == 1 else f"{weight:g}*{name}" for name, weight in reward.items())
    return reward or ""


def task_of(report: EvalReport) -> Task:
    """What the report's task said of itself; before there were tasks all were summaries."""
    return retold(report.task) if report.task else SUMMARIZATION


def overview(report: EvalReport) -> list[str]:
    """Columns of the table of systems: those that decide first, for a phone shows no more without scrolling."""
    task = task_of(report)
    guards = [guard.metric for guard in task.guards]
    return _once(
        task.objective.metric, REWARD, *guards, JUDGES, "toxic_rate", *task.overview, "similarity_reference", "length"
    )


def sliced(report: EvalReport) -> list[str]:
    """Metrics that have a table of the parts of the examples."""
    task = task_of(report)
    guards = [guard.metric for guard in task.guards]
    return _once(task.objective.metric, REWARD, JUDGES, "toxic_rate", *guards, *task.overview, "length")


def _once(*metrics: str) -> list[str]:
    return list(dict.fromkeys(metrics))


def written(known: Measure, value: float) -> str:
    return FORMS[known.form](value)


def scale_of(known: Measure) -> float | None:
    """The largest value there is; None where there is none."""
    return {"points": 100.0, "number": None}.get(known.form, 1.0)


def in_sentence(known: Measure) -> str:
    """Its label where no capital is due: toxicity, but ROUGE-L and chrF and J."""
    plain = known.label == known.label.capitalize() and len(known.label) > 1
    return known.label.lower() if plain else known.label


def of_margin(guard: Guard, known: Measure) -> str:
    """The guard's margin in words: a point of ROUGE-L."""
    if known.form != "points":
        return f"{guard.margin:g} of {in_sentence(known)}"
    return f"{'a point' if guard.margin == 1 else f'{guard.margin:g} points'} of {known.label}"


def toward(one: Comparison, better: str) -> Sign:
    """1 where b is better than a beyond chance, −1 where it is worse, by the metric's good side."""
    sign = beyond_chance(one)
    if better == "lower":
        return -1 if sign > 0 else 1 if sign < 0 else 0
    return sign


def is_kept(guard: Guard, difference: Interval) -> bool:
    """Whether a loss of the margin is ruled out."""
    return all(end < guard.margin for end in _losses(guard, difference))


def is_lost(guard: Guard, difference: Interval) -> bool:
    """Whether a loss of the margin is certain."""
    low, high = sorted((difference.low, difference.high))
    certain = {"higher": -high, "lower": low, "": max(low, -high)}[guard.better]
    return certain > guard.margin


def _losses(guard: Guard, difference: Interval) -> list[float]:
    """The most that may have been lost, on each side that is guarded."""
    down, up = -difference.low, difference.high
    return {"higher": [down], "lower": [up], "": [down, up]}[guard.better]


def measure(metric: str, report: EvalReport) -> Measure:
    """Its own entry or, where it has none, what its name says: another judge's toxicity, a label, or just a figure."""
    task = task_of(report)
    known = _measure(metric, report, task)
    return replace(known, label=_filled(known.label, task), explanation=_filled(known.explanation, task))


def measure_of(metric: str, task: Task) -> Measure:
    """What is known of it without an evaluation, which knows the reward and the judges."""
    plain = (
        Measure("Reward", "what training raises", "number", "higher", "Reward") if metric == REWARD else Measure(metric)
    )
    known = task.measures.get(metric) or MEASURES.get(metric) or plain
    return replace(known, label=_filled(known.label, task), explanation=_filled(known.explanation, task))


def _filled(sentence: str, task: Task) -> str:
    for name, word in asdict(task.words).items():
        sentence = sentence.replace(f"{{{name}}}", word)
    return sentence


def _measure(metric: str, report: EvalReport, task: Task) -> Measure:
    if metric in task.measures:
        return task.measures[metric]
    if metric == REWARD:
        return Measure(
            "Reward",
            f"what training raises: {reward_in_words(report.config.get('reward'))}",
            "number",
            "higher",
            "Reward",
        )
    if metric in MEASURES:
        return MEASURES[metric]
    if metric == f"similarity_{task.words.text}":
        return SIMILAR_TO_TEXT
    judge = metric.removeprefix("judge:")
    if judge in report.judges:
        return Measure(f"Toxicity by {judge}", "mean of this judge's own main label", "probability", "lower", TOXICITY)
    if metric in LABEL_NAMES:
        return Measure(
            LABEL_NAMES[metric], "mean probability of this label, by the first judge", "probability", "lower", LABELS
        )
    for judge in report.judges:
        if metric.startswith((f"{judge}:", f"judge:{judge}:")):
            label = metric.removeprefix("judge:").removeprefix(f"{judge}:")
            return Measure(
                f"{label} by {judge}", "mean probability of this label, by this judge", "probability", "", LABELS
            )
    return Measure(metric)


def metrics_of(report: EvalReport) -> list[str]:
    """All that any system has, the groups in their order and within each the known ones first."""
    found = dict.fromkeys(metric for system in report.systems for metric in system.metrics)
    known = _order(report)
    groups = list(dict.fromkeys([*(one.group for one in task_of(report).measures.values()), *GROUPS]))
    groups.sort(key=lambda group: 1 + GROUPS.index(group) if group in GROUPS else 0)  # the task's own headings first
    return sorted(
        found,
        key=lambda metric: (
            groups.index(measure(metric, report).group),
            known.index(metric) if metric in known else len(known),
        ),
    )


def _order(report: EvalReport) -> list[str]:
    """Every metric that has a name; the task's own of a known group after its qualities, as the form of a text is no news."""
    names = list(MEASURES)
    place = names.index("length")
    task = task_of(report)
    own = [f"similarity_{task.words.text}", *(name for name in task.measures if name not in names)]
    return [*names[:place], *own, *names[place:], *LABEL_NAMES]


def other_judges(report: EvalReport) -> dict[str, str]:
    """The judges after the first one: name → the metric that holds its toxicity."""
    there = {metric for system in report.systems for metric in system.metrics}
    there |= {one.metric for one in report.comparisons}
    return {judge: metric for judge in report.judges[1:] for metric in (f"judge:{judge}", judge) if metric in there}


def beyond_chance(one: Comparison) -> Sign:
    """The sign of b − a where both the interval and the permutation test rule out 0, else 0: a bootstrap of a few groups is
    too narrow, and of one group it has no width at all."""
    if not one.p_value < ALPHA:
        return 0
    return -1 if one.difference.high < 0 else 1 if one.difference.low > 0 else 0


def mark_of(one: Comparison, known: Measure) -> Literal["better", "worse", ""]:
    """Of a change: empty where it may be chance or the metric has no good side. Tables, tiles and sentences all go by it."""
    sign = toward(one, known.better) if known.better else 0
    return "better" if sign > 0 else "worse" if sign < 0 else ""


def signed_as(value: float, known: Measure) -> str:
    """+0.4, −0.012 or, of a share, −3.7 pp; no sign where nothing is left of it as it is written."""
    text = written(known, abs(value)).replace("%", "pp")
    if not any(digit in text for digit in "123456789"):
        return text
    return ("+" if value > 0 else "−") + text


def range_of(low: str, to: str, high: str) -> str:
    """The unit once: 2.3 – 8.1 %."""
    return f"{low.partition(NO_BREAK)[0]} {to} {high}"


def p_of(one: Comparison) -> str:
    return f"p = {one.p_value:.3f}" if one.p_value >= 0.001 else "p < 0.001"


def is_alternative(name: str) -> bool:
    """A way to better responses that needs no reinforcement learning: `evaluate`'s own, or a warm start by its name."""
    if re.search(r"ppo|rloo|grpo|warm_?up|(^|_)rl(_|$)", name.replace("-", "_").lower()):
        return False
    return (
        re.fullmatch(r"best_of_\d+|banned_words|masked_words|copy|delete|(calm|warm|sft)[\w-]*|[\w-]+[_-]sft", name)
        is not None
    )


def given_systems(report: EvalReport) -> dict[str, str]:
    """Name → source of what `evaluate --system NAME=SOURCE` brought in: files and other models."""
    parts = [str(one).partition("=") for one in report.config.get("system") or []]
    return {name: source for name, _, source in parts}


def describe_system(name: str, report: EvalReport) -> str:
    """One line on a system."""
    known = {
        HUMAN: "the references",
        BASE: "the model before training",
        "banned_words": "base, kept from writing listed words",
        "masked_words": "base, its toxic words masked afterwards",
        "sft": "the adapter of the warm start",
        "start": "the adapter that training went on from",
        "copy": f"the {task_of(report).words.text} as it is",
        "delete": f"the {task_of(report).words.text} without its toxic words",
    }
    if found := re.fullmatch(r"best_of_(\d+)", name):
        return f"base, the best of {found[1]} samples by the reward"
    if name == TUNED and name in given_systems(report):
        return "base with its weights trained"
    if source := given_systems(report).get(name):
        return f"from {PurePath(source).name}"
    return known.get(name, "base with its trained adapter")


def slice_label(name: str, report: EvalReport) -> tuple[str, str]:
    """Its name in a table, and one line about it."""
    task = task_of(report)
    if name == "all":
        return f"All {task.words.texts}", ""
    return task.slice_labels.get(name, (name.replace(":", ": ").capitalize(), ""))


def find(report: EvalReport, system: str, decoding: str | None) -> SystemResult:
    return next(one for one in report.systems if one.name == system and one.decoding == decoding)
