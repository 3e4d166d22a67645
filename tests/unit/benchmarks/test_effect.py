"""The pure parts of benchmarks/effect: what is left to do, made dialogues, toxicity above the floor, goals and pages."""

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from benchmarks import snapshots
from benchmarks.effect import curve, heated, page, parts
from benchmarks.effect.choice_tables import gains_and_losses
from benchmarks.effect.curve_page import Point, course, knee
from benchmarks.effect.evaluations import Evaluation, above_floor, from_the_root, judged, kept, ratio_of
from benchmarks.effect.figures import Results, at_least, at_most, not_beyond_chance, shown, times
from benchmarks.effect.jobs import Job, run_all
from benchmarks.effect.settings import Settings
from benchmarks.effect.trainings import DONE_FILE, Training, may_resume
from benchmarks.records import read_json, write_json
from softspoken.types import Example


def figure(mean, low=None, high=None):
    return {"mean": mean, "low": mean if low is None else low, "high": mean if high is None else high}


# --------------------------------------------------------------------------------------------------------- resuming


def test_what_is_done_is_left_out_and_the_rest_is_told_its_time():
    done, said, finished = [], [], {"a"}
    jobs = [Job(name, 60, lambda name=name: name in finished, lambda name=name: done.append(name)) for name in "abc"]
    run_all(jobs, said.append)
    assert done == ["b", "c"]
    assert said[0] == "[1/3] a: done before"
    assert said[1] == "[2/3] b: about 60 s of 2 min left"
    assert said[2].startswith("[3/3] c: about 0 s")  # b took no time, so c is expected to take none


@pytest.fixture
def trained(tmp_path):
    training = Training("ppo", 0, tmp_path / "ppo-0", changes={"steps": 2})
    training.adapter.mkdir(parents=True)
    write_json(training.folder / DONE_FILE, {"config": training.config, "finished": "then"})
    return training


def test_a_training_counts_as_done_with_the_same_settings_only(trained):
    assert trained.record
    assert replace(trained, system="default").record  # a name is not a setting: the recipe's run is shared
    assert replace(trained, changes={"steps": 3}).record is None
    assert replace(trained, seed=1).record is None
    trained.adapter.rmdir()
    assert trained.record is None


def test_a_training_that_diverged_is_done_without_an_adapter(tmp_path):
    training = Training("trl", 0, tmp_path, "trl", {"steps": 2, "learning_rate": 1.0})
    write_json(tmp_path / DONE_FILE, {"config": training.config, "finished": "then", "diverged_after": 1})
    assert training.record
    evaluation = Evaluation("e", "mini", "test", 1, [training])
    assert evaluation.config(Settings(work=tmp_path)).adapter == []


def test_a_stopped_run_goes_on_with_the_same_settings_only(trained):
    path = trained.folder / "config.yaml"
    path.write_text(yaml.safe_dump({"config": {**trained.config, "output": "elsewhere", "resume": None}}))
    assert may_resume(trained.folder, trained.config)
    assert not may_resume(trained.folder, replace(trained, seed=1).config)
    path.unlink()
    assert not may_resume(trained.folder, trained.config)


def test_an_evaluation_is_done_again_when_a_training_was(trained, tmp_path):
    settings = Settings(work=tmp_path / "work", results=tmp_path / "results")
    evaluation = Evaluation("e", "mini", "test", 1, [trained])
    folder = Path(evaluation.config(settings).output)
    write_json(folder / "eval.json", {})
    write_json(settings.results / "e.json", {})
    write_json(folder / "effect.json", {"key": evaluation.key(settings)})
    assert evaluation.done(settings)
    assert not replace(evaluation, samples=2).done(settings)
    write_json(trained.folder / DONE_FILE, {"config": trained.config, "finished": "later"})
    assert not evaluation.done(settings)


