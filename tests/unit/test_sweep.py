"""A sweep without trainings: what its file may say, how seeds are pooled, which trial is the best."""

import importlib
import math
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from softspoken.config import SweepConfig
from softspoken.report.sweep_page import Row, sweep_page
from softspoken.runtime.interrupt import Interrupted
from softspoken.storage.run_folder import RunFolder
from softspoken.sweep import PLAN, STUDY, folder_of_run, pooled, read_plan, sweep
from softspoken.tasks.task import load_task
from softspoken.types import InputError, Interval, RunError


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    return path


def test_a_plan_is_read(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "train: {steps: 3}\nsearch:\n  lora_r: [2, 4]\n  learning_rate: {low: 0.001, high: 0.1, log: true}\nseeds: [0, 1]\n",
    )
    _, plan = read_plan(SweepConfig(file=str(path)))
    assert (plan.train, plan.seeds) == ({"steps": 3}, [0, 1])
    assert plan.search["lora_r"] == [2, 4]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("search: {}", "has no search in it"),
        ("search: {lora_r: [2]}\nseed: [0]", "has a part 'seed'; it takes train, search and seeds"),
        ("search: {rank: [2]}", "'rank' is no setting of train that a sweep may set"),
        ("search: {seed: [2]}", "'seed' is no setting of train that a sweep may set; seeds have a list of their own"),
        ("search: {lora_r: 2}", "search of lora_r is 2; give a list of values, or"),
        ("search: {lora_r: []}", "search of lora_r is []"),
        ("search: {lora_r: {low: 2}}", "search of lora_r is {'low': 2}"),
        ("search: {lora_r: [2, 0]}", "lora_r 0 cannot be used"),
        ("search: {lora_r: [2]}\ntrain: {eval_limit: 0}", "eval_limit 0 leaves nothing to compare trials by"),
        ("search: {lora_r: [2]}\nseeds: [-1]", "seed -1 cannot be used"),
        ("search: [", "cannot be read"),
        (
            "search: {lora_targets: [[q, v], [q]]}",
            "search of lora_targets has the value ['q', 'v']; give texts or numbers",
        ),
        ("search: {lora_r: [2]}\ntrain: [steps]", "train is ['steps']; write one 'setting: value' a line"),
        ("search: {lora_r: {low: 4, high: 2}}", "search of lora_r is {'low': 4, 'high': 2}: low <= high must hold"),
        ("search: {lora_r: {low: 2, high: 4, step: 0}}", "step must be a number above 0; mend the range"),
        ("search: {lora_r: {low: 2, high: 4, step: .nan}}", "step must be a number above 0"),
        ("search: {lora_r: {low: 2, high: 4, log: 1}}", "log must be true or false"),
        ("search: {lora_r: {low: true, high: 4}}", "low and high must be numbers"),
        ("search: {warmup_steps: {low: 0, high: 4, log: true}}", "search of warmup_steps is"),
        ("search: {learning_rate: {low: 0.1, high: 0.2, log: true, step: 0.01}}", "search of learning_rate is"),
        ("search: {lora_r: [2]}\nseeds: [1, 0, 1]", "seeds is [1, 0, 1], with one twice, which is the same run"),
        (
            "search: {algorithm: [ppo, rloo], samples_per_prompt: [1, 4]}",
            "algorithm rloo, samples_per_prompt 1 do not go together: ",
        ),
        ("search: {lora_r: [2]}\nseeds: 3", "seeds is 3; give a list of whole numbers"),
    ],
)
def test_what_cannot_be_tried_is_one_sentence(tmp_path: Path, text: str, words: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(InputError) as said:
        read_plan(SweepConfig(file=str(path)))
    assert words in str(said.value)
    assert "\n" not in str(said.value)


def test_in_python_a_plan_is_a_mapping_and_what_has_no_name_is_recorded(tmp_path: Path) -> None:
    def shouting(responses: list[str], examples: list[object]) -> list[float]:
        return [0.0 for _ in responses]

    rows = [{"text": "a", "reference": "b"}]
    plan = {"train": {"dataset": rows, "reward": shouting, "steps": 2}, "search": {"lora_r": (2, 4)}, "seeds": range(2)}
    text, read = read_plan(SweepConfig(file=plan))
    assert read.train["dataset"] is rows
    assert read.train["reward"] is shouting
    assert (read.search, read.seeds) == ({"lora_r": [2, 4]}, [0, 1])
    assert "rows given in Python: 1, SHA-256 " in text
    assert "function given in Python: shouting, SHA-256 " in text
    with pytest.raises(InputError, match="plan has a part 'serach'"):
        read_plan(SweepConfig(file={"serach": {}, "search": {"lora_r": [2]}}))


def test_several_processes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, "search: {lora_r: [2]}")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="sweep is one process's"):
        sweep(SweepConfig(file=str(path), output=str(tmp_path / "sweep")))
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize("output", [".", "..", "model"])
def test_what_is_read_or_stood_in_is_no_place_for_it(
    output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    plan = {"search": {"lora_r": [2]}, "train": {"model": "model"}}
    with pytest.raises(InputError, match=r"which is read|is the working folder"):
        sweep(SweepConfig(file=plan, output=output))
    assert [path.name for path in tmp_path.rglob("*")] == ["here", "model"]


def test_a_damaged_journal_is_said(tmp_path: Path) -> None:
    plan = {"search": {"lora_r": [2]}}
    with RunFolder(tmp_path / "out") as folder:
        folder.begin()
        folder.write(PLAN, read_plan(SweepConfig(file=plan))[0])
        folder.write(STUDY, '{"op_code": 99}\n[]\n')
    with pytest.raises(InputError, match=r"study.log cannot be read .*; restore it, or give another folder"):
        sweep(SweepConfig(file=plan, output=str(tmp_path / "out")))


def test_a_sweep_that_is_stopped_says_how_it_goes_on_and_one_of_failures_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The trial that was stopped is tried again, and not counted as one of the two."""

    def stopped(*given: Any, **rest: Any) -> None:
        error = Interrupted(15)
        error.go_on = "softspoken train --resume x"
        raise error

    def failed(*given: Any, **rest: Any) -> None:
        raise RunError("the reward ended the process")

    path = written(tmp_path, "search: {lora_r: [2, 4]}")
    config = SweepConfig(file=str(path), output=str(tmp_path / "out"), trials=2)
    module: Any = importlib.import_module("softspoken.sweep")
    monkeypatch.setattr(module, "train", stopped)
    with pytest.raises(Interrupted) as caught:
        sweep(config)
    assert caught.value.go_on == f"softspoken sweep {path} --output {tmp_path / 'out'}"
    monkeypatch.setattr(module, "train", failed)
    with pytest.raises(RunError, match=r"none of the 2 trials of .* came to its end: the reward ended the process"):
        sweep(config)
    assert "Traceback" not in capfd.readouterr().err


def test_a_grid_wants_lists(tmp_path: Path) -> None:
    path = written(tmp_path, "search: {lora_r: {low: 2, high: 8}}")
    with pytest.raises(InputError, match="a grid needs the values of lora_r one by one"):
        read_plan(SweepConfig(file=str(path), sampler="grid"))


def test_seeds_are_pooled_by_hand() -> None:
    """0.2 and 0.4 with half-widths 0.1 and 0.1: a mean of 0.3; the seeds' standard error is 0.1, Student's t with one degree 12.7."""
    one, other = Interval(0.2, 0.1, 0.3), Interval(0.4, 0.3, 0.5)
    found = pooled([one, other])
    half = math.hypot(0.1, stats.t.ppf(0.975, 1) * 0.1)
    assert (found.mean, found.low, found.high) == pytest.approx((0.3, 0.3 - half, 0.3 + half))
    alone = pooled([one])
    assert (alone.mean, alone.low, alone.high) == pytest.approx((0.2, 0.1, 0.3))


def test_a_trial_that_comes_again_finds_its_folder() -> None:
    first = folder_of_run(Path("s"), {"lora_r": 2, "learning_rate": 1e-3}, 0)
    assert first == folder_of_run(Path("s"), {"learning_rate": 1e-3, "lora_r": 2}, 0)
    assert (
        len(
            {
                first,
                folder_of_run(Path("s"), {"lora_r": 4, "learning_rate": 1e-3}, 0),
                folder_of_run(Path("s"), {"lora_r": 2, "learning_rate": 1e-3}, 1),
            }
        )
        == 3
    )


def test_the_page_has_each_trial_and_escapes_what_is_the_users() -> None:
    rows = [
        Row(3, {"adapter": "<b>"}, Interval(0.25, 0.2, 0.3), ["rougeL"], "complete", ["runs/x/report.html"]),
        Row(1, {"adapter": "b"}, None, [], "pruned", []),
    ]
    page = sweep_page(rows, load_task("summarization"), None)
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    for part in ("0.25", "0.2 to 0.3", "rougeL", "pruned", 'href="runs/x/report.html"', "toxicity"):
        assert part in page
    assert (
        "of one seed, with the 95 % interval over examples alone" in page
    )  # of which nothing is known of another seed
    twice = [Row(3, {}, Interval(0.25, 0.2, 0.3), [], "complete", ["a.html", "b.html"])]
    assert "the mean over the seeds, with" in (page := sweep_page(twice, load_task("summarization"), None))
    assert "<p>1 trial;" in page
