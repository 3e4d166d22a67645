"""Many trainings, chosen by Optuna: a search over settings, each with several seeds, that goes on where it was stopped.

A trial is a combination of settings; its value is the task's objective after training (greedy, on the evaluation set), the mean over the
seeds. Its folder is named by its settings, so that a trial which was stopped goes on, and one that comes twice is not trained twice.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import math
import shlex
from dataclasses import dataclass, fields, replace
from itertools import islice, product
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import yaml
from scipy import stats

from softspoken.config import SweepConfig, TrainConfig
from softspoken.config.kinds import require_config
from softspoken.config.rewards import recorded_reward
from softspoken.data.reading import record_of
from softspoken.report.report import EVAL_FILE, REPORT_FILE, read_report
from softspoken.report.sweep_page import Row, sweep_page
from softspoken.runtime import processes
from softspoken.runtime.interrupt import Interrupted
from softspoken.storage.run_folder import RunFolder, require_place
from softspoken.tasks.task import Task, load_task
from softspoken.train import train
from softspoken.training.watch import lost_guards
from softspoken.types import InputError, Interval, RunError, Step, first_line

log = logging.getLogger(__name__)

STUDY, PLAN, PAGE = "study.log", "sweep.yaml", "sweep.html"
RUNS = "runs"
ROWS = ("dataset", "eval_dataset")
NOT_SEARCHED = ("output", "resume", "overwrite", "seed", "push_to_hub")


@dataclass(frozen=True)
class Plan:
    """What the file says."""

    train: dict[str, Any]
    search: dict[str, Any]
    seeds: list[int]


def sweep(config: SweepConfig) -> Path:
    """Run the trials that are left, write the page, and return the folder. Raises InputError before anything is trained for a plan that
    does not say what to do.

    >>> plan = {"search": {"lora_r": [2, 4]}, "seeds": [0], "train": {"steps": 1, "batch_size": 2, "max_examples": 4}}
    >>> plan["train"] |= {"samples_per_prompt": 2, "eval_limit": 2, "eval_samples": 0}
    >>> folder = softspoken.sweep(softspoken.SweepConfig(file=plan, output="sweeps/ranks", trials=1))
    >>> (folder / "sweep.html").is_file(), len(list((folder / "runs").iterdir()))
    (True, 1)
    """
    require_config(config, SweepConfig, "sweep")
    if processes.size() > 1:
        raise InputError(
            "sweep is one process's: its trainings come one after another; start it without torchrun or accelerate"
        )
    _require_optuna()
    text, plan = read_plan(config)
    task = load_task(plan.train.get("task", "summarization"))
    require_place(config.output, [config.file if isinstance(config.file, str) else None, *_read_by(plan)])
    with RunFolder(config.output, add=True) as folder:
        if (folder.path / PLAN).is_file() and (folder.path / PLAN).read_text(encoding="utf-8") != text:
            raise InputError(
                f"output {config.output} holds a sweep of another file; give another folder, or the file as it was"
            )
        folder.begin()
        folder.write(PLAN, text)
        folder.record(STUDY)
        try:
            study = _study(config, plan, task, folder.path)
        except Exception as error:  # of Optuna's, which takes its journal for whole
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise InputError(
                f"{folder.path / STUDY} cannot be read ({first_line(error)[:200]}); restore it, or give another folder"
            ) from error
        left = config.trials - sum(
            trial.state.is_finished() for trial in study.trials if "again" not in trial.user_attrs
        )
        try:
            if left > 0:
                study.optimize(_trial_of(config, plan, task, folder.path), n_trials=left, catch=(RunError,))
        except Interrupted as stopped:  # a training's own way on is not the sweep's
            what = shlex.quote(config.file) if isinstance(config.file, str) else "…"
            stopped.go_on = f"softspoken sweep {what} --output {shlex.quote(config.output)}"
            raise
        finally:
            folder.write(PAGE, sweep_page(rows_of(study, plan, task, folder.path), task, study))
        failed = [trial.user_attrs["failed"] for trial in study.trials if "failed" in trial.user_attrs]
        if failed and not any(trial.state.name in ("COMPLETE", "PRUNED") for trial in study.trials):
            raise RunError(f"none of the {len(failed)} trials of {config.output} came to its end: {failed[0]}")
        return folder.path


def read_plan(config: SweepConfig) -> tuple[str, Plan]:
    """The plan's text, by which it is known again, and what it says. Raises InputError for what cannot be tried."""
    if isinstance(config.file, str):
        where, (text, said) = f"file {config.file}", _read(config.file)
    else:
        where, text, said = "plan", "", config.file
    if not isinstance(said, dict) or not isinstance(said.get("search"), dict) or not said["search"]:
        raise InputError(f"{where} has no search in it; write, under search:, 'learning_rate: [0.001, 0.004]'")
    if unknown := sorted({*map(str, said)} - {"train", "search", "seeds"}):
        raise InputError(f"{where} has a part {unknown[0]!r}; it takes train, search and seeds")
    plan = _plan(said, where)
    _require_that_it_can_be_tried(plan, config, where)
    return text or yaml.safe_dump({"train": _recorded(plan.train), "search": plan.search, "seeds": plan.seeds}), plan


