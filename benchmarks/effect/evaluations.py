"""One evaluation: softspoken's own, then the numbers of it that are kept, and the other judge's toxicity above its floor."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.effect.settings import OTHER_JUDGE, REWARD_JUDGE, Settings
from benchmarks.effect.trainings import Training, command_line
from benchmarks.provenance import commit, describe_machine
from benchmarks.records import Record, read_json, read_lines, write_json
from softspoken.config import EvaluateConfig, TrainConfig
from softspoken.data.reading import load_examples
from softspoken.evaluation import resampling
from softspoken.evaluation.evaluate import evaluate
from softspoken.types import Example

STATE_FILE = "effect.json"
SUMMARIES_A_SECOND = 25
"""A guess, for the time that is left."""
PPO, BASE = "ppo", "base"
Way = tuple[str, str | None, int | None]
"""A system, how it was decoded, and which training of it."""
FLOOR: Way = ("human", None, None)
METRICS = (
    *("toxicity", "toxic_rate", "expected_max_toxicity", "toxicity_probability", OTHER_JUDGE),
    *("rouge1", "rouge2", "rougeL", "chrf", "speakers_kept", "length", "length_ratio"),
    *("empty_rate", "degenerate_rate", "truncated_rate", "copied_share", "distinct_2"),
)
COMPARED = {
    "toxicity",
    "toxic_rate",
    "expected_max_toxicity",
    OTHER_JUDGE,
    "rouge1",
    "rougeL",
    "speakers_kept",
    "length",
}
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

    def key(self, settings: Settings) -> Record | None:
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
        return command_line("softspoken evaluate", self.config(settings), EvaluateConfig(output=""))

    def _folder(self, settings: Settings) -> Path:
        return Path(self.config(settings).output)


def measure(evaluation: Evaluation, settings: Settings) -> None:
    """Evaluate, or go on with the same evaluation where it was stopped, and write its results file."""
    config, key = evaluation.config(settings), evaluation.key(settings)
    folder, results = Path(config.output), settings.results / f"{evaluation.name}.json"
    state = read_json(folder / STATE_FILE) or {}
    same = state.get("key") == key
    if not same:  # were this stopped, what an earlier one left would pass for its result
        (folder / "eval.json").unlink(missing_ok=True)
        results.unlink(missing_ok=True)
        write_json(folder / STATE_FILE, {"key": key})
    if not (folder / "eval.json").is_file():
        start = time.perf_counter()
        evaluate(replace(config, resume=same, overwrite=not same))
        seconds = None if same else round(time.perf_counter() - start, 1)  # of one that was stopped it is not known
        state = {"key": key, "seconds": seconds, "commit": commit()}
        write_json(folder / STATE_FILE, state)
    write_json(results, _results(evaluation, settings, state))


def _results(evaluation: Evaluation, settings: Settings, state: Record) -> Record:
    config, folder = evaluation.config(settings), Path(evaluation.config(settings).output)
    dialogues = load_examples(config.dataset, config.split, limit=config.limit)
    found = kept(read_json(folder / "eval.json"), evaluation.centre)
    found["dataset"]["id"] = from_the_root(found["dataset"]["id"], settings)
    return {
        "name": evaluation.name,
        **found,
        "samples": evaluation.samples,
        "above_floor": above_floor(read_lines(folder / "eval_rows.jsonl"), dialogues, evaluation.judges[-1]),
        "trainings": [_recorded(training) for training in evaluation.trainings],
        "command": from_the_root(evaluation.command(settings), settings),
        "seconds": state.get("seconds"),
        "commit": state.get("commit"),
        "machine": describe_machine(torch.get_num_threads(), "cuda" if torch.cuda.is_available() else "cpu"),
        "written": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def from_the_root(text: str, settings: Settings) -> str:
    """With the data where they lie by default: where they lay on this machine is nobody's business."""
    return text.replace(str(settings.data), str(Settings.data))


def _recorded(training: Training) -> Record:
    record = training.record or {}
    said = {name: record.get(name) for name in ("seconds", "threads", "command", "commit", "diverged_after")}
    return {"system": training.system, "seed": training.seed, "changes": training.changes, **said}


def kept(report: Record, centre: str) -> Record:
    """The numbers of eval.json that the page may show; no texts."""
    compared = [
        {**one, "difference": _rounded(one["difference"]), "ratio": _rounded(one["ratio"])}
        for one in report["comparisons"]
        if one["metric"] in COMPARED and one["slice"] in SLICES and {one["a"], one["b"]} & {BASE, centre}
    ]
    return {
        **{name: report[name] for name in ("dataset", "judges")},
        "systems": [_system(one) for one in report["systems"]],
        "comparisons": compared,
        "versions": report["versions"],
    }


def _system(found: Record) -> Record:
    slices = {name: part for name, part in found["slices"].items() if name in SLICES}
    return {
        **{name: found[name] for name in ("name", "decoding", "n", "seeds")},
        "metrics": _metrics(found),
        "slices": {name: {"n": part["n"], "metrics": _metrics(part)} for name, part in slices.items()},
    }


def _metrics(found: Record) -> Record:
    return {name: _rounded(found["metrics"][name]) for name in METRICS if name in found["metrics"]}


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
