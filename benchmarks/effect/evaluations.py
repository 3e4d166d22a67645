"""One evaluation: softspoken's own, then the numbers of it that are kept, and the other judge's toxicity above its floor."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.effect.settings import OTHER_JUDGE, REWARD_JUDGE, Settings
from benchmarks.effect.trainings import Training
from benchmarks.provenance import commit, describe_machine
from benchmarks.records import read_json, write_json
from softspoken.config import EvaluateConfig, TrainConfig
from softspoken.data.reading import load_examples
from softspoken.evaluation import resampling
from softspoken.types import Example

STATE_FILE = "effect.json"
SUMMARIES_A_SECOND = 25
"""A guess, for the time that is left."""
PPO, BASE, HUMAN = "ppo", "base", "human"
METRICS = (
    *("toxicity", "toxic_rate", "expected_max_toxicity", "toxicity_probability", OTHER_JUDGE),
    *("rouge1", "rouge2", "rougeL", "chrf", "speakers_kept", "length", "length_ratio"),
    *("empty_rate", "degenerate_rate", "truncated_rate", "copied_share", "distinct_2"),
)
COMPARED = (
    "toxicity",
    "toxic_rate",
    "expected_max_toxicity",
    OTHER_JUDGE,
    "rouge1",
    "rougeL",
    "speakers_kept",
    "length",
)
SLICES = ("all", "heated", "everyday")


@dataclass(frozen=True)
class Evaluation:
    name: str
    """Of its folder and of its results file."""
    dataset: str
    """`mini` or a file"""
    split: str
    samples: int
    trainings: list[Training]
    """Those of one system are its seeds."""
    baselines: list[str] = field(default_factory=list)
    limit: int | None = None
    judges: tuple[str, ...] = (REWARD_JUDGE, OTHER_JUDGE)
    centre: str = PPO
    """The system that, beside the base, all others are compared with."""
    size: int = 250
    """Dialogues, for the time that is left."""

    def config(self, settings: Settings) -> EvaluateConfig:
        """Every system's summaries have the same limit. best_of_N picks by the reward's judge alone: no reference is at hand
        when a dialogue is summarized, so ROUGE is not. A training that diverged has no adapter to evaluate."""
        trained = [one for one in self.trainings if one.adapter.is_dir() or one.record is None]
        return EvaluateConfig(
            output=str(settings.work / "evaluations" / self.name),
            adapter=[f"{one.system}={one.adapter}" for one in trained],
            baseline=self.baselines or None,
            dataset=self.dataset,
            split=self.split,
            judge=list(self.judges),
            limit=settings.limit or self.limit,
            samples=self.samples,
            max_new_tokens=TrainConfig.max_new_tokens,
            batch_size=64,
        )

    def expected_seconds(self, settings: Settings) -> float:
        models = 1 + len(self.trainings) + self.baselines.count("banned_words")
        dialogues = min(self.size, settings.limit or self.limit or self.size)
        return 30 + models * dialogues * (1 + self.samples) / SUMMARIES_A_SECOND

    def key(self, settings: Settings) -> dict[str, Any] | None:
        """What it depends on; None while a training is missing."""
        records = {str(training.folder): training.record for training in self.trainings}
        if not all(records.values()):
            return None
        config = {name: value for name, value in asdict(self.config(settings)).items() if name != "resume"}
        size = Path(self.dataset).stat().st_size if Path(self.dataset).is_file() else None
        finished = {folder: record["finished"] for folder, record in records.items() if record}
        return {"config": config, "size": size, "trainings": finished}

    def done(self, settings: Settings) -> bool:
        state = read_json(self._folder(settings) / STATE_FILE)
        there = (self._folder(settings) / "eval.json").is_file() and (settings.results / f"{self.name}.json").is_file()
        return there and state is not None and state["key"] == self.key(settings)

    def command(self, settings: Settings) -> str:
        config = self.config(settings)
        options = ["--adapter", *(config.adapter or [])]
        if config.baseline:
            options += ["--baseline", *config.baseline]
        options += ["--dataset", self.dataset, *(["--split", self.split] if self.dataset == "mini" else [])]
        options += ["--judge", *self.judges, "--samples", str(self.samples)]
        options += ["--limit", str(config.limit)] if config.limit else []
        return " ".join(["softspoken evaluate", *options, f"--max_new_tokens {config.max_new_tokens}"])

    def _folder(self, settings: Settings) -> Path:
        return Path(self.config(settings).output)


def measure(evaluation: Evaluation, settings: Settings) -> None:
    """Evaluate, or go on with the same evaluation where it was stopped, and write its results file."""
    from softspoken.evaluation.evaluate import evaluate

    config, key = evaluation.config(settings), evaluation.key(settings)
    folder = Path(config.output)
    state = read_json(folder / STATE_FILE)
    same = state is not None and state["key"] == key
    if not (same and (folder / "eval.json").is_file()):
        if not same:  # were this stopped, what an earlier one left would pass for its result
            for old in (folder / "eval.json", settings.results / f"{evaluation.name}.json"):
                old.unlink(missing_ok=True)
        write_json(folder / STATE_FILE, {"key": key})
        start = time.perf_counter()
        evaluate(replace(config, resume=True) if same else replace(config, overwrite=True))
        seconds = None if same else round(time.perf_counter() - start, 1)  # of one that was stopped it is not known
        write_json(folder / STATE_FILE, {"key": key, "seconds": seconds, "commit": commit()})
    state = read_json(folder / STATE_FILE)
    dialogues = load_examples(config.dataset, config.split, limit=config.limit)
    with (folder / "eval_rows.jsonl").open(encoding="utf-8") as lines:
        above = (
            above_floor(map(json.loads, lines), dialogues, evaluation.judges[-1])
            if OTHER_JUDGE in evaluation.judges
            else []
        )
    results = kept(read_json(folder / "eval.json"), evaluation.centre)
    results["dataset"]["id"] = from_the_root(results["dataset"]["id"], settings)
    write_json(
        settings.results / f"{evaluation.name}.json",
        {
            "name": evaluation.name,
            **results,
            "samples": evaluation.samples,
            "above_floor": above,
            "trainings": [
                {"system": one.system, "seed": one.seed, "changes": one.changes, **_recorded(one)}
                for one in evaluation.trainings
            ],
            "command": from_the_root(evaluation.command(settings), settings),
            "seconds": state.get("seconds"),
            "commit": state.get("commit"),
            "machine": describe_machine(torch.get_num_threads(), "cuda" if torch.cuda.is_available() else "cpu"),
            "written": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        },
    )


def from_the_root(text: str, settings: Settings) -> str:
    """With the data where they lie by default: where they lay on this machine is nobody's business."""
    return text.replace(str(settings.data), str(Settings.data))


