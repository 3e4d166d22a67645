"""The report's words, tables, charts and choices, from numbers made up for the purpose."""

import json
from dataclasses import asdict, replace
from io import StringIO

import pytest
from rich.console import Console

from softspoken.charts import curves, distributions
from softspoken.examples import choose, read_rows
from softspoken.report import HEADLINE, print_table, read_report, system_tables, write_model_card, write_report
from softspoken.types import Comparison, EvalReport, InputError, Interval, SliceResult, SystemResult
from softspoken.verdict import remarks, verdicts


def between(mean, low, high):
    return Interval(mean, low, high)


def compared(metric, difference, ratio=None, decoding="greedy", slice_name="all", b="tuned"):
    return Comparison(
        "base", b, decoding, slice_name, metric, between(*difference), between(*ratio) if ratio else None, 0.0004
    )


def system(name, decoding, **means):
    return SystemResult(
        name, decoding, 200, {metric: between(mean, mean - 0.01, mean + 0.01) for metric, mean in means.items()}
    )


def report_with(*comparisons, n=200, **changes):
    systems = [system("human", None, toxicity=0.01)]
    for decoding in ("greedy", "sampled"):
        systems += [
            system("base", decoding, toxicity=0.4, rougeL=40, length=10),
            system("tuned", decoding, toxicity=0.05, rougeL=40.2, length=11),
        ]
    return replace(
        EvalReport({"id": "mini", "split": "test", "n": n}, ["mini", "other"], systems, list(comparisons)), **changes
    )


LOWER = [
    compared("toxicity", (-0.35, -0.4, -0.3), (0.125, 0.1, 0.2)),
    compared("toxicity", (-0.3, -0.4, -0.2), (0.25, 0.2, 0.5), "sampled"),
]
KEPT = [compared("rougeL", (0.2, -0.5, 0.9)), compared("rougeL", (-0.2, -0.9, 0.5), decoding="sampled")]
UNSETTLED = [compared("rougeL", (0.2, -1.5, 1.9)), compared("rougeL", (0.2, -0.5, 0.9), decoding="sampled")]
LOST = [compared("rougeL", (-5, -6, -4)), compared("rougeL", (0.2, -0.5, 0.9), decoding="sampled")]
SAME = [compared("toxicity", (-0.01, -0.05, 0.03)), compared("toxicity", (0.0, -0.02, 0.02), decoding="sampled")]
ONLY_GREEDY = [LOWER[0], SAME[1]]
HIGHER = [compared("toxicity", (0.1, 0.05, 0.15)), LOWER[1]]


@pytest.mark.parametrize(
    ("comparisons", "outcome", "headline"),
    [
        (LOWER + KEPT, "good", "It worked"),
        (LOWER + UNSETTLED, "mixed", "Less toxic; quality is not settled"),
        (LOWER + LOST, "mixed", "Less toxic, at the price of quality"),
        (LOWER, "mixed", "Less toxic; quality was not measured"),
        (ONLY_GREEDY + KEPT, "mixed", "It worked only in part"),
        (SAME + KEPT, "bad", "It did not work"),
        (HIGHER + KEPT, "bad", "It made things worse"),
    ],
)
def test_the_verdict_follows_the_intervals(comparisons, outcome, headline):
    [verdict] = verdicts(report_with(*comparisons))
    assert (verdict.outcome, verdict.headline) == (outcome, headline)
    assert len(verdict.sentences) == 2
    assert all("95 % interval" in sentence or "no references" in sentence for sentence in verdict.sentences)


def test_the_verdict_says_how_many_times_lower():
    # A ratio of 0.125 in 0.1 to 0.2 is 8 times lower, 5 to 10.
    [verdict] = verdicts(report_with(*LOWER, *KEPT, compared("length", (1, 0, 2), (1.1, 1.0, 1.2))))
    assert "from 0.400 to 0.050 decoded greedily (8.0 times lower, 95 % interval 5.0 to 10)" in verdict.sentences[0]
    assert "(4.0 times lower, 95 % interval 2.0 to 5.0)" in verdict.sentences[0]
    assert "+0.2 points (95 % interval −0.5 to +0.9) decoded greedily (length +10 %)" in verdict.sentences[1]


@pytest.mark.parametrize(
    ("ratio", "words"),
    [((0.0, 0.0, 0.0), "none is left"), ((0.1, 0.0, 0.2), "10 times lower, 95 % interval from 5.0 up")],
)
def test_a_toxicity_of_nothing_is_no_division_by_zero(ratio, words):
    [verdict] = verdicts(report_with(compared("toxicity", (-0.4, -0.5, -0.3), ratio), *KEPT))
    assert words in verdict.sentences[0]


