"""Report and verdict speak of the task's own objective, guards and nouns; figures made up for the purpose."""

import json
from dataclasses import asdict, replace
from io import StringIO

import pytest
from rich.console import Console

from made_up import compared, report_with, system
from softspoken.report.examples import choose
from softspoken.report.measures import measure
from softspoken.report.report import overviews, print_table, titles, write_report
from softspoken.report.verdict import verdicts
from softspoken.tasks import detoxification, translation
from softspoken.tasks.task import told

UP = [compared("J", (0.2, 0.15, 0.25)), compared("J", (0.1, 0.05, 0.15), decoding="sampled")]
KEPT = [compared("similarity", (0.0, -0.01, 0.01)), compared("similarity", (0.0, -0.015, 0.01), decoding="sampled")]


def rewrites(*comparisons, others=()):
    systems = [system("human", None, J=0.8, similarity=0.9)]
    for decoding in ("greedy", "sampled"):
        systems += [system("base", decoding, J=0.3, similarity=0.8), system("tuned", decoding, J=0.5, similarity=0.8)]
    return replace(
        report_with(*comparisons), systems=[*systems, *others], task=told(detoxification.TASK), judges=["mini"]
    )


@pytest.mark.parametrize(
    ("comparisons", "headline"),
    [
        (UP + KEPT, "It worked"),
        (UP, "Better; meaning was not measured"),
        (
            [*UP, KEPT[0], compared("similarity", (-0.1, -0.12, -0.08), decoding="sampled")],
            "Better, at the price of meaning",
        ),
        (
            [*UP, KEPT[0], compared("similarity", (-0.01, -0.03, 0.0), decoding="sampled")],
            "Better; meaning is not settled",
        ),
        ([compared("J", (-0.2, -0.25, -0.15)), UP[1], *KEPT], "It made things worse"),
    ],
)
def test_an_objective_that_is_to_rise_decides(comparisons, headline):
    assert [verdict.headline for verdict in verdicts(rewrites(*comparisons))] == [headline]


def test_the_verdict_is_about_rewrites():
    [verdict] = verdicts(rewrites(*UP, *KEPT))
    assert verdict.sentences[0].startswith(
        "tuned writes better rewrites than base: mean J goes from 0.300 to 0.500 decoded greedily (difference +0.200, 95 % interval"
    )
    assert verdict.sentences[1].startswith(
        "The rewrites kept the meaning, to within 0.02 of similarity: Similarity changes by"
    )
    assert [(figure.value, figure.label, figure.mark) for figure in verdict.figures[:2]] == [
        ("+0.200", "J, greedy", "better"), ("+0.100", "J, sampled", "better"),
    ]  # fmt: skip


def test_a_warm_start_that_is_as_good_is_named():
    sft = system("sft", "greedy", J=0.5, similarity=0.8)
    [verdict] = verdicts(rewrites(*UP, *KEPT, others=[sft]))
    assert verdict.headline == "It worked, but not better than sft"
    copy = system("copy", "greedy", J=0.1, similarity=0.8)
    [verdict] = verdicts(rewrites(*UP, *KEPT, others=[copy]))
    assert verdict.notes[-1].startswith("tuned is better than copy, ")
    delete = system("delete", "greedy", J=0.7, similarity=0.9)
    [verdict] = verdicts(rewrites(*UP, *KEPT, others=[delete]))
    assert "tuned is worse in J and worse in similarity decoded greedily (J 0.500 against 0.700" in verdict.notes[-1]


def test_tables_titles_and_choices_go_by_the_objective():
    report = rewrites(*UP, *KEPT)
    assert [column.text for column in overviews(report)[0].head][:2] == ["J", "Similarity"]
    assert titles(report) == {"plane": "J against Similarity", "distribution": "J before and after"}
    assert measure("J", report).explanation == "style × similarity × fluency of a rewrite, on average"
    chosen = choose({0: (0.1, 0.9), 1: (0.5, 0.9)}, {0: (0.6, 0.9), 1: (0.2, 0.2)}, report, seed=0)
    assert chosen == {"Largest rise in J": [0], "Largest loss of J": [1]}
    shown = StringIO()
    print_table(report, Console(file=shown, width=200))
    assert "summar" not in shown.getvalue()
    assert "dialogue" not in shown.getvalue()


def test_the_page_has_no_word_of_another_task(tmp_path):
    report = rewrites(*UP, *KEPT)
    (tmp_path / "eval.json").write_text(json.dumps(asdict(report)), encoding="utf-8")
    rows = [
        {"row": 0, "id": "a", "system": name, "decoding": how, "slices": ["all"], "sentence": "You idiot.", "rewrite": "You.",
         "reference": None, "metrics": {"J": 0.3, "similarity": 0.8, "toxicity": 0.9}}
        for name, how in (("human", None), ("base", "greedy"), ("tuned", "greedy"))
    ]  # fmt: skip
    (tmp_path / "eval_rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    page = write_report(tmp_path).read_text(encoding="utf-8")
    seen = page[page.index("<body") : page.index("<script", page.index("<body"))]
    assert "Only the rewrite is judged, never the sentence with it." in seen
    assert "Sentence a" in seen
    for word in ("ummaries", "ialogues"):
        assert word not in seen


def test_a_guard_that_goes_both_ways_holds_on_both_sides():
    objective = [compared("chrf", (5, 4, 6)), compared("bleu", (1, 0.5, 1.5))]
    report = replace(
        report_with(*objective, compared("length_ratio", (0.3, 0.2, 0.4))), task=told(translation.TASK), judges=[]
    )
    systems = [system(name, "greedy", chrf=40, bleu=20, length_ratio=1) for name in ("base", "tuned")]
    [verdict] = verdicts(replace(report, systems=systems))
    assert verdict.headline == "Better, at the price of BLEU or length"
    assert verdict.sentences[0].startswith(
        "tuned writes better translations than base: mean chrF goes from 40.0 to 40.0"
    )
    assert "The translations came closer to the references: BLEU changes by +1.0 points" in verdict.sentences[1]
    assert "The translations changed in length: Length ratio changes by +0.300" in verdict.sentences[2]
