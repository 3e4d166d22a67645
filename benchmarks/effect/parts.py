"""The four parts of the measurement, as lists of what is to be done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from benchmarks.effect import curve
from benchmarks.effect.evaluations import PPO, Evaluation, measure
from benchmarks.effect.heated import HEATED, SOURCES, TRAIN, write_heated, write_training
from benchmarks.effect.jobs import Job
from benchmarks.effect.settings import RECIPE, Settings
from benchmarks.effect.trainings import CALM_SFT, Training, train
from softspoken.types import InputError

CHEAP = ["banned_words", "masked_words"]
WORKS = {"steps": 125, "batch_size": 16, "mini_batch_size": 48}
"""Once through the made set to train on; for the rest, the recipe. The warm start on calm references sees the same dialogues once."""
TRL_RATES = {"trl": 1.41e-5, "trl_our_rate": RECIPE.learning_rate}
"""TRL 0.11.4's default, which the notebooks keep, and the recipe's own."""
CHOICES: dict[str, dict[str, dict[str, object]]] = {
    "adapter_scope": {"everywhere": {"adapter_scope": "all"}},
    "kl_coef": {f"kl_coef_{value:g}": {"kl_coef": value} for value in (0.0125, 0.1)},
    "ppo_epochs": {f"epochs_{count}": {"ppo_epochs": count} for count in (2, 4)},
    "reward": {
        "mini_alone": {"reward": "mini"},
        "mini_0.2_rougeL": {"reward": "mini + 0.2*rouge:rougeL"},
        "mini_3_rougeL": {"reward": "mini + 3*rouge:rougeL"},
    },
    "samples_per_prompt": {
        f"{samples}_of_{48 // samples}": {"samples_per_prompt": samples, "batch_size": 48 // samples}
        for samples in (2, 12)
    },
    "algorithm": {"rloo": {"algorithm": "rloo"}, "grpo": {"algorithm": "grpo"}},
}
"""Table → row → what differs from the recipe. The recipe itself is a row of each."""
DEFAULT, DEMO = "default", "demo"
VALIDATION_DIALOGUES = 120


def works(settings: Settings) -> list[Job]:
    """PPO on heated dialogues, three seeds, and on embedded ones alone; what one would try before; on four sets of dialogues."""
    missing = [str(settings.data / name) for name in (TRAIN, *SOURCES) if not (settings.data / name).is_file()]
    if missing:
        raise InputError(f"no {', '.join(missing)}; --data FOLDER says where they are")
    made, training = settings.work / "heated.jsonl", settings.work / "training.jsonl"
    changes = WORKS | {"dataset": str(training)} | _size(settings)
    ppo = [Training(PPO, seed, _run_folder(settings, "works", seed), changes=changes) for seed in settings.seeds]
    demo = [recipe(settings, seed, DEMO) for seed in settings.seeds]
    calm = Training("calm_sft", 0, _run_folder(settings, "calm_sft", 0), "sft", CALM_SFT | {"dataset": str(training)})
    trained, beside = [*ppo, demo[0], calm], ["best_of_2", *CHEAP]
    heated, samsum = str(settings.data / HEATED), str(settings.data / "samsum/validation.jsonl")
    return [
        _writing_job("heat dialogues to train on", training, write_training, settings),
        _writing_job("heat dialogues to measure on", made, write_heated, settings),
        *map(_training_job, [*ppo, *demo, calm]),
        _evaluation_job(
            Evaluation("works-test", "mini", "test", 4, [*ppo, *demo, calm], ["best_of_4", *CHEAP]), settings
        ),
        _evaluation_job(Evaluation("works-heated", heated, "validation", 2, trained, beside, size=300), settings),
        _evaluation_job(Evaluation("works-made", str(made), "validation", 2, trained, beside, size=1018), settings),
        _evaluation_job(Evaluation("works-samsum", samsum, "validation", 1, trained, size=818), settings),
    ]


def trl(settings: Settings) -> list[Job]:
    """The recipe against TRL's trainer on the same dialogues, reward, samples and steps."""
    trainings = [recipe(settings, seed) for seed in settings.seeds]
    for name, rate in TRL_RATES.items():
        changes = {"steps": settings.steps or RECIPE.steps, "learning_rate": rate}
        changes |= {"batch": RECIPE.batch_size, "samples": RECIPE.samples_per_prompt}
        folders = {seed: _run_folder(settings, name, seed) for seed in settings.seeds}
        trainings += [Training(name, seed, folder, "trl", changes) for seed, folder in folders.items()]
    evaluations = [Evaluation("trl-test", "mini", "test", 2, trainings)]
    if (heated := settings.data / HEATED).is_file():
        evaluations.append(Evaluation("trl-heated", str(heated), "validation", 2, trainings, size=300))
    return [*map(_training_job, trainings), *(_evaluation_job(one, settings) for one in evaluations)]


