"""A system's responses, window by window: what is asked, scored, written and told."""

from types import SimpleNamespace

import pytest
import torch

from softspoken.evaluation import measure as module
from softspoken.evaluation.measure import Job, Term, measure
from softspoken.evaluation.systems import HUMAN, System
from softspoken.tasks.summarization import TASK
from softspoken.types import Example, Response

EXAMPLES = [Example(str(n), f"Nora: {n}", f"It is {n}" if n else None) for n in range(3)]


class Judge:
    name, labels, forgotten = "j", ["toxicity", "insult"], 0

    def __call__(self, texts):
        return {"toxicity": [0.12345678] * len(texts), "insult": [0.5] * len(texts)}

    def clear_cache(self):
        self.forgotten += 1


class Kept(dict):
    """Window → its rows and how many were cut."""

    def add(self, name, rows, cut):
        self[name] = rows, cut

    def read(self, name):
        return self[name][0]


def job_for(**changes):
    task = SimpleNamespace(
        words=TASK.words,
        metrics=lambda text, example: {"has_reference": float(bool(example.reference))},
        products={"both": ("half", "third"), "not_all": ("half", "lacking")},
    )
    told = []
    plain = {
        "task": task,
        "examples": EXAMPLES,
        "slices": {"all": [True] * 3, "last": [False, False, True]},
        "judges": [Judge()],
        "terms": {},
        "similarity": None,
        "seed": 7,
        "rows": Kept(),
        "advance": lambda *what: told.append(what),
    }
    return Job(**(plain | changes)), told


@pytest.fixture(autouse=True)
def windows_of_two(monkeypatch):
    monkeypatch.setattr(module, "WINDOW", 2)


def said(text):
    return lambda window: [[Response(f"{text} {n}") for n in range(window.samples)] for _ in window.examples]


def test_each_window_is_a_part_of_its_own_and_the_progress_adds_up():
    job, told = job_for()
    asked = []

    def generate(window):
        asked.append((window.first, window.decoding, window.samples, window.seed))
        return said("x")(window)

    measure(System("base", {"greedy": 1, "sampled": 3}, [lambda: generate]), job)
    assert asked == [(0, "greedy", 1, 7), (2, "greedy", 1, 9), (0, "sampled", 3, 7), (2, "sampled", 3, 9)]
    assert list(job.rows) == ["base|greedy|0|0", "base|greedy|0|2", "base|sampled|0|0", "base|sampled|0|2"]
    assert told == [("base", 0), ("base greedy", 2), ("base greedy", 1), ("base sampled", 6), ("base sampled", 3)]
    assert job.judges[0].forgotten == 4
    rows = [row for name in job.rows for row in job.rows.read(name)]
    assert [(row["row"], row["sample"]) for row in rows[:5]] == [(0, None), (1, None), (2, None), (0, 0), (0, 1)]
    assert {row["seed"] for row in rows} == {None}
    assert rows[2]["slices"] == ["all", "last"]


def test_what_was_measured_before_a_stop_is_neither_loaded_nor_measured_again():
    job, told = job_for(rows=Kept({"base|greedy|0|0": ([], 0), "base|greedy|0|2": ([], 0)}))
    measure(System("base", {"greedy": 1}, [lambda: pytest.fail("loaded")]), job)
    assert told == [("base", 3)]


def test_trainings_go_by_their_numbers_and_each_is_loaded_once():
    job, _ = job_for()
    loads = []
    trainings = [lambda n=n: loads.append(n) or said(str(n)) for n in range(2)]
    measure(System("tuned", {"greedy": 1}, trainings), job)
    assert loads == [0, 1]
    assert [row["seed"] for name in job.rows for row in job.rows.read(name)] == [0, 0, 0, 1, 1, 1]


def test_what_a_model_cut_is_counted_by_window():
    job, _ = job_for()

    class Cutting:
        truncated = 0

        def __call__(self, window):
            self.truncated += window.first + 1
            return said("x")(window)

    measure(System("base", {"greedy": 1}, [Cutting]), job)
    measure(System("plain", {"greedy": 1}, [lambda: said("x")]), job)
    assert [cut for _, cut in job.rows.values()] == [1, 3, 0, 0]


def test_numbers_are_kept_to_six_places_and_metrics_come_together():
    thirds = Term(lambda texts, owners: [1 / 3] * len(texts), needs_reference=False)
    halves = Term(lambda texts, owners: [0.5] * len(texts), needs_reference=True)
    job, _ = job_for(terms={"half": halves, "third": thirds}, similarity=lambda some, others: [0.25] * len(some))
    measure(System("base", {"greedy": 1}, [lambda: said("It is")]), job)
    first, second = job.rows.read("base|greedy|0|0")
    assert first["scores"] == {"j": {"toxicity": 0.123457, "insult": 0.5}}
    assert {name: second["metrics"][name] for name in ("toxicity", "third", "half", "both", "has_reference")} == {
        "toxicity": 0.123457,
        "third": 0.333333,
        "half": 0.5,
        "both": 0.166667,
        "has_reference": 1.0,
    }
    assert (second["metrics"]["similarity_reference"], second["metrics"]["similarity_dialogue"]) == (0.25, 0.25)
    assert "not_all" not in second["metrics"]
    assert "rougeL" in second["metrics"]
    assert "rougeL" not in first["metrics"]  # it has no reference


def test_a_reference_proves_nothing_about_itself():
    thirds = Term(lambda texts, owners: [1 / 3] * len(texts), needs_reference=False)
    never = Term(lambda *_: pytest.fail("asked"), needs_reference=True)
    job, _ = job_for(terms={"half": never, "third": thirds}, similarity=lambda some, others: [0.25] * len(some))
    references = lambda window: [[Response(each.reference)] if each.reference else [] for each in window.examples]  # noqa: E731
    measure(System(HUMAN, {None: 1}, [lambda: references]), job)
    [row] = job.rows.read("human|None|0|0")
    assert (row["row"], row["decoding"]) == (1, None)
    assert row["metrics"]["third"] == 0.333333
    assert row["metrics"]["has_reference"] == 0.0
    assert not {"half", "both", "rougeL", "similarity_reference"} & {*row["metrics"]}


def test_of_no_text_no_reward_is_asked():
    job, _ = job_for(terms={"half": Term(lambda *_: pytest.fail("asked"), needs_reference=False)})
    measure(System("silent", {"greedy": 1}, [lambda: lambda window: [[] for _ in window.examples]]), job)
    assert [rows for rows, _ in job.rows.values()] == [[], []]


def test_what_is_made_of_the_bases_responses_reads_them_again():
    job, _ = job_for()
    measure(System("base", {"sampled": 2}, [lambda: said("x")]), job)
    loud = System(
        "loud", {"sampled": 2}, rework=lambda window, texts: [[text.upper() for text in own] for own in texts]
    )
    measure(loud, job)
    assert [row["summary"] for row in job.rows.read("loud|sampled|0|2")] == ["X 0", "X 1"]


def test_memory_is_given_back_after_each_training(monkeypatch):
    done = []
    monkeypatch.setattr(module.gc, "collect", lambda: done.append("collected"))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: done.append("emptied"))
    for there, expected in ((True, ["collected", "emptied"] * 2), (False, ["collected"] * 2)):
        done.clear()
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        measure(System("base", {"greedy": 1}, [lambda: said("x")] * 2), job_for()[0])
        assert done == expected