def _recorded(training: Training) -> dict[str, Any]:
    record = training.record or {}
    return {name: record.get(name) for name in ("seconds", "threads", "command", "commit", "diverged_after")}


def kept(report: dict[str, Any], centre: str) -> dict[str, Any]:
    """The numbers of eval.json that the page may show; no texts."""

    def metrics(found: dict[str, Any]) -> dict[str, Any]:
        return {name: _rounded(found[name]) for name in METRICS if name in found}

    systems = [
        {
            **{name: system[name] for name in ("name", "decoding", "n", "seeds")},
            "metrics": metrics(system["metrics"]),
            "slices": {
                name: {"n": part["n"], "metrics": metrics(part["metrics"])}
                for name, part in system["slices"].items()
                if name in SLICES
            },
        }
        for system in report["systems"]
    ]
    comparisons = [
        {**one, "difference": _rounded(one["difference"]), "ratio": _rounded(one["ratio"])}
        for one in report["comparisons"]
        if one["metric"] in COMPARED and one["slice"] in SLICES and {one["a"], one["b"]} & {BASE, centre}
    ]
    return {
        "dataset": report["dataset"],
        "judges": report["judges"],
        "systems": systems,
        "comparisons": comparisons,
        "versions": report["versions"],
    }


def _rounded(interval: dict[str, float] | None) -> dict[str, float] | None:
    return interval and {name: float(f"{value:.5g}") for name, value in interval.items()}