def choices(settings: Settings) -> list[Job]:
    """A table for each choice, on the validation split: the test split has no part in choosing."""
    jobs = []
    for table, rows in CHOICES.items():
        trainings = [
            Training(row, seed, _run_folder(settings, row, seed), changes=changes | _size(settings))
            for row, changes in {DEFAULT: {}, **rows}.items()
            for seed in settings.seeds
        ]
        jobs += [
            *map(_training_job, trainings),
            _evaluation_job(on_validation(f"choices-{table}", trainings), settings),
        ]
    return jobs


def on_validation(name: str, trainings: list[Training]) -> Evaluation:
    return Evaluation(name, "mini", "validation", 1, trainings, limit=VALIDATION_DIALOGUES, centre=DEFAULT)


def long_run(settings: Settings) -> list[Job]:
    """Ten times the recipe's budget, with the adapter as it was on the way."""
    changes = {"steps": settings.curve_steps, "save_every": settings.snapshot_every}
    training = Training("long", 0, _run_folder(settings, "long", 0), changes=changes)
    snapshots = curve.snapshots_folder(training)
    points = [
        Training(f"step_{step:03d}", 0, snapshots / f"step-{step:06d}", changes=changes | {"steps": step})
        for step in settings.snapshots
    ]
    evaluation = on_validation("curve", points)
    return [
        Job(
            f"train {settings.curve_steps} steps",
            training.expected_seconds,
            lambda: training.record is not None and all(point.record for point in points),
            lambda: curve.train_with_snapshots(training, points),
        ),
        replace(
            _evaluation_job(evaluation, settings),
            name="evaluate the snapshots",
            run=lambda: curve.measure_snapshots(evaluation, training, settings),
        ),
    ]


PARTS = {"works": works, "trl": trl, "choices": choices, "curve": long_run}


def recipe(settings: Settings, seed: int, name: str = PPO) -> Training:
    """The defaults; the one run of a seed is shared by all that compare with it."""
    return Training(name, seed, _run_folder(settings, DEFAULT, seed), changes=_size(settings))


def _run_folder(settings: Settings, name: str, seed: int) -> Path:
    return settings.work / "runs" / f"{name}-{seed}"


def _size(settings: Settings) -> dict[str, object]:
    return {"steps": settings.steps} if settings.steps else {}


def _writing_job(name: str, path: Path, write: Callable[[Path, Path, int | None], int], settings: Settings) -> Job:
    return Job(name, 3, path.is_file, lambda: print(f"{write(settings.data, path, settings.limit)} of them"))


def _training_job(training: Training) -> Job:
    return Job(
        f"train {training.system}, seed {training.seed}",
        training.expected_seconds,
        lambda: training.record is not None,
        lambda: train(training),
    )


def _evaluation_job(evaluation: Evaluation, settings: Settings) -> Job:
    return Job(
        f"evaluate {evaluation.name} ({', '.join(dict.fromkeys(one.system for one in evaluation.trainings))})",
        evaluation.expected_seconds(settings),
        lambda: evaluation.done(settings),
        lambda: measure(evaluation, settings),
    )
