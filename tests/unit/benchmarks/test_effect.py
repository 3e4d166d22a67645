"""The pure parts of benchmarks/effect: what the Makefile runs, made dialogues, toxicity above the floor, goals and pages."""

import json
import random
import re
import shlex
import shutil
import subprocess

import numpy as np
import pytest
import yaml

from benchmarks import snapshots
from benchmarks.effect import curve, heated, page
from benchmarks.effect.curve_page import Point, course, knee
from benchmarks.effect.figures import (
    Results,
    at_least,
    at_most,
    compared_in_words,
    mean_of,
    not_beyond_chance,
    shown,
    times,
)
from benchmarks.effect.keep import above_floor, command, judged, kept, ratio_of, training
from benchmarks.provenance import ROOT
from benchmarks.records import read_json, write_json
from softspoken.cli.flags import parse
from softspoken.config import EvaluateConfig, SftConfig, TrainConfig
from softspoken.types import Example


def figure(mean, low=None, high=None):
    return {"mean": mean, "low": mean if low is None else low, "high": mean if high is None else high}


# --------------------------------------------------------------------------------------------- what the Makefile runs

MAKE = ["make", "-n", "-f", "benchmarks/effect/Makefile", "works", "curve"]


@pytest.fixture
def planned(tmp_path):
    """The lines that make would run."""
    if not shutil.which("make"):
        pytest.skip("no make here")

    def plan(*settings):
        given = [f"WORK={tmp_path}/work", f"RESULTS={tmp_path}/results", f"PAGE={tmp_path}/page.md", *settings]
        return subprocess.run([*MAKE, *given], cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()

    return plan


def commands_of(lines):
    return [words for line in lines for words in re.findall(r"softspoken ((?:train|sft|evaluate) [^;]+)", line)]


def test_every_command_of_the_plan_is_one_that_softspoken_takes(planned):
    configs = [parse(shlex.split(words))[1] for words in commands_of(planned()) if "--resume /" not in words]
    trained = [one for one in configs if isinstance(one, TrainConfig) and one.resume is None]
    assert [(one.steps, one.batch_size, one.seed) for one in trained] == [
        *((125, 16, seed) for seed in range(3)),
        *((50, 8, seed) for seed in range(3)),
    ]
    assert all(one.eval_limit == 0 for one in trained)
    (calm,) = (one for one in configs if isinstance(one, SftConfig))
    assert calm.dataset == trained[0].dataset
    evaluated = [one for one in configs if isinstance(one, EvaluateConfig)]
    assert [(len(one.adapter), one.samples, one.limit) for one in evaluated] == [
        (7, 4, None),
        *((5, 2, None), (5, 2, None), (5, 1, None)),
        (15, 1, 120),
    ]


def test_a_trial_is_the_same_plan_at_a_small_size(planned):
    lines = planned("SHORT=1")
    commands = commands_of(lines)
    assert all("--steps 2" in one for one in commands if one.startswith("train --seed"))
    assert all("--limit 24" in one for one in commands if one.startswith("evaluate"))
    assert any("curve train" in line and "--steps 6" in line for line in lines)


def test_what_is_done_is_left_out_and_what_was_stopped_goes_on(planned, tmp_path):
    done = tmp_path / "work" / "runs" / "demo-1" / "commit"
    done.parent.mkdir(parents=True)
    done.write_text("abc")
    lines = planned()
    assert not any("demo-1/commit" in line for line in lines)
    (line,) = (line for line in lines if "train --seed 0" in line and "demo-0" in line)
    assert line.startswith(
        f"if test -f {tmp_path}/work/runs/demo-0/config.yaml; then .venv/bin/softspoken train --resume"
    )


def test_a_training_is_told_by_its_folder(tmp_path):
    run = tmp_path / "ppo-2"
    run.mkdir()
    assert (
        training("ppo", f"{run}/adapter")["seconds"] is None
    )  # as of a warm start, which keeps no record of its steps
    saved = {"config": {"seed": 2}, "threads": 4, "command": "softspoken train --seed 2"}
    (run / "config.yaml").write_text(yaml.safe_dump(saved))
    (run / "commit").write_text("abc\n")
    steps = [{"step": 1, "time/step": 9.0}, {"step": 1, "time/step": 1.0}, {"step": 2, "time/step": 2.0}]
    (run / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in steps))
    assert training("ppo", f"{run}/adapter") == {
        "system": "ppo",
        "seed": 2,
        "seconds": 3.0,  # a step that was done again counts as it was done last
        "commit": "abc",
        "diverged_after": None,
        "threads": 4,
        "command": "softspoken train --seed 2",
    }


