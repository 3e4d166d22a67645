"""What an evaluation checks, refuses, says and counts, without a model."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from softspoken.config import EvaluateConfig
from softspoken.evaluation import evaluate as module
from softspoken.evaluation.earlier import recorded, require_free
from softspoken.evaluation.evaluate import _score, _warn, evaluate_systems
from softspoken.evaluation.rows import STATE_FILE
from softspoken.evaluation.systems import System, both_ways
from softspoken.runtime.interrupt import Interrupted
from softspoken.storage.run_folder import RunFolder
from softspoken.tasks.summarization import TASK
from softspoken.types import Example, InputError, Response


class Judge:
    name, labels, forgotten = "words", ["toxicity", "insult"], 0

    def __call__(self, texts):
        return {
            "toxicity": [0.75 if "idiot" in text else 0.25 for text in texts],
            "insult": [0.5] * len(texts),
        }

    def clear_cache(self):
        self.forgotten += 1


EXAMPLES = [Example(str(n), f"Nora: Hi {n}", f"Nora greets {n}") for n in range(4)]


class Bar:
    """A progress bar that keeps what it was told."""

    made = []  # noqa: RUF012

    def __init__(self, *_):
        self.done, self.what = 0, set()
        self.made.append(self)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def add_task(self, _, total, what):
        self.total = total

    def update(self, _, advance, what):
        self.done += advance
        self.what.add(what)


@pytest.fixture
def bars(monkeypatch):
    monkeypatch.setattr(Bar, "made", [])
    monkeypatch.setattr(module, "progress_bar", Bar)
    monkeypatch.setattr(module, "analyse", lambda *_: ([], []))
    return Bar.made


def written(tmp_path, *systems, judge=None, **options):
    judge = judge or Judge()
    with RunFolder(tmp_path / "run", add=True) as folder:
        folder.begin()
        evaluate_systems(systems, EXAMPLES, [judge], folder=folder, **options)
    return (tmp_path / "run" / "eval.json").read_text(encoding="utf-8")


def speaking(name, trainings=1, samples=3, seeds=None):
    def generate(window):
        if seeds is not None:
            seeds.append(window.seed)
        return [[Response("x")] * window.samples for _ in window.examples]

    return System(name, both_ways(samples), [lambda: generate] * trainings)


def test_the_progress_ends_where_it_said_it_would(tmp_path, bars):
    """Four examples: one reference each; four responses of the base; and twice four of two trainings."""
    judge, seeds = Judge(), []
    written(tmp_path, speaking("base", seeds=seeds), speaking("tuned", 2), judge=judge)
    slices, responses = bars
    assert (slices.total, slices.what) == (None, {"slices"})
    assert slices.done > 0
    assert responses.total == responses.done == 4 * (1 + 4 + 2 * 4)
    assert seeds == [0, 0]  # the seed where none is given
    assert judge.forgotten == 1 + 1 + 2 + 2 * 2  # before all, and after each window


def test_eval_json_is_for_people_too_and_holds_numbers_alone(tmp_path, bars):
    text = written(tmp_path, speaking("base"), notes=["Grüße"], config={"seed": 3}, dataset={"id": "x"})
    assert "Grüße" in text
    saved = json.loads(text)
    assert (saved["notes"], saved["config"]) == (["Grüße"], {"seed": 3})
    assert saved["dataset"] == {"id": "x", "split": None, "n": 4, "groups": 4, "truncated": 0}
    with pytest.raises(ValueError, match="not JSON compliant"):
        written(tmp_path, speaking("base"), config={"x": float("nan")})
    assert json.loads(written(tmp_path, speaking("base")))["config"] == {}


def test_rows_of_a_group_are_resampled_together_and_a_group_is_no_id(tmp_path, bars, monkeypatch):
    seen = []
    monkeypatch.setattr(module, "analyse", lambda measured, groups, *_: seen.append(groups.tolist()) or ([], []))
    rows = [replace(each, group=group) for each, group in zip(EXAMPLES, ("3", "g", "g", None), strict=True)]
    monkeypatch.setitem(globals(), "EXAMPLES", rows)
    written(tmp_path, speaking("base"))
    [(first, second, third, fourth)] = seen
    assert second == third
    assert len({first, second, fourth}) == 3  # the last one's id is 3


def test_what_a_stop_left_is_measured_again_unless_it_is_to_be_gone_on_with(tmp_path, bars):
    def broken():
        raise RuntimeError

    with pytest.raises(RuntimeError):
        written(tmp_path, speaking("base"), System("tuned", {"greedy": 1}, [broken]))
    for resume, asked in ((True, 0), (False, 2)):
        seeds = []
        with pytest.raises(RuntimeError):
            written(tmp_path, speaking("base", seeds=seeds), System("tuned", {"greedy": 1}, [broken]), resume=resume)
        assert len(seeds) == asked


def test_few_examples_are_said(tmp_path, bars, monkeypatch, caplog):
    monkeypatch.setattr(module, "FEW_EXAMPLES", 4)
    written(tmp_path, speaking("base"))
    assert not caplog.messages
    monkeypatch.setattr(module, "FEW_EXAMPLES", 5)
    written(tmp_path, speaking("base"))
    assert caplog.messages == ["only 4 dialogues: differences between systems may well be chance"]


def warnings_of(caplog, *systems, truncated=0):
    caplog.clear()
    _warn(SimpleNamespace(dataset={"n": 9, "truncated": truncated}), systems, TASK)
    return caplog.messages


def test_other_numbers_of_samples_than_the_bases_are_said(caplog):
    sampled = {name: System(name, {"sampled": n}) for name, n in (("base", 4), ("a", 2), ("b", 4), ("best_of_2", 2))}
    assert warnings_of(caplog, *sampled.values()) == [
        "a has 2 summaries of a dialogue and base 4, so their expected maximum toxicity is not compared; --samples 2"
    ]
    assert warnings_of(caplog, sampled["a"]) == []  # there is no base that samples
    alone = [System(name, ways) for name, ways in (("one", {"sampled": 1}), ("greedy", {"greedy": 1}))]
    assert warnings_of(caplog, sampled["base"], *alone) == []
    assert warnings_of(caplog, truncated=2) == ["2 of 9 dialogues were longer than the model reads and were cut"]


# ------------------------------------------------------------------------------------------------------------- settings


def test_what_is_recorded_says_nothing_of_the_folder_nor_of_a_reward_that_is_none():
    config = EvaluateConfig(output="x", dataset="d.jsonl")
    assert not {"output", "overwrite", "resume", "reward"} & recorded(config).keys()
    assert recorded(config)["dataset"] == "d.jsonl"
    assert "reward" in recorded(replace(config, reward="length:1-5"))
    assert "output" not in recorded(replace(config, reward="length:1-5"))


def test_what_is_there_is_neither_replaced_nor_gone_on_with_unasked(tmp_path, caplog):
    caplog.set_level("INFO")
    config = EvaluateConfig(output=str(tmp_path))
    require_free(config, tmp_path)
    assert not caplog.messages
    require_free(replace(config, resume=True), tmp_path)
    assert caplog.messages == [f"resume: no stopped evaluation in {tmp_path}; starting one"]
    (tmp_path / "eval.json").write_text("{}")
    with pytest.raises(InputError, match="holds an evaluation; pass --overwrite true"):
        require_free(config, tmp_path)
    require_free(replace(config, overwrite=True), tmp_path)
    (tmp_path / STATE_FILE).write_text("{}")
    with pytest.raises(InputError, match="was stopped; pass --resume true"):
        require_free(config, tmp_path)
    require_free(replace(config, resume=True), tmp_path)
    require_free(replace(config, overwrite=True), tmp_path)


def score_of(task=TASK, judge=Judge(), **changes):  # noqa: B008
    config = EvaluateConfig(output="x", samples=4, **changes)
    return _score(config, task, judge, "cpu", EXAMPLES)


def test_best_of_n_picks_by_the_reward_or_by_the_least_toxicity():
    assert score_of(baseline=["copy"]) is None
    assert score_of() is None
    least = score_of(baseline=["copy", "best_of_2"])
    assert least(["you idiot", "you"], EXAMPLES[:2]) == [0.25, 0.75]
    for judge in (Judge(), None):
        longest = score_of(baseline=["best_of_2"], reward="length:1-2", judge=judge)
        assert longest(["one two", "one two three four"], EXAMPLES[:2])[0] == 1.0
    other = replace(TASK, objective=replace(TASK.objective, metric="length"), reward="length:1-2")
    assert score_of(other, baseline=["best_of_2"])(["one two"], EXAMPLES[:1]) == [1.0]


def test_a_stop_says_how_to_go_on_where_there_is_something_to_go_on_with(tmp_path, monkeypatch):
    config = EvaluateConfig(output=str(tmp_path / "run"))

    def interrupted(*_, **__):
        raise Interrupted(2)

    monkeypatch.setattr(module, "require_place", lambda *_: None)
    monkeypatch.setattr(module, "prepare", interrupted)
    with pytest.raises(Interrupted) as stopped:
        module.evaluate(config)
    assert not stopped.value.go_on
    with pytest.raises(Interrupted) as stopped:
        module.evaluate(replace(config, resume=True))
    assert stopped.value.go_on == "softspoken evaluate … --resume true"
    monkeypatch.setattr(module, "prepare", lambda _: SimpleNamespace(systems=[], examples=[]))

    def measured(_, folder, *, resume):
        folder.write(STATE_FILE, "{}")
        raise Interrupted(2)

    monkeypatch.setattr(module, "measure_prepared", measured)
    with pytest.raises(Interrupted) as stopped:
        module.evaluate(config)
    assert stopped.value.go_on == "softspoken evaluate … --resume true"


def test_the_output_may_be_nothing_that_is_read(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(module, "require_place", lambda *given: asked.extend(given))
    monkeypatch.setattr(module, "require_free", lambda *_: (_ for _ in ()).throw(InputError("enough")))
    config = EvaluateConfig(
        output=str(tmp_path / "run"),
        model="m",
        dataset="d",
        adapter=["a"],
        system=["s=x"],
        judge=["mini"],
        similarity="e",
        reward="length:1-2",
    )
    with pytest.raises(InputError, match="enough"):
        module.evaluate(config)
    output, read, written = asked
    assert output == config.output
    assert read == ["m", "d", "a", "s=x", "mini", "e", "length:1-2"]
    assert "eval.json" in written


def test_the_base_is_looked_for_before_anything_is_read(monkeypatch):
    def absent(model):
        raise InputError(f"no {model}")

    monkeypatch.setattr(module, "require_seq2seq", absent)
    monkeypatch.setattr(module, "read_examples", lambda *_: pytest.fail("read"))
    with pytest.raises(InputError, match="no mini"):
        module.prepare(EvaluateConfig(output="x"))