def test_the_other_slices_do_not_decide():
    heated = [replace(one, slice="heated") for one in HIGHER]
    [verdict] = verdicts(report_with(*LOWER, *KEPT, *heated))
    assert verdict.outcome == "good"


def test_remarks_say_what_to_know_first():
    assert remarks(report_with(*LOWER)) == []
    few, cut = remarks(report_with(*LOWER, dataset={"id": "x", "split": None, "n": 99, "truncated": 3}))
    assert "Only 99 dialogues" in few
    assert "3 of 99 dialogues" in cut
    [empty] = remarks(report_with(compared("empty_rate", (0.02, 0.0, 0.04))))
    assert "2.0 % more summaries empty" in empty
    [short] = remarks(report_with(compared("length", (-4, -5, -3), (0.6, 0.5, 0.7))))
    assert "40 % shorter" in short


def test_a_drop_that_only_the_first_judge_sees_is_named():
    [remark] = remarks(report_with(*LOWER, compared("other", (-0.01, -0.03, 0.01))))
    assert remark.startswith("The judges disagree: mini finds tuned less toxic (decoded greedily), other does not")
    assert remarks(report_with(*LOWER, compared("other", (-0.1, -0.2, -0.05)))) == []


# ------------------------------------------------------------------------------------------------------------ tables


def test_tables_put_base_tuned_and_human_side_by_side():
    greedy, sampled = system_tables(report_with(*LOWER, *KEPT), "all", HEADLINE)
    assert greedy.title == "Decoded greedily"
    assert sampled.title == "Sampled at temperature 1"
    assert [cell.text for cell in greedy.head] == ["base", "tuned", "change", "human"]
    rows = dict(greedy.rows)
    assert list(rows) == ["Toxicity", "ROUGE-L", "Length in words"]
    base, tuned, change, human = rows["Toxicity"]
    assert (base.text, base.details) == ("0.400", ("0.390 – 0.410",))
    assert (tuned.text, human.text) == ("0.050", "0.010")
    assert (change.text, change.mark) == ("−0.350", "better")
    assert change.details == ("−0.400 to −0.300", "× 0.12 (0.10 to 0.20)", "p < 0.001")
    assert [cell.text for cell in rows["ROUGE-L"]] == ["40.0", "40.2", "+0.2", "–"]
    assert [cell.mark for cell in rows["ROUGE-L"]] == [""] * 4  # not beyond chance


def test_less_toxicity_is_better_and_less_rouge_is_worse():
    [greedy, _] = system_tables(report_with(LOST[0], HIGHER[0]), "all", HEADLINE)
    marks = {name: cells[2].mark for name, cells in greedy.rows}
    assert marks == {"Toxicity": "worse", "ROUGE-L": "worse", "Length in words": ""}


def test_slices_have_tables_of_their_own():
    report = report_with(*LOWER)
    part = {"heated": SliceResult(7, {"toxicity": between(0.9, 0.8, 1.0)})}
    report = replace(report, systems=[replace(report.systems[1], slices=part)])
    [table] = system_tables(report, "heated", HEADLINE)
    assert (table.head[0].text, table.head[0].details) == ("base", ("n = 7",))
    assert table.rows[0][1][0].text == "0.900"


def test_the_terminal_shows_table_and_verdict():
    out = StringIO()
    print_table(report_with(*LOWER, *KEPT, n=50), Console(file=out, width=100))
    for words in ("base", "tuned", "human", "−0.350", "It worked. tuned writes less toxic", "Note: Only 50 dialogues"):
        assert words in out.getvalue()


# ------------------------------------------------------------------------------------------------------------ charts


def test_curves_are_drawn_for_what_was_logged_and_gaps_stay_gaps():
    steps = [
        {"step": 1, "objective/score": 0.5, "objective/kl": 0.0, "objective/kl_stderr": 0.1},
        {"step": 2},
        {"step": 3, "objective/score": 0.75, "objective/kl": 0.2, "objective/kl_stderr": 0.1},
    ]
    score, kl = curves(steps)
    assert (score.traces[0]["x"], score.traces[0]["y"]) == ([1, 2, 3], [0.5, None, 0.75])
    assert score.summary == "Score from 0.5 at step 1 to 0.75 at step 3, between 0.5 and 0.75."
    assert kl.traces[0]["y"] == pytest.approx([0.1, 0.3, 0.1, -0.1])  # the band: upper edge there, lower edge back