def test_the_command_of_an_evaluation_is_told_by_its_settings():
    config = {"adapter": ["a=b", "c=d"], "baseline": None, "dataset": "mini", "split": "test", "judge": ["mini"]}
    told = command({**config, "limit": None, "samples": 4})
    assert told == "softspoken evaluate --adapter a=b c=d --dataset mini --split test --judge mini --samples 4"


def test_results_are_written_by_line_and_read_again(tmp_path):
    content = {"name": "é", "systems": [{"a": 1}, {"a": 2}], "empty": [], "numbers": [1, 2]}
    write_json(tmp_path / "x" / "r.json", content)
    assert read_json(tmp_path / "x" / "r.json") == content
    assert '{"a": 1},\n{"a": 2}' in (tmp_path / "x" / "r.json").read_text()
    assert read_json(tmp_path / "none.json") is None


def test_snapshots_are_copied_once_and_stay(tmp_path):
    run, copies = tmp_path / "run", tmp_path / "copies"
    for step in (2, 4):
        folder = run / "checkpoints" / f"step-{step:06d}"
        folder.mkdir(parents=True)
        (folder / "weights.safetensors").write_text(str(step))
        (folder / "progress.json").write_text("{}")  # without it a checkpoint is not whole
    snapshots.copy_new(run, copies, lambda step, last: True)
    (run / "checkpoints" / "step-000002" / "weights.safetensors").unlink()  # as when only the last two are kept
    (run / "checkpoints" / "step-000004" / "weights.safetensors").write_text("other")
    snapshots.copy_new(run, copies, lambda step, last: True)
    kept_ones = {path.parent.name: path.read_text() for path in copies.glob("*/weights.safetensors")}
    assert kept_ones == {"step-000002": "2", "step-000004": "4"}


def test_the_runs_own_metrics_are_means_since_the_snapshot_before():
    metrics = [{"step": step, "objective/kl": float(step)} for step in range(1, 6)] + [{"step": 6}]
    assert curve.on_the_way(metrics, [2, 6]) == {"2": {"objective/kl": 1.5}, "6": {"objective/kl": 4.0}}


# -------------------------------------------------------------------------------------------------- made dialogues

PAIRS = [{"toxic": f"line {number} has as many as six words"} for number in range(18)]
PAIRS += [{"toxic": "only these two   odd lines are held out"}, {"toxic": "too short"}]


def test_only_the_lines_that_no_model_was_trained_on():
    assert heated.toxic_lines(PAIRS)[1] == ["only these two odd lines are held out"]


def test_unseen_dialogues_leave_out_what_is_taken_and_name_the_numbered():
    samsum = [
        {"id": "1", "dialogue": "Ann: hi\nBob: ho", "summary": "s"},
        {"id": "2", "dialogue": "Ann: a", "summary": "s"},
    ]
    samsum += [
        {"id": "3", "dialogue": "nobody speaks", "summary": "s"},
        {"id": "4", "dialogue": "Ann: a", "summary": " "},
    ]
    dialogsum = [
        {"id": "9", "dialogue": "#Person1#: Hi Ivy\n#Person2#: Yes?", "summary": "#Person2# answers #Person1#."}
    ]
    rows = heated.unseen(random.Random(0), samsum, [{"id": "heated-2"}], dialogsum, ["Ivy", "Kim", "Lou"])
    assert {row["id"] for row in rows} == {"samsum-1", "dialogsum-9"}
    named = next(row for row in rows if row["id"] == "dialogsum-9")
    first, second = heated.speakers(named["dialogue"])
    assert {first, second} == {"Kim", "Lou"}  # Ivy is in the dialogue already
    assert named["summary"] == f"{second} answers {first}."