def test_the_command_names_what_is_not_a_default(trained):
    command = replace(trained, changes={"reward": "mini + 0.2*rouge:rougeL"}, seed=1).command
    assert (
        command
        == f'softspoken train --eval_limit 0 --reward "mini + 0.2*rouge:rougeL" --output {trained.folder} --seed 1'
    )


def test_choices_share_the_recipes_runs_and_keep_its_number_of_samples():
    settings = Settings()
    recipe = parts.recipe(settings, 0)
    for table, rows in parts.CHOICES.items():
        for changes in rows.values():
            own = replace(recipe, changes=changes).config
            assert {name for name in own if own[name] != recipe.config[name]} == set(changes), table
            assert own["batch_size"] * own["samples_per_prompt"] == 48


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
    snapshots.copy_new(run, copies)
    (run / "checkpoints" / "step-000002" / "weights.safetensors").unlink()  # as when only the last two are kept
    (run / "checkpoints" / "step-000004" / "weights.safetensors").write_text("other")
    snapshots.copy_new(run, copies)
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


@pytest.fixture
def settings(tmp_path):
    return Settings(work=tmp_path / "work", results=tmp_path / "results", page=tmp_path / "results.md")


def test_a_page_of_nothing_says_what_to_run(settings):
    text = page.page(settings)
    for part in ("works", "trl", "choices", "curve"):
        assert f"not measured yet: run `.venv/bin/python -m benchmarks.effect {part}`" in text


def test_goals_are_computed_from_the_data(settings):
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
    write_json(settings.results / "works-test.json", made)
    text = page.page(settings)
    assert "Of 6 goals: 3 met, 1 met on average, 2 missed." in text
    assert "SAMSum validation as it is: not measured yet" in text


def test_ppo_against_an_alternative_is_turned_round_where_it_was_compared_first():
    made = results([system(name, "greedy", figure(0.1), figure(30.0)) for name in ("ppo", "masked_words")], PPO)
    rows = page.against_table(Results(made), "ppo").splitlines()[2:]
    assert rows == ["| masked words | greedy | −0.200 (−0.300 to −0.100) | 0.0 (−0.1 to 0.1) | less toxic |"]


def test_a_table_of_choices_says_what_is_better(settings):
    made = results(
        [system(name, "greedy", figure(0.1), figure(30.0)) for name in ("default", "kl_coef_0.1")],
        [
            comparison("default", "kl_coef_0.1", "toxicity", figure(0.2, 0.1, 0.3)),
            comparison("default", "kl_coef_0.1", "rougeL", figure(2.0, 1.0, 3.0)),
        ],
        [("default", {"steps": 2}), ("kl_coef_0.1", {"kl_coef": 0.1, "steps": 2})],
    )
    assert gains_and_losses(Results(made), "kl_coef_0.1") == (["ROUGE-L higher greedy"], ["more toxic greedy"])
    write_json(settings.results / "choices-kl_coef.json", made)
    text = page.page(settings)
    assert "| **0.025 (default)** | greedy |" in text
    assert "`kl_coef 0.1` trades (ROUGE-L higher greedy, but more toxic greedy)." in text
    assert "### Algorithm\n\nnot measured yet" in text


def test_what_diverged_is_said_and_left_out_of_the_seconds():
    made = results([], [], [("trl", {}), ("trl", {})])
    made["trainings"][1] |= {"diverged_after": 7, "seconds": 5.0}
    (row,) = page.cost_table(Results(made)).splitlines()[2:]
    assert row == "| TRL 0.11.4, its own learning rate | 2 | 60 | 60 to 60 | 2 | after 7 steps | `softspoken train` |"


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
    found = kept(report, "ppo")
    assert "a sentence" not in json.dumps(found)
    assert found["systems"][0]["metrics"]["toxicity"] == figure(0.12346)
    assert [one["a"] for one in found["comparisons"]] == ["base"]


def test_no_path_of_the_machine_is_kept():
    settings = Settings(data=Path("/somewhere/data"))
    assert from_the_root("--dataset /somewhere/data/a.jsonl", settings) == "--dataset ../shared/data/a.jsonl"


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
