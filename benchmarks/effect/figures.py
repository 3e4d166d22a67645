"""A results file as the page asks for it: a system's figure, a comparison, and whether a goal is met."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.pages import MISSING
from benchmarks.records import read_json

Figure = dict[str, float]
"""mean, low, high: the 95 % interval."""
Verdict = Literal["met", "met on average", "missed", "cannot be said"]
WAYS = ("greedy", "sampled")


@dataclass(frozen=True)
class Results:
    content: dict[str, Any]

    @classmethod
    def read(cls, folder: Path, name: str) -> Results | None:
        content = read_json(folder / f"{name}.json")
        return cls(content) if content else None

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys(system["name"] for system in self.content["systems"]))

    def part(self, system: str, decoding: str | None, slice_name: str = "all") -> dict[str, Any] | None:
        """n, metrics and seeds of a system in a slice; references are not decoded in any way."""
        for one in self.content["systems"]:
            if one["name"] == system and one["decoding"] in (decoding, None):
                part = one if slice_name == "all" else one["slices"].get(slice_name)
                return part and {"seeds": one["seeds"], **part}
        return None

    def rows(self, slice_name: str) -> Iterator[tuple[str, str | None, dict[str, Any]]]:
        """System, way of decoding and part, for a table."""
        for name in self.names:
            for way in (None,) if name == "human" else WAYS:
                if part := self.part(name, way, slice_name):
                    yield name, way, part

    def compared(self, a: str, b: str, decoding: str | None, metric: str, slice_name: str = "all") -> dict[str, Any]:
        """Empty where they were not, in that order."""
        wanted = {"a": a, "b": b, "decoding": decoding, "slice": slice_name, "metric": metric}
        return next((one for one in self.content["comparisons"] if wanted.items() <= one.items()), {})

    def difference(self, a: str, b: str, decoding: str | None, metric: str, slice_name: str = "all") -> Figure | None:
        """b − a."""
        turned = self.compared(b, a, decoding, metric, slice_name).get("difference")
        found: Figure | None = self.compared(a, b, decoding, metric, slice_name).get("difference")
        return found or (turned and negated(turned))

    def ratio(self, name: str, decoding: str | None, metric: str = "toxicity", part: str = "all") -> Figure | None:
        """Of the base's."""
        return self.compared("base", name, decoding, metric, part).get("ratio")

    def against(self, centre: str) -> Iterator[tuple[str, str, Figure, Figure]]:
        """`centre` − each other system but the base, over all dialogues: only there are they compared with one another."""
        for name in self.names:
            for way in WAYS if name not in ("human", "base", centre) else ():
                toxic, rouge = (self.difference(name, centre, way, metric) for metric in ("toxicity", "rougeL"))
                if toxic and rouge:
                    yield name, way, toxic, rouge

    def above(self, system: str, decoding: str | None, slice_name: str = "all") -> Figure | None:
        """What is left of the base's toxicity above the other judge's floor."""
        ratios = {(one["system"], one["decoding"], one["slice"]): one["ratio"] for one in self.content["above_floor"]}
        return ratios.get((system, decoding, slice_name))

    def trainings(self, system: str) -> list[dict[str, Any]]:
        return [one for one in self.content["trainings"] if one["system"] == system]

    def seconds(self, system: str) -> list[float]:
        """Of each training of a system that came to its end."""
        own = self.trainings(system)
        return [one["seconds"] for one in own if one["seconds"] and one.get("diverged_after") is None]

    def changes(self, system: str) -> str:
        """What its trainings changed."""
        changed = self.trainings(system)[0]["changes"]
        return ", ".join(f"{key} {value}" for key, value in changed.items() if key != "steps")

    def threads(self, system: str) -> str:
        """How many torch had in these seconds."""
        counts = {one.get("threads") for one in self.trainings(system)}
        return " and ".join(str(count or MISSING) for count in sorted(counts, key=str))

    @property
    def commits(self) -> list[str]:
        """Of the code that trained and evaluated."""
        return sorted({one["commit"] for one in [*self.content["trainings"], self.content] if one["commit"]})


def negated(figure: Figure) -> Figure:
    return {"mean": -figure["mean"], "low": -figure["high"], "high": -figure["low"]}


def at_most(figure: Figure | None, aim: float) -> Verdict:
    """Met where the whole interval is, on average where the mean is and the interval is not."""
    if figure is None:
        return "cannot be said"
    return "met" if figure["high"] <= aim else "met on average" if figure["mean"] <= aim else "missed"


def at_least(figure: Figure | None, aim: float) -> Verdict:
    return at_most(figure and negated(figure), -aim)


def not_beyond_chance(figure: Figure | None, direction: Literal["lower", "higher"]) -> Verdict:
    """For "not lower" and "not higher": missed only where the difference is, beyond chance."""
    if figure is None:
        return "cannot be said"
    off = figure["high"] < 0 if direction == "lower" else figure["low"] > 0
    return "missed" if off else "met"


# ---------------------------------------------------------------------------------------------------------- words


def number(value: float, digits: int) -> str:
    """−0.0 is 0.0."""
    text = f"{value:.{digits}f}"
    return text.replace("-", "−") if float(text) else text.replace("-", "")


def shown(figure: Figure | None, digits: int = 3, *, signed: bool = False) -> str:
    """`0.031 (0.020 to 0.045)`; a dash where there is none."""
    if figure is None:
        return MISSING
    sign = "+" if signed and figure["mean"] > 0 and float(f"{figure['mean']:.{digits}f}") else ""
    low, high = number(figure["low"], digits), number(figure["high"], digits)
    return f"{sign}{number(figure['mean'], digits)} ({low} to {high})"


def compared_in_words(toxic: Figure, rouge: Figure) -> str:
    """By the paired intervals: what is beyond chance."""
    calmer = "less toxic" if toxic["high"] < 0 else "more toxic" if toxic["low"] > 0 else ""
    nearer = "nearer to" if rouge["low"] > 0 else "further from" if rouge["high"] < 0 else ""
    found = [calmer, nearer and f"{nearer} the reference"]
    return ", ".join(one for one in found if one) or "no different beyond chance"


def times(ratio: Figure | None) -> str:
    """A ratio of 0.05 (0.02 to 0.1) is 20 times lower. Of one that may be 0 only the worse end says something."""
    if ratio is None:
        return MISSING
    if ratio["low"] <= 0:
        return f"at least {1 / ratio['high']:.1f} times lower" if 0 < ratio["high"] < 1 else "not told from the base"
    lower = 1 / ratio["mean"]
    return f"{lower:.1f} times lower" if lower < 10 else f"{math.floor(lower)} times lower"


def mean_of(values: list[float]) -> str:
    """By `fmean`: what `sum` adds up to in the last digit is another with Python 3.12."""
    return f"{statistics.fmean(values):.0f}" if values else MISSING