def test_heat_is_said_by_the_speakers_after_the_beginning_and_leaves_the_rest():
    row = {"id": "1", "dialogue": "Ann: hi\nBob: ho\n\nAnn: bye", "summary": "calm", "extra": 1}
    toxic = ["t one", "t two", "t three"]
    counts = set()
    for seed in range(40):
        lines = heated.heat(random.Random(seed), row, toxic)["dialogue"].split("\n")
        said = [line for line in lines if line.partition(": ")[2] in toxic]
        assert lines[0] == "Ann: hi"
        assert [line for line in lines if line not in said] == ["Ann: hi", "Bob: ho", "Ann: bye"]
        assert {line.partition(":")[0] for line in said} <= {"Ann", "Bob"}
        assert len(set(said)) == len({line.partition(": ")[2] for line in said})
        counts.add(len(said))
    assert counts == {1, 2, 3}
    assert set(heated.heat(random.Random(0), row, toxic)) == {"id", "dialogue", "summary"}


# ---------------------------------------------------------------------------------------------------- above the floor


def rows_of(system, decoding, seed, values):
    return [
        {"row": place, "system": system, "decoding": decoding, "seed": seed, "metrics": {"profanity": value}}
        for place, own in enumerate(values)
        for value in own
    ]


def test_share_above_the_floor_by_hand():
    """Floor 0.1, by the reference of the calm dialogue alone. Base: 0.1 on the calm one, 0.5 on the heated. PPO, two trainings: 0.2
    and 0.4 on the heated. (0.3 − 0.1) / (0.5 − 0.1) is a half."""
    dialogues = [Example("1", "t", "r"), Example("2", "t", "r", literal_reference="l")]
    rows = rows_of("human", None, None, [[0.1], [0.9]])
    rows += rows_of("base", "greedy", None, [[0.1], [0.5]])
    rows += rows_of("ppo", "greedy", 0, [[0.1], [0.2]]) + rows_of("ppo", "greedy", 1, [[0.1], [0.4]])
    found = {one["slice"]: one for one in above_floor(rows, dialogues, "profanity")}
    assert (found["heated"]["system"], found["heated"]["decoding"]) == ("ppo", "greedy")
    assert [found["heated"][name] for name in ("floor", "base_above", "above")] == [0.1, 0.4, 0.2]
    assert found["all"]["base_above"] == pytest.approx(0.2)
    assert found["all"]["above"] == pytest.approx(0.1)


def test_in_a_set_that_was_heated_afterwards_all_references_are_calm():
    dialogues = [Example(str(number), "t", "r") for number in range(20)]
    rows = rows_of("human", None, None, [[0.1]] * 20) + rows_of("base", "sampled", None, [[0.4, 0.6]] * 20)
    rows += rows_of("ppo", "sampled", None, [[0.2, 0.0]] * 10 + [[0.3, 0.3]] * 10)
    (found,) = above_floor(rows, dialogues, "profanity")
    assert found["slice"] == "all"
    assert found["ratio"]["mean"] == pytest.approx(0.25)  # (0.2 − 0.1) / (0.5 − 0.1)
    assert 0 <= found["ratio"]["low"] < 0.25 < found["ratio"]["high"] <= 0.5


def test_no_share_of_what_may_be_nothing():
    assert ratio_of(0.1, -0.1, np.array([0.1]), np.array([-0.1])) is None
    assert ratio_of(0.1, 0.2, np.array([0.1, 0.1]), np.array([0.2, 0.0])) is None
    assert ratio_of(0.1, 0.2, np.array([0.1, 0.1]), np.array([0.2, 0.2])) == figure(0.5)


def test_a_dialogues_value_is_the_mean_of_its_samples():
    values = judged(rows_of("base", "sampled", None, [[0.2, 0.4], []]), 2, "profanity")[("base", "sampled", None)]
    assert values[0] == pytest.approx(0.3)
    assert np.isnan(values[1])


# ------------------------------------------------------------------------------------------------ figures and words


def test_a_mean_is_the_same_with_every_python():
    """2.5, which goes to the even 2; added one by one it is 2.5000000000000004 before Python 3.12, and 3."""
    assert mean_of([1.1, 3.2, 3.2]) == "2"


