"""An evaluation → the numbers of it that the page may show, and the other judge's toxicity above its floor. No texts.

python -m benchmarks.effect.keep EVALUATION RESULTS.json
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from benchmarks.provenance import commit, describe_machine
from benchmarks.records import Record, read_json, read_lines, write_json
from softspoken.data.reading import load_examples
from softspoken.evaluation import resampling
from softspoken.types import Example

CENTRE, BASE = "ppo", "base"
"""What all other systems are compared with."""
Way = tuple[str, str | None, int | None]
"""A system, how it was decoded, and which training of it."""
FLOOR: Way = ("human", None, None)
COMPARED = {
    "toxicity",
    "toxic_rate",
    "expected_max_toxicity",
    "profanity",
    "rouge1",
    "rougeL",
    "speakers_kept",
    "length",
}
METRICS = COMPARED | {"toxicity_probability", "rouge2", "chrf", "length_ratio", "empty_rate", "degenerate_rate"}
METRICS |= {"truncated_rate", "copied_share", "distinct_2"}
SLICES = ("all", "heated", "everyday")


def main() -> None:
    evaluation, results = map(Path, sys.argv[1:])
    report = read_json(evaluation / "eval.json")
    config = report["config"]
    dialogues = load_examples(config["dataset"], config["split"], limit=config["limit"])
    found = {
        "name": results.stem,
        **kept(report),
        "samples": config["samples"],
        "above_floor": above_floor(read_lines(evaluation / "eval_rows.jsonl"), dialogues, report["judges"][-1]),
        "trainings": [training(*named.split("=", 1)) for named in config["adapter"]],
        "command": command(config),
        "commit": commit(),
        "machine": describe_machine(torch.get_num_threads(), "cuda" if torch.cuda.is_available() else "cpu"),
    }
    write_json(results, found)


def command(config: Record) -> str:
    """What does the same, as the Makefile has it; flags that have their default value say nothing."""
    given = {name: config[name] for name in ("adapter", "baseline", "dataset", "split", "judge", "limit", "samples")}
    words = {name: " ".join(map(str, value)) if isinstance(value, list) else value for name, value in given.items()}
    return " ".join(["softspoken evaluate", *(f"--{name} {value}" for name, value in words.items() if value)])


def training(system: str, adapter: str) -> Record:
    """What its folder says of it. A supervised warm start keeps no record of its steps."""
    run = Path(adapter).parent
    made = (run / "commit").read_text().strip() if (run / "commit").is_file() else None
    seed = int(found[1]) if (found := re.search(r"-(\d+)$", run.name)) else 0
    about = {"system": system, "seed": seed, "seconds": None, "commit": made, "diverged_after": None}
    if not (run / "config.yaml").is_file():
        return about
    saved = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    seconds = sum(row["time/step"] for row in read_metrics(run))
    return about | {"seconds": round(seconds, 1), "threads": saved["threads"], "command": saved["command"]}


def read_metrics(run: Path) -> list[dict[str, float]]:
    """A step that was done again after a stop counts as it was done last."""
    return list({row["step"]: row for row in read_lines(run / "metrics.jsonl")}.values())


def kept(report: Record) -> Record:
    return {
        **{name: report[name] for name in ("dataset", "judges", "versions")},
        "systems": [
            {**{name: one[name] for name in ("name", "decoding", "n", "seeds")}, **_numbers(one)}
            for one in report["systems"]
        ],
        "comparisons": [
            {**one, "difference": _rounded(one["difference"]), "ratio": _rounded(one["ratio"])}
            for one in report["comparisons"]
            if one["metric"] in COMPARED and one["slice"] in SLICES and {one["a"], one["b"]} & {BASE, CENTRE}
        ],
    }


def _numbers(found: Record) -> Record:
    """Metrics of a system and of its slices."""
    metrics = {name: _rounded(value) for name, value in found["metrics"].items() if name in METRICS}
    slices = {name: part for name, part in found.get("slices", {}).items() if name in SLICES}
    inner = {name: {"n": part["n"], "metrics": _numbers(part)["metrics"]} for name, part in slices.items()}
    return {"metrics": metrics, "slices": inner}


def _rounded(interval: dict[str, float] | None) -> dict[str, float] | None:
    return interval and {name: float(f"{value:.5g}") for name, value in interval.items()}


# ------------------------------------------------------------------------------------------------ above the floor


def above_floor(rows: Iterable[Record], dialogues: list[Example], judge: str) -> list[Record]:
    """How much of the base's toxicity by `judge`, above what it gives calm human references, each system keeps.

    A linear classifier gives every text something; what it gives the references of calm dialogues (those without a literal one,
    which in a set that was heated afterwards are all) is its floor. (system − floor) / (base − floor), with a 95 % interval by
    bootstrap over groups, the floor drawn with the rest, and over seeds.
    """
    groups = resampling.group_numbers([dialogue.group or f"id:{dialogue.id}" for dialogue in dialogues])
    calm = np.array([dialogue.literal_reference is None for dialogue in dialogues])
    values = judged(rows, len(dialogues), judge)
    if FLOOR not in values or np.isnan(values[FLOOR][calm]).all():
        return []
    parts = {"all": np.ones_like(calm), "heated": ~calm} if (~calm).any() else {"all": calm}
    found = []
    for part, members in parts.items():
        columns = {way: np.where(calm if way == FLOOR else members, column, np.nan) for way, column in values.items()}
        found += [{"slice": part, "judge": judge, **share} for share in _shares(columns, groups)]
    return found


def _shares(columns: dict[Way, Any], groups: Any) -> Iterator[Record]:
    means = {way: float(np.nanmean(column)) for way, column in columns.items()}
    draws = resampling.bootstrap_means(np.column_stack(list(columns.values())), groups, seed=0)
    drawn = dict(zip(columns, draws.T, strict=True))
    for place, (system, decoding) in enumerate(dict.fromkeys(way[:2] for way in columns if way[1])):
        base, own = (BASE, decoding, None), [way for way in columns if way[:2] == (system, decoding)]
        if system == BASE or base not in columns:
            continue
        pooled, human, untrained = (
            resampling.over_seeds(np.stack([drawn[way] for way in ways]), seed=0, system=place)
            for ways in (own, [FLOOR], [base])
        )
        above, base_above = float(np.mean([means[way] for way in own])) - means[FLOOR], means[base] - means[FLOOR]
        yield {
            "system": system,
            "decoding": decoding,
            "floor": round(means[FLOOR], 5),
            "base_above": round(base_above, 5),
            "above": round(above, 5),
            "ratio": ratio_of(above, base_above, pooled - human, untrained - human),
        }


def judged(rows: Iterable[Record], n: int, judge: str) -> dict[Way, Any]:
    """[n] for each way, the mean over a dialogue's samples; NaN where it has none."""
    sums: dict[Way, Any] = {}
    for row in rows:
        table = sums.setdefault((row["system"], row["decoding"], row["seed"]), np.zeros((2, n)))
        table[:, row["row"]] += row["metrics"][judge], 1
    with np.errstate(invalid="ignore"):
        return {way: total / count for way, (total, count) in sums.items()}


def ratio_of(above: float, base: float, drawn_above: Any, drawn_base: Any) -> dict[str, float] | None:
    """None where the base is not above the floor for certain: a share of nothing means nothing."""
    if base <= 0 or (drawn_base <= 0).any():
        return None
    low, high = np.quantile(drawn_above / drawn_base, [0.025, 0.975])
    return _rounded({"mean": above / base, "low": float(low), "high": float(high)})


if __name__ == "__main__":
    main()
