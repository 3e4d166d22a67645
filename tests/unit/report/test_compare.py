"""Several runs on one page."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from made_up import between, full_report, write_run
from softspoken.cli.main import main
from softspoken.report.compare import compare, run_names
from softspoken.types import InputError


def test_runs_are_named_by_as_much_of_their_paths_as_it_takes(tmp_path):
    assert run_names([tmp_path / "a" / "x", tmp_path / "a" / "y"]) == ["x", "y"]
    assert run_names([tmp_path / "a" / "x", tmp_path / "b" / "x"]) == ["a/x", "b/x"]


@pytest.fixture
def runs(tmp_path):
    report = full_report()
    calmer = [
        replace(one, metrics=one.metrics | {"toxicity": between(0.123, 0.1, 0.2)}) if one.name == "tuned" else one
        for one in report.systems
    ]
    return [
        write_run(tmp_path / "first", report, kl_coef=0.1),
        write_run(tmp_path / "second", replace(report, systems=calmer), kl_coef=0.2),
        write_run(tmp_path / "unmeasured", steps=3),
    ]


def test_an_evaluation_on_what_was_trained_on_is_in_red_here_too(tmp_path):
    seen = replace(full_report(), alarms=["tuned was trained on 3 of these"])
    folders = [write_run(tmp_path / name, report, steps=1) for name, report in (("a", seen), ("b", full_report()))]
    text = compare(folders, tmp_path / "all.html").read_text(encoding="utf-8")
    assert text.count('<p class="remark alarm"><b>tuned was trained on 3 of these</b></p>') == 1
    assert "1 step, evaluated on" in text


def test_the_page_has_verdicts_tables_curves_and_what_differs(runs, tmp_path):
    (runs[0] / "report.html").write_text("", encoding="utf-8")
    text = compare(runs, tmp_path / "pages" / "all.html").read_text(encoding="utf-8")
    assert text.count("The judges disagree on whether it worked") == 2
    assert "Not evaluated" in text
    assert 'href="./../first/report.html"' in text
    assert "second/report.html" not in text  # it has none
    for row in (">base<", ">masked_<wbr>words<", ">first: tuned<", ">second: tuned<", ">0.123<"):
        assert row in text
    assert "first: base" not in text  # the same in both: once
    assert "first: human" not in text
    assert "heated dialogues alone" in text
    assert '<th scope="row">kl_coef</th><td>0.1</td><td>0.2</td><td>–</td>' in text
    assert '<th scope="row">seed</th>' not in text
    assert "cannot be set against each other" not in text


def test_the_name_of_a_folder_is_no_more_than_a_path_in_its_link(runs, tmp_path):
    other = write_run(tmp_path / "javascript:alert(1)" / "a?b#c d", full_report())
    (other / "report.html").write_text("", encoding="utf-8")
    text = compare([runs[0], other], tmp_path / "all.html").read_text(encoding="utf-8")
    assert 'href="./javascript%3Aalert%281%29/a%3Fb%23c%20d/report.html"' in text
    assert 'href="javascript' not in text


def test_a_base_that_is_not_the_same_stands_for_each_run_and_other_dialogues_are_a_doubt(runs, tmp_path):
    report = full_report()
    other = [replace(one, metrics=one.metrics | {"length": between(9, 8, 10)}) for one in report.systems]
    saved = replace(report, systems=other, dataset=report.dataset | {"n": 13})
    (runs[1] / "eval.json").write_text(json.dumps(asdict(saved)), encoding="utf-8")
    text = compare(runs, tmp_path / "all.html").read_text(encoding="utf-8")
    assert ">first: base<" in text
    assert ">second: base<" in text
    assert "evaluated on different dialogues, so their figures cannot be set against each other" in text
    assert "second: 13 dialogues of mini, test" in text


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["first"], "compare needs two folders"),
        (["first", "first"], "first is given twice"),
        (["first", "./first/"], "is given twice"),
        (["first", "absent"], "no folder at absent"),
        (["first", "empty"], "empty holds neither metrics.jsonl nor eval.json"),
        (["first", "second", "--output", "empty"], "output empty is a folder"),
        ([], "compare needs RUNS"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(runs, tmp_path, monkeypatch, capsys, words, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert main(["compare", *words]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert not (tmp_path / "compare.html").exists()


def test_the_command_writes_where_it_is_told(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["compare", "first", "second", "--output", "a.html"]) == 0
    assert capsys.readouterr().out == "comparison: a.html\n"
    assert Path("a.html").stat().st_size > 100_000


def test_a_folder_is_no_run(tmp_path):
    with pytest.raises(InputError, match="no folder"):
        compare([tmp_path / "a", tmp_path / "b"], tmp_path / "page.html")