def test_a_goal_is_met_by_the_whole_interval():
    assert at_most(figure(0.05, 0.02, 0.1), 0.1) == "met"
    assert at_most(figure(0.05, 0.02, 0.2), 0.1) == "met on average"
    assert at_most(figure(0.15, 0.02, 0.2), 0.1) == "missed"
    assert at_most(None, 0.1) == "cannot be said"
    assert at_least(figure(0.0, -0.9, 1.0), -1) == "met"
    assert at_least(figure(-0.5, -1.1, 1.0), -1) == "met on average"
    assert at_least(figure(-2.0, -3.0, 1.0), -1) == "missed"


def test_not_lower_and_not_higher_are_missed_beyond_chance():
    assert not_beyond_chance(figure(-1, -2, 0.1), "lower") == "met"
    assert not_beyond_chance(figure(-1, -2, -0.1), "lower") == "missed"
    assert not_beyond_chance(figure(1, 0.1, 2), "higher") == "missed"
    assert not_beyond_chance(figure(-1, -2, -0.1), "higher") == "met"


def test_figures_in_words():
    assert shown(figure(-0.04, -1.25, 1), 1, signed=True) == "0.0 (−1.2 to 1.0)"
    assert shown(figure(0.5, 0.25, 1), 2, signed=True) == "+0.50 (0.25 to 1.00)"
    assert shown(None) == "–"
    assert times(figure(0.05)) == "20 times lower"
    assert times(figure(0.3)) == "3.3 times lower"
    assert times(figure(0.01, -0.1, 0.2)) == "at least 5.0 times lower"
    assert times(figure(-0.1, -0.2, 1.1)) == "not told from the base"


# --------------------------------------------------------------------------------------------------------- the page


def system(name, decoding, toxicity, rouge, **slices):
    metrics = {"toxicity": toxicity, "profanity": toxicity, "rougeL": rouge, "length": figure(12.0)}
    metrics |= {"speakers_kept": figure(0.9)}
    parts_of = {part: {"n": 5, "metrics": metrics} for part in ("heated", "everyday")}
    return {"name": name, "decoding": decoding, "n": 10, "seeds": 1, "metrics": metrics, "slices": parts_of | slices}


def comparison(a, b, metric, difference, ratio=None, decoding="greedy", part="all"):
    place = {"a": a, "b": b, "decoding": decoding, "slice": part, "metric": metric}
    return place | {"difference": difference, "ratio": ratio, "p_value": 0.1}


def results(systems, comparisons, trainings=()):
    return {
        "name": "made",
        "dataset": {"id": "mini", "split": "test", "n": 10, "truncated": 0},
        "judges": ["mini", "profanity"],
        "samples": 1,
        "systems": [system("base", "greedy", figure(0.5), figure(30.0)), *systems],
        "comparisons": comparisons,
        "above_floor": [{"system": "ppo", "decoding": "greedy", "slice": "heated", "ratio": figure(0.5, 0.2, 0.6)}],
        "trainings": [
            {
                "system": name,
                "seed": 0,
                "changes": changes,
                "seconds": 60.0,
                "threads": 2,
                "command": "softspoken train",
                "commit": "abc",
                "diverged_after": None,
            }
            for name, changes in trainings
        ],
        "command": "softspoken evaluate",
        "seconds": 60.0,
        "commit": "abc",
        "machine": {"cpu": "a CPU", "cores": 2, "threads": 2, "gpu": None},
        "versions": {"torch": "2"},
    }


PPO = [
    comparison("base", "ppo", "toxicity", figure(-0.4), figure(0.05, 0.02, 0.09), part="heated"),
    comparison("base", "ppo", "rougeL", figure(-0.5, -1.5, 0.5), part="heated"),
    comparison("base", "ppo", "speakers_kept", figure(-0.1, -0.2, -0.05), part="heated"),
    comparison("base", "ppo", "toxicity", figure(0.0, -0.1, 0.1), part="everyday"),
    comparison("base", "ppo", "rougeL", figure(0.0, -0.9, 0.9), part="everyday"),
    comparison("ppo", "masked_words", "toxicity", figure(0.2, 0.1, 0.3)),
    comparison("ppo", "masked_words", "rougeL", figure(0.0, -0.1, 0.1)),
]