def _read(path: str) -> tuple[str, Any]:
    try:
        text = Path(path).read_text(encoding="utf-8")
        return text, yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise InputError(
            f"file {path} cannot be read ({first_line(error)[:200]}); give a YAML file with train, search and seeds"
        ) from error


def _plan(said: dict[str, Any], where: str) -> Plan:
    train, seeds = said.get("train") or {}, said.get("seeds") or [0]
    if not isinstance(train, dict):
        raise InputError(f"{where}: train is {train!r}; write one 'setting: value' a line")
    if not isinstance(seeds, list | tuple | range):
        raise InputError(f"{where}: seeds is {seeds!r}; give a list of whole numbers")
    search = {
        name: list(values) if isinstance(values, tuple | range) else values for name, values in said["search"].items()
    }
    return Plan(dict(train), search, list(seeds))


def _require_that_it_can_be_tried(plan: Plan, config: SweepConfig, where: str) -> None:
    known = {field.name for field in fields(TrainConfig)}
    for name in (*plan.train, *plan.search):
        if name not in known or name in NOT_SEARCHED:
            raise InputError(
                f"{where}: {name!r} is no setting of train that a sweep may set; seeds have a list of their own"
            )
    if plan.train.get("eval_limit") == 0:
        raise InputError(f"{where}: eval_limit 0 leaves nothing to compare trials by; leave it out")
    for name, values in plan.search.items():
        ranged = isinstance(values, dict) and {"low", "high"} <= {*values} <= {"low", "high", "log", "step"}
        if not ranged and not (isinstance(values, list) and values):
            raise InputError(f"{where}: search of {name} is {values!r}; give a list of values, or {{low: …, high: …}}")
        if ranged and config.sampler == "grid":
            raise InputError(f"{where}: a grid needs the values of {name} one by one; give a list")
        if isinstance(values, dict):
            _require_a_range(name, values, where)
        for value in values if isinstance(values, list) else (values["low"], values["high"]):
            if not isinstance(value, str | int | float | None):
                raise InputError(f"{where}: search of {name} has the value {value!r}; give texts or numbers")
            TrainConfig(**{**plan.train, name: value})
    for seed in plan.seeds:
        TrainConfig(seed=seed)
    if len({*plan.seeds}) < len(plan.seeds):
        raise InputError(
            f"{where}: seeds is {plan.seeds!r}, with one twice, which is the same run; give different ones"
        )

    _require_that_they_go_together(plan, where)


MOST_CHECKED = 2_000
"""Combinations that are looked at before the first is trained."""


def _require_that_they_go_together(plan: Plan, where: str) -> None:
    """Raises InputError for a combination of settings of which each alone is in order."""
    several = [
        values if isinstance(values, list) else [values["low"], values["high"]] for values in plan.search.values()
    ]
    for combination in islice(product(*several), MOST_CHECKED):
        chosen = dict(zip(plan.search, combination, strict=True))
        try:
            TrainConfig(**{**plan.train, **chosen})
        except InputError as error:
            said = ", ".join(f"{name} {value}" for name, value in chosen.items())
            raise InputError(f"{where}: {said} do not go together: {error}") from error