# ------------------------------------------------------------------------------------------------ above the floor


def above_floor(rows: Iterable[dict[str, Any]], dialogues: list[Example], judge: str) -> list[dict[str, Any]]:
    """How much of the base's toxicity by `judge`, above what it gives calm human references, each system keeps.

    A linear classifier gives every text something; what it gives the references of calm dialogues (those without a literal one,
    which in a set that was heated afterwards are all) is its floor. (system − floor) / (base − floor), with a 95 % interval by
    bootstrap over groups, the floor drawn with the rest, and over seeds.
    """
    groups = resampling.group_numbers([dialogue.group or f"id:{dialogue.id}" for dialogue in dialogues])
    calm = np.array([dialogue.literal_reference is None for dialogue in dialogues])
    values = judged(rows, len(dialogues), judge)
    if not (calm & ~np.isnan(values.get((HUMAN, None, None), np.full(len(dialogues), np.nan)))).any():
        return []
    parts = {"all": np.ones(len(dialogues), dtype=bool), **({"heated": ~calm} if (~calm).any() else {})}
    found = []
    for part, members in parts.items():
        columns = {
            way: np.where(calm if way[0] == HUMAN else members, column, np.nan) for way, column in values.items()
        }
        means = {way: float(np.nanmean(column)) for way, column in columns.items()}
        draws = resampling.bootstrap_means(np.column_stack(list(columns.values())), groups, seed=0)
        drawn = dict(zip(columns, draws.T, strict=True))
        floor = (HUMAN, None, None)
        ways = dict.fromkeys((system, decoding) for system, decoding, _ in columns if decoding)
        for place, (system, decoding) in enumerate(ways):
            own = [way for way in columns if way[:2] == (system, decoding)]
            base = (BASE, decoding, None)
            if system == BASE or base not in columns:
                continue
            pooled, human, untrained = (
                resampling.over_seeds(np.stack([drawn[way] for way in these]), seed=0, system=place)
                for these in (own, [floor], [base])
            )
            excess = float(np.mean([means[way] for way in own])) - means[floor], means[base] - means[floor]
            ratio = ratio_of(*excess, pooled - human, untrained - human)
            found.append(
                {
                    "system": system,
                    "decoding": decoding,
                    "slice": part,
                    "judge": judge,
                    "floor": round(means[floor], 5),
                    "base_above": round(excess[1], 5),
                    "above": round(excess[0], 5),
                    "ratio": ratio,
                }
            )
    return found


def judged(rows: Iterable[dict[str, Any]], n: int, judge: str) -> dict[tuple[str, str | None, int | None], Any]:
    """(system, decoding, training) → [n], the mean over a dialogue's samples; NaN where it has none."""
    sums: dict[tuple[str, str | None, int | None], Any] = {}
    for row in rows:
        table = sums.setdefault((row["system"], row["decoding"], row["seed"]), np.zeros((2, n)))
        table[:, row["row"]] += row["metrics"][judge], 1
    with np.errstate(invalid="ignore"):
        return {way: np.where(count > 0, total / count, np.nan) for way, (total, count) in sums.items()}


def ratio_of(above: float, base: float, drawn_above: Any, drawn_base: Any) -> dict[str, float] | None:
    """None where the base is not above the floor for certain: a share of nothing means nothing."""
    if base <= 0 or (drawn_base <= 0).any():
        return None
    low, high = np.quantile(drawn_above / drawn_base, [0.025, 0.975])
    return _rounded({"mean": above / base, "low": float(low), "high": float(high)})
