"""softspoken.evaluate with lists: no model answers, and what comes back shows itself."""

from dataclasses import replace
from pathlib import Path

import numpy
import pandas
import pytest

import softspoken
from made_up import WordJudge
from softspoken.evaluation import evaluate as evaluation
from softspoken.types import InputError

TEXTS = ["Nora: Late again, idiot!\nFelix: Sorry.", "Ann: Tea?\nBen: At five.", "Ida: Hm.\nJo: What?"]
REFERENCES = ["Felix is late.", ["Tea is at five.", "They meet at five."], None]
BASE = ["Nora calls Felix an idiot", "Tea at five", "Nothing"]
MINE = ["Felix is late", "Tea is at five", "Ida hums"]


@pytest.fixture(autouse=True)
def judged(monkeypatch):
    monkeypatch.setattr(evaluation, "load_judge", lambda spec, **options: WordJudge(spec, ["toxicity"]))


def test_lists_are_scored_like_any_systems():
    report = softspoken.evaluate(
        texts=TEXTS, references=REFERENCES, systems={"mine": [f" {one}\n" for one in MINE], "base": BASE}
    )
    assert [(one.name, one.decoding, one.n) for one in report.systems] == [
        ("human", None, 2),
        ("base", "greedy", 3),
        ("mine", "greedy", 3),
    ]
    figures = report.to_frame().query("slice == 'all'").set_index(["system", "metric"])
    assert figures.loc[("base", "toxicity"), "mean"] == pytest.approx(1 / 3)
    assert figures.loc[("mine", "toxicity"), "change"] == pytest.approx(-1 / 3)
    rows = report.to_frame("rows")
    assert list(rows.query("system == 'mine'")["summary"]) == MINE
    assert list(rows.query("system == 'mine'")["rougeL"].round(1))[:2] == [100.0, 100.0]
    assert "model" not in report.config


def test_it_prints_as_its_table_and_shows_as_html():
    report = softspoken.evaluate(texts=TEXTS, systems={"base": BASE, "<b>mine</b>": MINE})
    lines = str(report).splitlines()
    assert lines[0].strip() == "Decoded greedily"
    assert any("base" in line and "0.333" in line for line in lines)
    assert repr(report) == str(report)
    html = report._repr_html_()
    assert "&lt;b&gt;mine&lt;/b&gt;" in html
    assert "<b>mine</b>" not in html
    assert "<script" not in html
    figures = report.plot()
    titles = [figure.layout.title.text for figure in figures]
    assert titles
    assert "plotly" in figures._repr_html_()
    assert repr(figures) == f"{len(titles)} charts: {', '.join(titles)}"
    assert "plotly" in figures[:1]._repr_html_()


def test_a_notebook_shows_it_once(monkeypatch):
    report = softspoken.evaluate(texts=TEXTS, systems={"base": BASE, "mine": MINE})
    displayed = []
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")  # as Jupyter's kernels set it
    monkeypatch.setattr("rich.jupyter.display", lambda *given: displayed.append(given))
    assert "Decoded greedily" in repr(report)
    assert "\x1b" not in repr(report)
    assert displayed == []


def test_several_responses_to_each_text_are_samples(tmp_path):
    report = softspoken.evaluate(
        texts=TEXTS, systems={"base": [[one, one] for one in BASE]}, output=str(tmp_path / "kept"), seed=3
    )
    assert [(one.name, one.decoding) for one in report.systems] == [("base", "sampled")]
    assert report.config["seed"] == 3
    assert (tmp_path / "kept" / "report.html").is_file()
    assert softspoken.read_run(tmp_path / "kept").evaluation == report


def test_no_folder_is_left_behind():
    report = softspoken.evaluate(texts=TEXTS, systems={"base": BASE})
    folder = report.folder
    assert (folder / "eval.json").is_file()
    del report
    assert not Path(folder).exists()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"texts": "one"}, "texts must be a list of texts; put the one text into a list"),
        ({"texts": ["a", 1, "b"]}, "texts: entry 2 is 1, which is no text"),
        ({"dataset": "mini"}, "dataset and texts were both given"),
        ({"texts": None, "references": BASE}, "references are to texts; give those as well"),
        ({"systems": [BASE]}, "systems is a list; give a dict of each system's name and its responses"),
        ({"references": ["a"]}, "references has 1 entries for 3 texts"),
        ({"systems": {"base": BASE[:2]}}, "systems: 'base' is 2 responses, and there are 3 texts"),
        ({"systems": {"base": "Tea"}}, "systems: 'base' is text, and there are 3 texts"),
        ({"systems": {"base": [["a"], ["b", "c"], ["d"]]}}, "to text 2; give each text as many"),
        ({"systems": {"base": ["a", None, "b"]}}, "to text 2; give each text as many"),
        ({"systems": {"human": BASE}}, "systems: 'human' cannot be the name of a system"),
        ({"adapter": ["runs/a/adapter"]}, "adapter is for models that answer, and systems are given as responses"),
        ({"samples": 3}, "samples is for models that answer"),
        ({"seed": 1.5}, "seed 1.5 cannot be used: give a whole number"),
        ({"config": softspoken.EvaluateConfig(output="x")}, "takes an EvaluateConfig or lists and settings, not both"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(given, words):
    with pytest.raises(InputError, match=r"^[^\n]*$") as caught:
        softspoken.evaluate(**{"texts": TEXTS, "systems": {"base": BASE}, **given})
    assert words in str(caught.value)


def test_columns_of_pandas_and_arrays_of_numpy_are_lists():
    asked = {"texts": pandas.Series(TEXTS), "references": numpy.array(BASE), "systems": {"base": pandas.Series(BASE)}}
    report = softspoken.evaluate(**asked)
    assert [(one.name, one.n) for one in report.systems] == [("human", 3), ("base", 3)]


def test_frames_of_what_is_not_there_are_refused():
    report = softspoken.evaluate(texts=TEXTS, systems={"base": BASE})
    with pytest.raises(InputError, match="give figures or rows"):
        report.to_frame("columns")
    with pytest.raises(InputError, match="evaluate again"):
        replace(report, folder=Path("nowhere")).to_frame("rows")