def _require_a_range(name: str, values: dict[str, Any], where: str) -> None:
    """Raises InputError where `low`, `high`, `step` and `log` are not what Optuna draws from."""
    import optuna

    low, high, step, log = (values.get(part) for part in ("low", "high", "step", "log"))
    wrong = ""
    if any(isinstance(one, bool) or not isinstance(one, int | float) for one in (low, high)):
        wrong = "low and high must be numbers"
    elif step is not None and (isinstance(step, bool) or not isinstance(step, int | float) or not 0 < step < math.inf):
        wrong = "step must be a number above 0"
    elif log is not None and not isinstance(log, bool):
        wrong = "log must be true or false"
    else:
        whole = isinstance(low, int) and isinstance(high, int)
        try:
            if whole:
                optuna.distributions.IntDistribution(low, high, log or False, 1 if step is None else step)
            else:
                optuna.distributions.FloatDistribution(low, high, log or False, step)
        except ValueError as error:
            wrong = first_line(error).rstrip(".").replace("`", "")
    if wrong:
        raise InputError(f"{where}: search of {name} is {values!r}: {wrong}; mend the range")


def _read_by(plan: Plan) -> list[str]:
    """What the trainings read, which the sweep must not be written to."""
    named = [plan.train.get(name) for name in ("model", "adapter", *ROWS)]
    return [one for one in named if isinstance(one, str)]


def _recorded(train: dict[str, Any]) -> dict[str, Any]:
    """With names for rows and functions that were given in Python."""
    named = {name: record_of(train[name]) for name in ROWS if train.get(name) is not None}
    return {**train, **named, **({"reward": recorded_reward(train["reward"])} if "reward" in train else {})}


def _require_optuna() -> None:
    if importlib.util.find_spec("optuna") is None:
        raise InputError("sweep needs Optuna, which is not installed; pip install 'softspoken[sweep]'")


def _study(config: SweepConfig, plan: Plan, task: Task, folder: Path) -> Any:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)  # of a trial that fails it shows a traceback
    samplers = {
        "tpe": lambda: optuna.samplers.TPESampler(seed=0),
        "random": lambda: optuna.samplers.RandomSampler(seed=0),
        "grid": lambda: optuna.samplers.GridSampler(plan.search, seed=0),
    }
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(folder / STUDY)))
    study = optuna.create_study(
        study_name="sweep",
        storage=storage,
        load_if_exists=True,
        direction="maximize" if task.objective.better == "higher" else "minimize",
        sampler=samplers[config.sampler](),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4) if config.prune else optuna.pruners.NopPruner(),
    )
    for trial in study.trials:
        if trial.state == optuna.trial.TrialState.RUNNING:  # a stop came in the middle of it
            study._storage.set_trial_user_attr(trial._trial_id, "again", True)
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            study.enqueue_trial(trial.params)
    return study


def _trial_of(config: SweepConfig, plan: Plan, task: Task, folder: Path) -> Any:
    import optuna

    def run(trial: Any) -> float:
        try:
            return value_of(trial)
        except KeyboardInterrupt:  # Optuna would count it as one that failed
            trial.set_user_attr("again", True)
            trial.study.enqueue_trial(trial.params)
            raise
        except RunError as error:
            trial.set_user_attr("failed", first_line(error))
            log.warning("trial %d failed: %s", trial.number, error)
            raise

    def value_of(trial: Any) -> float:
        chosen = {name: _suggested(trial, name, values) for name, values in plan.search.items()}
        log.info("trial %d: %s", trial.number, ", ".join(f"{name} {value}" for name, value in chosen.items()))
        values = []
        for seed in plan.seeds:

            def look(step: Step, first: bool = seed == plan.seeds[0]) -> None:
                value = (step.evaluation or {}).get(task.objective.metric)
                if first and value is not None:
                    trial.report(value, step.number)
                    if config.prune and trial.should_prune():
                        raise optuna.TrialPruned(f"at step {step.number}")

            run_folder = folder_of_run(folder, chosen, seed)
            if not is_whole(run_folder):
                settings = TrainConfig(**plan.train, **chosen, seed=seed, output=str(run_folder))
                if (run_folder / "config.yaml").is_file():
                    settings = TrainConfig(resume=str(run_folder), **_given_again(plan.train))
                train(settings, on_evaluate=look)
            values.append(result_of_run(run_folder, task)[0].mean)
        return fmean(values)

    return run