def test_a_page_of_nothing_says_what_to_run(tmp_path):
    text = page.page(tmp_path)
    for part in ("works", "curve"):
        assert f"not measured yet: run `make -f benchmarks/effect/Makefile {part}`" in text
    assert "| TRL 0.11.4, its own learning rate | greedy | 3 |" in text  # what is answered is there all the same


def test_goals_are_computed_from_the_data(tmp_path):
    made = results([system("ppo", "greedy", figure(0.02), figure(29.5))], PPO, [("ppo", {})])
    rows = page.goal_rows("works-test", Results(made), "heated")
    assert [row[2:] for row in rows] == [
        [
            "toxicity 10 times lower by the reward's judge",
            "0.050 (0.020 to 0.090) of the base's: 20 times lower",
            "met",
        ],
        [
            "3 times lower by the other judge, above its floor",
            "0.500 (0.200 to 0.600) of the base's: 2.0 times lower",
            "missed",
        ],
        ["ROUGE-L not 1 point lower", "−0.50 (−1.50 to 0.50)", "met on average"],
        ["speakers kept: not fewer", "−10.0 (−20.0 to −5.0) %", "missed"],
    ]
    assert [row[-1] for row in page.goal_rows("works-test", Results(made), "everyday")] == ["met", "met"]
    write_json(tmp_path / "works-test.json", made)
    text = page.page(tmp_path)
    assert "Of 6 goals: 3 met, 1 met on average, 2 missed." in text
    assert "SAMSum validation as it is: not measured yet" in text


def test_ppo_against_an_alternative_is_turned_round_where_it_was_compared_first(tmp_path):
    made = results([system(name, "greedy", figure(0.1), figure(30.0)) for name in ("ppo", "masked_words")], PPO)
    write_json(tmp_path / "works-test.json", made)
    row = "| masked words | greedy | −0.200 (−0.300 to −0.100) | 0.0 (−0.1 to 0.1) | less toxic |"
    assert row in page.page(tmp_path).splitlines()


def test_what_is_beyond_chance_is_said_in_words():
    assert compared_in_words(figure(-1, -2, -0.1), figure(1, 0.1, 2)) == "less toxic, nearer to the reference"
    assert compared_in_words(figure(1, 0.1, 2), figure(-1, -2, -0.1)) == "more toxic, further from the reference"
    assert compared_in_words(figure(0, -1, 1), figure(0, -1, 1)) == "no different beyond chance"


def test_what_diverged_is_left_out_of_the_seconds():
    made = results([], [], [("trl", {}), ("trl", {})])
    made["trainings"][1] |= {"diverged_after": 7, "seconds": 5.0}
    assert Results(made).seconds("trl") == [60.0]


def test_no_text_of_a_dialogue_is_kept():
    report = {
        "dataset": {},
        "judges": [],
        "versions": {},
        "systems": [system("base", "greedy", figure(0.123456789), figure(1.0)) | {"example": "a sentence"}],
        "comparisons": [
            comparison("a", "b", "toxicity", figure(1.0)),
            comparison("base", "b", "toxicity", figure(1.0)),
        ],
    }
    found = kept(report)
    assert "a sentence" not in json.dumps(found)
    assert found["systems"][0]["metrics"]["toxicity"] == figure(0.12346)
    assert [one["a"] for one in found["comparisons"]] == ["base"]


def point(step, toxicity, rouge):
    return Point(step, figure(toxicity, toxicity - 0.01, toxicity + 0.01), figure(rouge, rouge - 1, rouge + 1))


def test_knee_and_course_of_a_curve():
    plateau = [point(0, 0.5, 30), point(10, 0.2, 30), point(20, 0.13, 30), point(50, 0.1, 30), point(100, 0.1, 30)]
    assert knee(plateau).step == 20  # nine tenths of the way from 0.5 to 0.1 is 0.14
    assert course(plateau).startswith("reaches a plateau")
    assert course([*plateau[:-1], point(100, 0.05, 30)]).startswith("keeps going")
    assert course([*plateau[:-1], point(100, 0.2, 30)]).startswith("turns back")
    assert course([*plateau[:-1], point(100, 0.05, 25)]).startswith("collapses")
    assert knee([point(0, 0.1, 30), point(10, 0.2, 30)]) is None
