"""What the page says of a run's own end, of its evaluations on the way, and of the texts that taught nothing."""

import json
from dataclasses import replace

import pytest

from made_up import full_report, write_run
from softspoken.report.curves import curves
from softspoken.report.end_record import end_in_words, read_end
from softspoken.report.report import write_report
from softspoken.report.running import running_curves
from softspoken.report.shown import read_run
from softspoken.tasks.summarization import TASK as SUMMARIZATION
from softspoken.tasks.task import Guard
from softspoken.types import InputError

WHOLE = {"step": 50, "of": 50, "why": "all 50 steps were done", "kept": 50}
BEST = WHOLE | {"kept": 30}
EARLY = WHOLE | {"step": 40, "why": "patience: none of 2 evaluations in a row was better", "kept": 20}
COLLAPSED = WHOLE | {"step": 12, "why": "collapse: KL 3 is above max_kl 2 in 2 steps in a row", "kept": 10}


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (WHOLE, "all 50 steps were done; kept are the last weights"),
        (BEST, "all 50 steps were done; kept are the weights of step 30"),
        (
            EARLY,
            "after step 40 of 50 (patience: none of 2 evaluations in a row was better); kept are the weights of step 20",
        ),
        (
            COLLAPSED,
            "after step 12 of 50 (collapse: KL 3 is above max_kl 2 in 2 steps in a row); kept are the weights of step 10",
        ),
    ],
)
def test_an_end_in_words(end, said):
    assert end_in_words(end) == said


@pytest.mark.parametrize("damaged", ["[]", "{", '{"step": "1", "of": 2, "why": "", "kept": 1}', '{"step": 1}'])
def test_a_damaged_end_is_named(tmp_path, damaged):
    (tmp_path / "end.json").write_text(damaged)
    with pytest.raises(InputError, match=r"end\.json"):
        read_end(tmp_path)


def page_with(folder, end):
    run = write_run(folder, full_report(), steps=12)
    (run / "end.json").write_text(json.dumps(end))
    return write_report(run).read_text(encoding="utf-8")


def test_the_page_says_why_a_run_ended_and_a_collapse_in_red(tmp_path):
    early, collapsed = page_with(tmp_path / "early", EARLY), page_with(tmp_path / "collapsed", COLLAPSED)
    assert "<dt>Ended</dt><dd>after step 40 of 50 (patience:" in early
    assert 'class="remark alarm"' not in early
    assert '<p class="remark alarm"><b>Training ended after step 12 of 50 (collapse:' in collapsed


def test_a_run_that_has_not_come_to_its_end_is_said_to_have_not(tmp_path):
    page = write_report(write_run(tmp_path / "run", steps=12)).read_text(encoding="utf-8")
    assert "<dt>Ended</dt>" not in page  # what it was to do is not known
    known = write_run(tmp_path / "known", steps=12)
    record = (known / "config.yaml").read_text()
    (known / "config.yaml").write_text(record.replace("seed: 0", "seed: 0\n  steps: 50"))
    assert "<dt>Ended</dt><dd>not yet: 12 of 50 steps are done</dd>" in write_report(known).read_text(encoding="utf-8")


def test_python_has_the_end_as_it_was_written(tmp_path):
    run = write_run(tmp_path / "run", steps=12)
    assert read_run(run).end is None
    (run / "end.json").write_text(json.dumps(EARLY))
    assert read_run(run).end == EARLY


# ------------------------------------------------------------------------------------------- evaluations on the way

STEPS = [
    {"step": 1},
    {"step": 2, "eval/toxicity": 0.3, "eval/rougeL": 40.0, "eval/reward": 1.0, "eval/length": 9.0},
    {"step": 3},
    {"step": 4, "eval/toxicity": 0.2, "eval/rougeL": 38.0, "eval/reward": 1.5, "eval/length": 8.0},
]
START = {"toxicity": 0.5, "rougeL": 39.5, "reward": 0.5, "length": 10.0}


def test_evaluations_on_the_way_start_at_step_0_and_mark_what_was_kept():
    charts = running_curves(STEPS, SUMMARIZATION, WHOLE | {"kept": 2, "start": START})
    assert [chart.title for chart in charts] == ["Toxicity", "ROUGE-L", "Reward", "Length"]
    values, kept = charts[0].traces
    assert (values["x"], values["y"]) == ([0, 2, 4], [0.5, 0.3, 0.2])
    assert (kept["name"], kept["x"], kept["y"]) == ("kept", [2], [0.3])
    assert charts[0].summary == "Toxicity from 0.5 at step 0 to 0.2 at step 4, between 0.2 and 0.5."


def test_a_guard_has_its_margin_as_a_line():
    rouge = running_curves(STEPS, SUMMARIZATION, WHOLE | {"start": START})[1]
    assert [trace["name"] for trace in rouge.traces] == ["ROUGE-L", "margin"]
    assert (rouge.traces[1]["x"], rouge.traces[1]["y"]) == ([0, 4], [38.5, 38.5])  # a point below the start
    both = replace(SUMMARIZATION, guards=(Guard("length", margin=2.0, better=""),))
    length = running_curves(STEPS, both, WHOLE | {"start": START})[1]
    assert [trace["y"] for trace in length.traces[1:]] == [[8.0, 8.0], [12.0, 12.0]]


def test_a_run_that_goes_on_has_no_start_yet_and_one_without_evaluations_no_chart():
    [toxicity, *_] = running_curves(STEPS, SUMMARIZATION, None)
    assert toxicity.traces[0]["x"] == [2, 4]
    assert len(toxicity.traces) == 1
    assert running_curves([{"step": 1}], SUMMARIZATION, WHOLE) == []


# ---------------------------------------------------------------------------------------------- what taught nothing


def test_texts_whose_responses_score_alike_have_a_chart_with_the_replaced_ones():
    alone = curves([{"step": 1, "groups/alike": 2.0}, {"step": 2, "groups/alike": 3.0}], SUMMARIZATION.words)
    assert [chart.title for chart in alone] == ["Scored alike"]
    assert alone[0].note.startswith("dialogues of a step whose sampled summaries all scored the same")
    assert [trace["name"] for trace in alone[0].traces] == ["Scored alike"]
    [both] = curves([{"step": 1, "groups/alike": 2.0, "groups/replaced": 4.0}], SUMMARIZATION.words)
    assert [(trace["name"], trace["y"]) for trace in both.traces] == [("Scored alike", [2.0]), ("replaced", [4.0])]


def test_the_page_has_them_all(tmp_path):
    run = write_run(tmp_path / "run", full_report(), steps=1)
    (run / "metrics.jsonl").write_text("".join(json.dumps(row | {"groups/alike": 1.0}) + "\n" for row in STEPS))
    (run / "end.json").write_text(json.dumps(WHOLE | {"kept": 2, "start": START}))
    page = write_report(run).read_text(encoding="utf-8")
    assert 'id="running-3"' in page
    assert "<h3>Scored alike</h3>" in page
    assert len(read_run(run).plot()) >= 5
