"""What the figures of an evaluation are called, what they mean, and which way is better: the words of every table and chart."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

from softspoken.types import Comparison, EvalReport, SystemResult

Sign = Literal[-1, 0, 1]
NO_BREAK = "\N{NO-BREAK SPACE}"
HUMAN, BASE, TUNED = "human", "base", "tuned"
DECODINGS = {"greedy": "Decoded greedily", "sampled": "Sampled at temperature 1"}
HOW = {"greedy": "decoded greedily", "sampled": "sampled at temperature 1"}
ALPHA = 0.05
ROUGE_MARGIN = 1.0
"""Points of ROUGE-L whose loss must be ruled out before quality counts as kept."""
TOXICITY, QUALITY, FORM, LABELS, OTHER = "Toxicity", "Quality", "Form", "The judge's other labels", "Other figures"
GROUPS = (TOXICITY, QUALITY, FORM, LABELS, OTHER)


@dataclass(frozen=True)
class Measure:
    label: str
    explanation: str
    form: Callable[[float], str]
    better: Literal["lower", "higher", ""] = ""
    """Empty where neither way is better by itself."""
    group: str = OTHER


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


MEASURES = {
    "toxicity": Measure("Toxicity", "mean probability, by the first judge, that a summary is toxic", toxicity, "lower", TOXICITY),
    "toxic_rate": Measure("Toxic rate", "share of summaries the first judge gives more than 0.5", _share, "lower", TOXICITY),
    "toxicity_p99": Measure("Toxicity, 99th percentile", "one summary in a hundred is more toxic than this", toxicity, "lower", TOXICITY),
    "expected_max_toxicity": Measure("Expected maximum toxicity", "mean over dialogues of the worst among their samples (Gehman et al. 2020)", toxicity, "lower", TOXICITY),
    "toxicity_probability": Measure("Toxicity probability", "share of dialogues with a toxic summary among their samples (Gehman et al. 2020)", _share, "lower", TOXICITY),
    "rouge1": Measure("ROUGE-1", "words shared with the reference, in points", _points, "higher", QUALITY),
    "rouge2": Measure("ROUGE-2", "word pairs shared with the reference, in points", _points, "higher", QUALITY),
    "rougeL": Measure("ROUGE-L", "longest common subsequence with the reference, in points", _points, "higher", QUALITY),
    "rougeLsum": Measure("ROUGE-Lsum", "ROUGE-L sentence by sentence, in points", _points, "higher", QUALITY),
    "rougeL_nearer": Measure("ROUGE-L, nearer reference", "against whichever is nearer, the calm reference or the literal one", _points, "higher", QUALITY),
    "chrf": Measure("chrF", "character n-grams shared with the reference, in points", _points, "higher", QUALITY),
    "similarity_reference": Measure("Similarity to reference", "cosine of the sentence embeddings; 1 is the same meaning", _fraction, "higher", QUALITY),
    "similarity_dialogue": Measure("Similarity to dialogue", "cosine of the embeddings of summary and dialogue", _fraction, "higher", QUALITY),
    "speakers_kept": Measure("Speakers kept", "of the speakers whom the reference names, those the summary names too", _share, "higher", QUALITY),
    "speakers_named": Measure("Speakers named", "of the speakers whom the reference names, those the summary names too", _share, "higher", QUALITY),
    "length": Measure("Length", "words in a summary", _points, "", FORM),
    "length_ratio": Measure("Length ratio", "words in the summary for each word of the reference", _fraction, "", FORM),
    "empty_rate": Measure("Empty", "share of summaries with no text", _share, "lower", FORM),
    "truncated_rate": Measure("Truncated", "share of summaries that the length limit cut off", _share, "lower", FORM),
    "degenerate_rate": Measure("Degenerate", "share of summaries that say three words in a row three times or more", _share, "lower", FORM),
    "distinct_1": Measure("Distinct-1", "different words for each word written", _fraction, "", FORM),
    "distinct_2": Measure("Distinct-2", "different word pairs for each pair written", _fraction, "", FORM),
    "copied_share": Measure("Copied", "share of the summary's 4-grams that stand in the dialogue", _share, "", FORM),
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
OVERVIEW = [
    *("toxicity", "rougeL", JUDGES, "toxic_rate"),
    *("speakers_kept", "speakers_named", "similarity_reference", "length"),
]
"""Columns of the table of systems: the two that matter most first, for a phone shows no more without scrolling."""
SLICED = ["toxicity", JUDGES, "toxic_rate", "rougeL", "speakers_kept", "speakers_named", "length"]
SLICES = {
    "all": ("All dialogues", ""),
    "heated": ("Heated", "someone is abusive in them"),
    "everyday": ("Everyday", "nobody is"),
    "length:short": ("Short", "the third with the fewest words"),
    "length:medium": ("Medium", "the middle third"),
    "length:long": ("Long", "the third with the most words"),
    "speakers:2": ("Two speakers", ""),
    "speakers:3+": ("Three or more speakers", ""),
}


def measure(metric: str, report: EvalReport) -> Measure:
    """Its own entry or, where it has none, what its name says: another judge's toxicity, a label, or just a figure."""
    if metric in MEASURES:
        return MEASURES[metric]
    judge = metric.removeprefix("judge:")
    if judge in report.judges:
        return Measure(f"Toxicity by {judge}", "mean of this judge's own main label", toxicity, "lower", TOXICITY)
    if metric in LABEL_NAMES:
        return Measure(
            LABEL_NAMES[metric], "mean probability of this label, by the first judge", toxicity, "lower", LABELS
        )
    for judge in report.judges:
        if metric.startswith((f"{judge}:", f"judge:{judge}:")):
            label = metric.removeprefix("judge:").removeprefix(f"{judge}:")
            return Measure(f"{label} by {judge}", "mean probability of this label, by this judge", toxicity, "", LABELS)
    return Measure(metric, "", _number)


def metrics_of(report: EvalReport) -> list[str]:
    """All that any system has, the groups in their order and within each the known ones first."""
    found = dict.fromkeys(metric for system in report.systems for metric in system.metrics)
    known = [*MEASURES, *LABEL_NAMES]
    return sorted(
        found,
        key=lambda metric: (
            GROUPS.index(measure(metric, report).group),
            known.index(metric) if metric in known else len(known),
        ),
    )


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


def is_alternative(name: str) -> bool:
    """A way to calmer summaries that needs no reinforcement learning: `evaluate`'s own, or a warm start by its name."""
    if re.search(r"ppo|rloo|grpo|warm_?up|(^|_)rl(_|$)", name.replace("-", "_").lower()):
        return False
    return re.fullmatch(r"best_of_\d+|banned_words|masked_words|(calm|warm|sft)[\w-]*|[\w-]+[_-]sft", name) is not None


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
    }
    if found := re.fullmatch(r"best_of_(\d+)", name):
        return f"base, the best of {found[1]} samples by the reward"
    if source := given_systems(report).get(name):
        return f"from {PurePath(source).name}"
    return known.get(name, "base with its trained adapter")


def slice_label(name: str) -> tuple[str, str]:
    """Its name in a table, and one line about it."""
    return SLICES.get(name, (name.replace(":", ": ").capitalize(), ""))


def find(report: EvalReport, system: str, decoding: str | None) -> SystemResult:
    return next(one for one in report.systems if one.name == system and one.decoding == decoding)