def _given_again(train: dict[str, Any]) -> dict[str, Any]:
    """Rows and functions, of which a run has but a record."""
    return {name: train[name] for name in (*ROWS, "reward") if not isinstance(train.get(name), str | None)}


def _suggested(trial: Any, name: str, values: Any) -> Any:
    if isinstance(values, list):
        return trial.suggest_categorical(name, values)
    if isinstance(values["low"], int) and isinstance(values["high"], int):
        return trial.suggest_int(
            name, values["low"], values["high"], step=values.get("step", 1), log=values.get("log", False)
        )
    return trial.suggest_float(
        name, values["low"], values["high"], step=values.get("step"), log=values.get("log", False)
    )


def folder_of_run(folder: Path, chosen: dict[str, Any], seed: int) -> Path:
    """By its settings: a trial that comes again finds it."""
    digest = hashlib.sha256(json.dumps(chosen, sort_keys=True, default=str).encode()).hexdigest()[:8]
    return folder / RUNS / f"{digest}-seed-{seed}"


def is_whole(run: Path) -> bool:
    return (run / EVAL_FILE).is_file() and (run / REPORT_FILE).is_file()


def result_of_run(run: Path, task: Task) -> tuple[Interval, list[str]]:
    """The objective of the tuned system, greedy, and the guards that it lost against the base."""
    systems = {result.name: result.metrics for result in read_report(run).systems if result.decoding == "greedy"}
    base, tuned = ({name: one.mean for name, one in systems[who].items()} for who in ("base", "tuned"))
    return systems["tuned"][task.objective.metric], lost_guards(tuned, base, task)


def pooled(intervals: list[Interval]) -> Interval:
    """The mean over the seeds, with what other seeds (Student's t) and other examples (the seeds' own mean half-width, for they are
    measured on the same ones) would change, as independent of one another."""
    mean = fmean(one.mean for one in intervals)
    examples = fmean((one.high - one.low) / 2 for one in intervals)
    seeds = 0.0
    if len(intervals) > 1:
        spread = stdev(one.mean for one in intervals)
        seeds = float(stats.t.ppf(0.975, len(intervals) - 1)) * spread / math.sqrt(len(intervals))
    half = math.hypot(examples, seeds)
    return replace(intervals[0], mean=mean, low=mean - half, high=mean + half)


def rows_of(study: Any, plan: Plan, task: Task, folder: Path) -> list[Row]:
    """The trials, each combination once, the best first: those that lost no guard before those that did, then those that did not come to their end."""
    rows: dict[Path, Row] = {}
    for trial in study.trials:
        if "again" in trial.user_attrs or not trial.params:
            continue
        runs = [folder_of_run(folder, trial.params, seed) for seed in plan.seeds]
        results = [result_of_run(run, task) for run in runs if is_whole(run)]
        whole = len(results) == len(runs)
        value = pooled([one for one, _ in results]) if whole else None
        lost = sorted({guard for _, guards in results for guard in guards}) if whole else []
        links = [f"{run.relative_to(folder).as_posix()}/{REPORT_FILE}" for run in runs if is_whole(run)]
        state = trial.user_attrs.get("failed") or trial.state.name.lower()
        rows[runs[0]] = Row(trial.number, dict(trial.params), value, lost, state, links)
    sign = -1 if task.objective.better == "higher" else 1
    return sorted(
        rows.values(), key=lambda row: (row.value is None, bool(row.lost), sign * row.value.mean if row.value else 0.0)
    )
