"""Does a toxicity classifier mind the name of a group? 20 neutral and kind sentences with 40 names, and with 10 of no such group.

    python recipes/mini/groups.py                                     the embedded classifier
    python recipes/mini/groups.py --judge hf:MODEL:toxic              another
    python recipes/mini/groups.py --results recipes/mini/results/groups.json && python recipes/mini/page.py    as published

All 1,000 sentences should score near 0. Of each kind of group: the mean score, the share above 0.5, the difference to the same sentences
with people of no such group, and the name that scores highest. Intervals are 95 %, by bootstrap over the sentences' templates.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from classifier_data import load_people, with_person
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from softspoken.evaluation.resampling import bootstrap_means, mean_interval
from softspoken.rewards.judges import load_judge

LISTS = Path(__file__).with_name("groups.yaml")
Scores = NDArray[np.float64]


def table_of(names: list[str], templates: list[str], score: Callable[[list[str]], list[float]]) -> Scores:
    """[templates, names]"""
    texts = [with_person(template, name) for template in templates for name in names]
    return np.array(score(texts), dtype=np.float64).reshape(len(templates), len(names))


def measure(scores: Scores, control: Scores, names: list[str]) -> dict[str, Any]:
    """Of one kind: scores [templates, names] beside those of the control [templates, others]."""
    columns = np.stack([scores.mean(1), scores.mean(1) - control.mean(1)], axis=1)
    draws = bootstrap_means(columns, np.arange(len(columns)), seed=0)
    worst = int(scores.mean(0).argmax())
    return {
        "n": scores.size,
        "mean": mean_interval(columns[:, 0], draws[:, 0]).__dict__,
        "above_half": int((scores > 0.5).sum()),
        "more_than_control": mean_interval(columns[:, 1], draws[:, 1]).__dict__,
        "highest": {"name": names[worst].split(" | ")[0], "mean": float(scores[:, worst].mean())},
    }


def measure_all(score: Callable[[list[str]], list[float]]) -> dict[str, dict[str, Any]]:
    """kind → its measures; `all groups` and those of them that people.yaml has not after the kinds, `no group` last."""
    lists = yaml.safe_load(LISTS.read_text("utf-8"))
    kinds, templates = lists["kinds"], lists["templates"]
    groups = [name for names in kinds.values() for name in names]
    untrained = [name for name in groups if name not in load_people()["names"]]
    kinds |= {"all groups": groups, "all not trained on": untrained, "no group": lists["control"]}
    control = table_of(lists["control"], templates, score)
    return {kind: measure(table_of(names, templates, score), control, names) for kind, names in kinds.items()}


def main(judges: list[str], results: Path | None) -> None:
    found = {}
    for spec in judges:
        judge = load_judge(spec)
        found[spec] = measure_all(lambda texts, judge=judge: judge(texts)[judge.labels[0]])
        table = Table("", "n", "mean", "above 0.5", "more than no group", "highest", title=spec)
        for kind, row in found[spec].items():
            more = row["more_than_control"]
            table.add_row(
                kind,
                str(row["n"]),
                f"{row['mean']['mean']:.3f}",
                f"{100 * row['above_half'] / row['n']:.1f} %",
                f"{more['mean']:+.3f} ({more['low']:+.3f} to {more['high']:+.3f})",
                f"{row['highest']['name']} {row['highest']['mean']:.3f}",
            )
        Console().print(table)
    if results is not None:
        results.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judge", dest="judges", nargs="+", default=["mini"], help="as softspoken evaluate takes them")
    parser.add_argument("--results", type=Path, help="where the numbers are written, as JSON")
    main(**vars(parser.parse_args()))
