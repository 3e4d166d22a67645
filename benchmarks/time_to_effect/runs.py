"""Training each side and evaluating its snapshots; each run's record is a file, so that a second start goes on."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import snapshots
from benchmarks.provenance import ROOT, commit
from benchmarks.recipe import RECIPE
from benchmarks.records import Record, read_json, read_lines, write_json
from benchmarks.speed import load
from benchmarks.time_to_effect import trl
from benchmarks.time_to_effect.arrival import Figures, Point, Time, arrival, is_due, is_there, time_of
from benchmarks.workers import Ended
from softspoken.data.reading import load_examples
from softspoken.evaluation.metrics import reference_metrics
from softspoken.inference.generator import Summarizer
from softspoken.rewards.judges import load_judge

WORK = ROOT / ".work" / "time_to_effect"


@dataclass(frozen=True)
class Settings:
    results: Path
    cap: float
    """Seconds of training after which a run of TRL's that has not arrived is given up."""
    dialogues: int
    """The first so many of the validation split; it is in no order."""
    patience: float
    """Seconds to wait for other load to go away before a run."""


@dataclass(frozen=True)
class Run:
    side: str
    """softspoken or legacy"""
    seed: int
    learning_rate: float | None = None
    """TRL's; softspoken keeps its default."""

    @property
    def name(self) -> str:
        rate = f"-{self.learning_rate:g}" if self.learning_rate else ""
        return f"{self.side}{rate}-seed{self.seed}"


class Evaluator:
    """Toxicity by the embedded judge and ROUGE-L against the calm reference, of greedy summaries and of one sample each."""

    def __init__(self, dialogues: int) -> None:
        self.dialogues = load_examples("mini", "validation", limit=dialogues)
        self.judge = load_judge("mini")

    def __call__(self, adapter: Path | None, step: int = 0, seconds: float = 0.0) -> Point:
        limit = RECIPE.max_new_tokens
        summarizer = Summarizer.from_pretrained("mini", adapter=str(adapter) if adapter else None, max_new_tokens=limit)
        greedy = summarizer.generate(self.dialogues, 64)
        sampled = summarizer.generate(self.dialogues, 64, samples=1, seed=0)
        return Point(step, seconds, *(self._figures([one[0].text for one in texts]) for texts in (greedy, sampled)))

    def _figures(self, texts: list[str]) -> Figures:
        toxicity = self.judge(texts)["toxicity"]
        pairs = zip(texts, self.dialogues, strict=True)
        rouge = [reference_metrics(text, dialogue, False)["rougeL"] for text, dialogue in pairs]
        return Figures(sum(toxicity) / len(toxicity), sum(rouge) / len(rouge))


def measure_base(settings: Settings, machine: Record) -> Record:
    """The untrained model on the same dialogues; and the machine, which all records must share."""
    path = settings.results / "base.json"
    known = read_json(path)
    if known and known["machine"] != machine:
        raise SystemExit(f"{settings.results} holds results of another machine ({known['machine']}); remove them first")
    if not known or known["dialogues"] != settings.dialogues:
        point = Evaluator(settings.dialogues)(None)
        known = {"machine": machine, "dialogues": settings.dialogues, "point": asdict(point)}
        write_json(path, known)
    return known


def measure(run: Run, settings: Settings, base: Point) -> Record:
    """The run's record, from the results where it is whole."""
    path = settings.results / f"{run.name}.json"
    known = read_json(path)
    if known and is_whole(known, settings):
        return known
    load.wait_until_quiet([os.getpid()], settings.patience)
    watch = load.Watch([os.getpid()])  # what our own processes used counts as ours once they have ended
    folder = WORK / run.name
    shutil.rmtree(folder, ignore_errors=True)
    evaluator = Evaluator(settings.dialogues)
    if run.side == "softspoken":
        found = _ours(run, folder, evaluator, base)
    else:
        found = _legacy(run, folder, evaluator, settings, base)
    record = {
        "run": asdict(run),
        "dialogues": settings.dialogues,
        "cap": settings.cap,
        "others": round(watch.share(), 4),
        "defaults": defaults(),
        "commit": commit(),
        **found,
    }
    write_json(path, record)
    print(f"{run.name}: {time_to_effect(record, base)} ({record['steps']} steps, others {record['others']:.0%})")
    return record


def is_whole(record: Record, settings: Settings) -> bool:
    """Measured on these dialogues, with today's defaults, and to its end: one given up sooner than is now asked is run again."""
    ended = record["arrived"] or record["diverged"] or record["run"]["side"] == "softspoken"
    same: bool = record["dialogues"] == settings.dialogues and record["defaults"] == defaults()
    return same and (ended or record["seconds"] >= settings.cap)


def defaults() -> Record:
    """Of softspoken, as JSON gives them back: TRL's side takes its reward, rank and sizes from them as well."""
    found: Record = json.loads(json.dumps(asdict(RECIPE)))
    return found


def time_to_effect(record: Record, base: Point) -> Time:
    return time_of(points_of(record), base, record["seconds"], at_least=record["cap"] if record["diverged"] else 0.0)


def points_of(record: Record) -> list[Point]:
    return [point_of(one) for one in record["points"]]


def point_of(one: Record) -> Point:
    return Point(one["step"], one["seconds"], Figures(**one["greedy"]), Figures(**one["sampled"]))


# -------------------------------------------------------------------------------------------------------- two sides


def _ours(run: Run, folder: Path, evaluator: Evaluator, base: Point) -> Record:
    """`softspoken train` with its defaults; its checkpoints are copied as they come and evaluated when it is done."""
    output, copies, points = folder / "run", folder / "checkpoints", []
    folder.mkdir(parents=True)
    with (folder / "train.log").open("w") as log:
        snapshots.train(
            output, ["--seed", str(run.seed), "--save_every", "1", "--eval_limit", "0"], copies, is_due, log
        )
    steps = [record["time/step"] for record in read_lines(output / "metrics.jsonl")]
    for step, adapter in snapshots.adapters(output, copies):
        points.append(evaluator(adapter, step, sum(steps[:step])))
        if arrival(points, base):
            break
    return _found(points, base, sum(steps), len(steps))


def _legacy(run: Run, folder: Path, evaluator: Evaluator, settings: Settings, base: Point) -> Record:
    """TRL waits while a snapshot is evaluated, and goes on until it has arrived or the cap is reached."""
    assert run.learning_rate is not None
    points: list[Point] = []
    seconds, step, diverged = 0.0, 0, False
    worker = trl.start(run.seed, run.learning_rate, folder / "trl.log")
    try:
        for step, taken in enumerate(trl.steps(worker, run.seed), start=1):
            seconds += taken
            over = seconds >= settings.cap
            if over or is_due(step, points[-1].step if points else 0):
                trl.save(worker, folder / "adapter")
                points.append(evaluator(folder / "adapter", step, seconds))
            # One that is there when the time is up may still be confirmed.
            if arrival(points, base) or (over and not is_there(points[-1], base)):
                break
    except Ended as ended:
        if trl.DIVERGED not in str(ended):
            raise
        diverged = True
    finally:
        worker.stop()
    return _found(points, base, seconds, step) | {"diverged": diverged, "versions": worker.versions}


def _found(points: list[Point], base: Point, seconds: float, steps: int) -> Record:
    return {
        "arrived": arrival(points, base) is not None,
        "diverged": False,
        "seconds": seconds,
        "steps": steps,
        "points": [asdict(point) for point in points],
    }