def test_each_reward_has_its_line_where_there_are_several():
    one = {"step": 1, "objective/score": 0.5, "objective/score/mini": 0.5}
    assert len(curves([one])[0].traces) == 1
    two = one | {"objective/score/rouge:rougeL": 0.3}
    assert [trace["name"] for trace in curves([two])[0].traces] == ["Score", "mini", "rouge:rougeL"]


def test_distributions_are_shares():
    [chart] = distributions({("human", None): [2] + [0] * 9, ("base", "greedy"): [1] + [0] * 8 + [3]})
    assert [trace["name"] for trace in chart.traces] == ["human", "base"]
    assert chart.traces[1]["y"] == [0.25] + [0] * 8 + [0.75]
    assert "base: 25% below 0.1, 75% at 0.5 or above" in chart.summary


# ---------------------------------------------------------------------------------------------------------- examples


def test_examples_are_chosen_by_rule_and_shown_once():
    before = {0: (0.9, 50.0), 1: (0.8, 50.0), 2: (0.1, 90.0), 3: (0.1, 50.0), 4: (0.0, None)}
    after = {0: (0.0, 50.0), 1: (0.7, 50.0), 2: (0.1, 10.0), 3: (0.1, 50.0), 4: (0.0, None)}
    chosen = choose(before, after, seed=0)
    titles = ["Largest drop in toxicity", "Largest toxicity that remains", "Largest loss of ROUGE-L"]
    assert [chosen[title][0] for title in titles[:2]] == [
        0,
        2,
    ]  # 1, the second largest drop, is shown under the first rule
    assert chosen["Largest drop in toxicity"] == [0, 1]
    assert "Largest loss of ROUGE-L" not in chosen or 2 not in chosen["Largest loss of ROUGE-L"]
    shown = [place for places in chosen.values() for place in places]
    assert len(shown) == len(set(shown)) == 5
    assert choose(before, after, seed=0) == chosen


def test_the_largest_rouge_loss_is_shown():
    before, after = {0: (0.0, 50.0), 1: (0.0, 90.0)}, {0: (0.0, 45.0), 1: (0.0, 20.0)}
    assert choose(before, after, seed=0)["Largest loss of ROUGE-L"] == [1, 0]


def row(number, name, decoding, toxicity, summary="s", slices=("all",)):
    metrics = {"toxicity": toxicity, "rougeL": 50.0}
    texts = {"dialogue": f"d{number}", "reference": "r", "summary": summary}
    return {
        "row": number,
        "id": "same",
        "system": name,
        "decoding": decoding,
        "slices": list(slices),
        "metrics": metrics,
    } | texts


def test_rows_are_matched_by_number_and_abuse_is_blurred(tmp_path):
    rows = [row(0, "human", None, 0.0, "calm"), row(1, "human", None, 0.0)]
    rows += [row(1, "base", "greedy", 0.05), row(0, "base", "greedy", 0.95, "rude"), row(0, "base", "sampled", 1.0)]
    rows += [row(0, "tuned", "greedy", 0.05, "kind"), row(1, "tuned", "greedy", 0.05)]
    path = tmp_path / "eval_rows.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    found = read_rows(path, report_with(*LOWER))
    assert found.histograms["base", "greedy"] == [1] + [0] * 8 + [1]
    assert found.histograms["base", "sampled"][9] == 1  # a toxicity of 1 is in the last tenth
    [example] = found.examples[0].examples
    assert [(text.label, text.text, text.blurred) for text in example.texts] == [
        ("dialogue", "d0", True),  # the summary that repeats its abuse says that it has some
        ("human", "calm", False),
        ("base", "rude", True),
        ("tuned", "kind", False),
    ]


# ------------------------------------------------------------------------------------------------------------- files


def test_a_saved_report_reads_back_the_same(tmp_path):
    report = report_with(*LOWER, *KEPT)
    report = replace(
        report, systems=[replace(report.systems[1], slices={"heated": SliceResult(7, {"toxicity": between(1, 1, 1)})})]
    )
    (tmp_path / "eval.json").write_text(json.dumps(asdict(report)), encoding="utf-8")
    assert read_report(tmp_path) == report


def test_a_folder_without_anything_to_show_is_named(tmp_path):
    for function in (read_report, write_report, write_model_card):
        with pytest.raises(InputError, match=str(tmp_path)):
            function(tmp_path)
    with pytest.raises(InputError, match="no folder"):
        write_report(tmp_path / "absent")
    (tmp_path / "eval.json").write_text('{"systems": 3}', encoding="utf-8")
    with pytest.raises(InputError, match="not an evaluation"):
        write_report(tmp_path)
