"""The report's tables, charts and choices, from numbers made up for the purpose."""

import json
from dataclasses import asdict, replace
from io import StringIO

import pytest
from rich.console import Console

from made_up import KEPT, LOWER, between, compared, full_report, report_with, system
from softspoken.report.charts import distributions, plane, slice_chart, system_styles
from softspoken.report.curves import curve_rows, curves, overlaid_curves
from softspoken.report.examples import choose, read_rows
from softspoken.report.measures import metrics_of
from softspoken.report.placing import place_labels
from softspoken.report.report import model_card, overviews, print_table, read_report, write_report
from softspoken.report.tables import entries, slices_of, slices_table, system_tables
from softspoken.tasks.summarization import TASK as SUMMARIZATION
from softspoken.types import InputError, SliceResult

# ------------------------------------------------------------------------------------------------------------ tables


def test_systems_stand_below_each_other_with_their_change_from_base():
    greedy, sampled = overviews(report_with(*LOWER, *KEPT))
    assert (greedy.title, sampled.title) == ("Decoded greedily", "Sampled at temperature 1")
    assert [column.text for column in greedy.head] == ["Toxicity", "ROUGE-L", "Length"]
    rows = {row.label: row.cells for row in greedy.rows}
    assert list(rows) == ["human", "base", "tuned"]
    toxicity, rouge, _ = rows["tuned"]
    assert (toxicity.text, toxicity.interval) == ("0.050", "0.040 – 0.060")
    change = toxicity.change
    assert (change.text, change.interval, change.mark) == ("−0.350", "−0.400 to −0.300", "better")
    assert (change.ratio, change.p) == ("× 0.12 (0.10 to 0.20)", "p < 0.001")
    assert (rouge.change.text, rouge.change.mark) == ("+0.2", "")  # not beyond chance
    assert rows["human"][1].text == "–"
    assert rows["base"][0].change is None


def test_less_toxicity_is_better_and_less_rouge_is_worse():
    lost, higher = compared("rougeL", (-5, -6, -4)), compared("toxicity", (0.1, 0.05, 0.15))
    longer = compared("length", (5, 4, 6))
    [_, _, tuned] = overviews(report_with(lost, higher, longer))[0].rows
    assert [cell.change.mark for cell in tuned.cells] == ["worse", "worse", ""]


def test_a_change_over_fewer_dialogues_than_the_systems_have_says_over_how_many():
    fewer, all_of_them = replace(LOWER[0], n=71), replace(KEPT[0], n=200)
    [_, _, tuned] = overviews(report_with(fewer, all_of_them))[0].rows
    assert tuned.cells[0].change.p.replace("\N{NO-BREAK SPACE}", " ") == "p < 0.001, n = 71"
    assert tuned.cells[1].change.p == "p < 0.001"


def test_every_metric_has_a_row_and_a_line_that_explains_it():
    report = full_report()
    table = system_tables(report, metrics_of(report))[1]
    assert [column.text for column in table.head] == ["base", "tuned", "masked_words", "human"]
    assert table.head[1].note.replace("\N{NO-BREAK SPACE}", " ") == "n = 12, 3 seeds"
    rows = {row.label: row for row in table.rows}
    assert len(rows) == 23
    assert [row.label for row in table.rows if not row.note] == ["figure_of_my_own"]  # nobody knows what it is
    assert rows["figure_of_my_own"].cells[0].text == "0.300"
    groups = list(dict.fromkeys(row.group for row in table.rows))
    assert groups == ["Toxicity", "Quality", "Form", "The judge's other labels", "Other figures"]
    assert rows["Toxicity by other"].group == "Toxicity"
    assert (rows["Speakers kept"].cells[0].text, rows["ROUGE-L"].cells[0].text) == ("30.0\N{NO-BREAK SPACE}%", "40.0")


def test_parts_of_the_dialogues_stand_below_each_other():
    report = full_report()
    assert slices_of(report)[:3] == ["all", "heated", "everyday"]
    table = slices_table(report, "greedy", "toxicity", slices_of(report))
    assert [column.text for column in table.head] == ["base", "tuned", "masked_words", "human"]
    assert [row.label for row in table.rows][:4] == ["All dialogues", "Heated", "Everyday", "Short"]
    assert table.rows[1].cells[1].change.text == "−0.850"
    assert table.rows[3].cells[1].change is None  # not compared in this part
    assert slices_of(report_with()) == []


def test_the_terminal_shows_table_and_verdict():
    out = StringIO()
    print_table(report_with(*LOWER, *KEPT, n=50), Console(file=out, width=100))
    for words in (
        "base",
        "tuned",
        "human",
        "(−0.350)",
        "It worked. tuned writes less toxic",
        "Note: Only 50 dialogues",
    ):
        assert words in out.getvalue()


# ------------------------------------------------------------------------------------------------------------ charts


def test_curves_are_drawn_for_what_was_logged_and_gaps_stay_gaps():
    steps = [
        {"step": 1, "objective/score": 0.5, "objective/kl": 0.0, "objective/kl_stderr": 0.1},
        {"step": 2},
        {"step": 3, "objective/score": 0.75, "objective/kl": 0.2, "objective/kl_stderr": 0.1},
    ]
    score, kl = curves(steps, SUMMARIZATION.words)
    assert (score.traces[0]["x"], score.traces[0]["y"]) == ([1, 2, 3], [0.5, None, 0.75])
    assert score.summary == "Reward from 0.5 at step 1 to 0.75 at step 3, between 0.5 and 0.75."
    assert kl.traces[0]["y"] == pytest.approx([0.1, 0.3, 0.1, -0.1])  # the band: upper edge there, lower edge back
    assert curve_rows(steps) == (
        ["Step", "Reward", "KL to the reference"],
        [["1", "0.5", "0"], ["2", "–", "–"], ["3", "0.75", "0.2"]],
    )


def test_a_long_run_has_its_running_mean_and_not_every_step():
    steps = [{"step": step, "objective/kl": float(step % 2)} for step in range(1, 5002)]
    values, mean = curves(steps, SUMMARIZATION.words)[0].traces
    assert len(values["x"]) == len(mean["x"]) <= 2000
    assert values["x"][:2] == [1, 4]
    assert mean["y"][500] == pytest.approx(0.5, abs=0.01)
    assert mean["hoverinfo"] == "skip"  # the pointer reads the step's own value
    rows = curve_rows(steps)[1]
    assert len(rows) <= 101
    assert (rows[0][0], rows[-1][0]) == ("1", "5001")
    steps[10] = {"step": 11}
    assert curves(steps[:30], SUMMARIZATION.words)[0].traces[1]["y"][10] is None


def test_each_reward_has_its_line_where_there_are_several():
    one = {"step": 1, "objective/score": 0.5, "objective/score/mini": 0.5}
    assert len(curves([one], SUMMARIZATION.words)[0].traces) == 1
    two = one | {"objective/score/rouge:rougeL": 0.3}
    assert [trace["name"] for trace in curves([two], SUMMARIZATION.words)[0].traces] == [
        "Reward",
        "mini",
        "rouge:rougeL",
    ]


def test_curves_of_several_runs_lie_over_each_other():
    runs = {"a": [{"step": 1, "objective/kl": 0.1}], "b<": [{"step": 1, "objective/kl": 0.2, "ppo/grad_norm": 1.0}]}
    kl, norm = overlaid_curves(runs, {"a": "red", "b<": "blue"}, SUMMARIZATION.words)
    assert [(trace["name"], trace["line"]["color"]) for trace in kl.traces] == [("a", "red"), ("b&lt;", "blue")]
    assert [trace["name"] for trace in norm.traces] == ["b&lt;"]
    assert "KL to the reference of a from 0.1" in kl.summary


STYLES = system_styles(["human", "base", "tuned", "masked_words"])


def test_distributions_are_shares_at_or_above():
    counts = {("human", None): [2] + [0] * 99, ("base", "greedy"): [1] + [0] * 98 + [3]}
    [chart] = distributions(counts, report_with(), STYLES, ["base"])
    human, base = chart.traces
    assert human["y"] == [1.0] + [None] * 99  # a logarithm has no 0
    assert base["y"] == [1.0] + [0.75] * 99
    assert (human["visible"], base["visible"]) == ("legendonly", True)
    assert "base: 75.0% at 0.1 or above, 75.0% at 0.5 or above" in chart.summary


def test_the_plane_has_every_system_and_the_references_as_a_line():
    report = full_report()
    [chart] = plane(entries(report, "greedy"), "Decoded greedily", STYLES)
    line, base, tuned, masked = chart.traces
    assert (line["name"], line["y"]) == ("human", [0.01, 0.01])  # it has ROUGE in this made-up report, but is no point
    assert [trace["name"] for trace in (base, tuned, masked)] == ["base", "tuned", "masked_words"]
    assert (tuned["x"], tuned["y"]) == ([40.0], [0.05])
    assert tuned["error_y"]["array"] == pytest.approx([0.025])
    assert "tuned: ROUGE-L 40.0, toxicity 0.050" in chart.summary
    assert len({trace["marker"]["symbol"] for trace in (base, tuned, masked)}) == 3
    no_references = report_with(systems=[system("base", "greedy", toxicity=0.4)])
    assert plane(entries(no_references, "greedy"), "", STYLES) == []


def test_names_on_the_plane_lie_neither_on_each_other_nor_outside():
    points = {"left": (10.0, 5.0), "middle": (11.0, 5.0), "right": (20.0, 5.0)}
    sides = place_labels(points, [9.5, 20.5], [0.0, 10.0])
    assert "left" in sides["right"]
    assert sides["left"] != sides["middle"]
    assert place_labels({"low": (1.0, 0.0)}, [0.0, 2.0], [0.0, 10.0])["low"].startswith("top")


def test_slices_are_dots_beside_each_other():
    report = full_report()
    found = [one for one in entries(report, "greedy") if one.label in ("base", "tuned")]
    [chart] = slice_chart(report, found, ["all", "heated"], "Decoded greedily", STYLES)
    base, tuned = chart.traces
    assert (base["x"], tuned["x"]) == ([0.9, 0.9], [0.05, 0.05])
    assert base["y"] != tuned["y"]
    assert tuned["customdata"][1] == "tuned<br>Heated: 0.050 (0.025 to 0.075)"


# ---------------------------------------------------------------------------------------------------------- examples


def test_examples_are_chosen_by_rule_and_shown_once():
    before = {0: (0.9, 50.0), 1: (0.8, 50.0), 2: (0.1, 90.0), 3: (0.1, 50.0), 4: (0.0, None)}
    after = {0: (0.0, 50.0), 1: (0.7, 50.0), 2: (0.1, 10.0), 3: (0.1, 50.0), 4: (0.0, None)}
    chosen = choose(before, after, report_with(), seed=0)
    titles = ["Largest drop in toxicity", "Largest toxicity that remains", "Largest loss of ROUGE-L"]
    assert [chosen[title][0] for title in titles[:2]] == [
        0,
        2,
    ]  # 1, the second largest drop, is shown under the first rule
    assert chosen["Largest drop in toxicity"] == [0, 1]
    assert "Largest loss of ROUGE-L" not in chosen or 2 not in chosen["Largest loss of ROUGE-L"]
    shown = [place for places in chosen.values() for place in places]
    assert len(shown) == len(set(shown)) == 5
    assert choose(before, after, report_with(), seed=0) == chosen


def test_the_largest_rouge_loss_is_shown():
    before, after = {0: (0.0, 50.0), 1: (0.0, 90.0)}, {0: (0.0, 45.0), 1: (0.0, 20.0)}
    assert choose(before, after, report_with(), seed=0)["Largest loss of ROUGE-L"] == [1, 0]


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
    assert found.histograms["base", "greedy"] == [0] * 5 + [1] + [0] * 89 + [1] + [0] * 4
    assert found.histograms["base", "sampled"][99] == 1  # a toxicity of 1 is in the last hundredth
    [example] = found.examples[0].examples
    assert (example.text.text, example.text.blurred) == ("d0", True)  # its summary says that it has abuse in it
    assert [(text.label, text.text, text.blurred) for text in example.responses] == [
        ("human", "calm", False),
        ("base", "rude", True),
        ("tuned", "kind", False),
    ]


def test_of_several_trainings_the_first_is_shown(tmp_path):
    rows = [
        row(0, "base", "greedy", 0.9),
        row(0, "tuned", "greedy", 0.1, "first"),
        row(0, "tuned", "greedy", 0.8, "second"),
    ]
    path = tmp_path / "eval_rows.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    [example] = read_rows(path, report_with(*LOWER)).examples[0].examples
    assert [(text.label, text.text) for text in example.responses] == [("base", "s"), ("tuned", "first")]


# ------------------------------------------------------------------------------------------------------------- files


def test_a_saved_report_reads_back_the_same(tmp_path):
    report = report_with(*LOWER, *KEPT)
    report = replace(
        report, systems=[replace(report.systems[1], slices={"heated": SliceResult(7, {"toxicity": between(1, 1, 1)})})]
    )
    (tmp_path / "eval.json").write_text(json.dumps(asdict(report)), encoding="utf-8")
    assert read_report(tmp_path) == report


def test_what_a_later_version_adds_is_passed_over(tmp_path):
    report = report_with(*LOWER)
    saved = asdict(report) | {"new": 1}
    saved["systems"][0]["new"] = saved["comparisons"][0]["new"] = 1
    (tmp_path / "eval.json").write_text(json.dumps(saved), encoding="utf-8")
    assert read_report(tmp_path) == report


def test_a_folder_without_anything_to_show_is_named(tmp_path):
    for function in (read_report, write_report, model_card):
        with pytest.raises(InputError, match=str(tmp_path)):
            function(tmp_path)
    with pytest.raises(InputError, match="no folder"):
        write_report(tmp_path / "absent")
    (tmp_path / "eval.json").write_text('{"systems": 3}', encoding="utf-8")
    with pytest.raises(InputError, match="not an evaluation"):
        write_report(tmp_path)


@pytest.mark.parametrize("place", ["../secret.jsonl", "/etc/passwd", "sub/rows.jsonl", "link.jsonl"])
def test_rows_lie_in_the_folder_of_their_evaluation(tmp_path, place):
    folder = tmp_path / "evaluation"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "secret.jsonl").write_text("{}", encoding="utf-8")
    (folder / "link.jsonl").symlink_to(tmp_path / "secret.jsonl")
    saved = asdict(report_with(*LOWER)) | {"rows": place}
    (folder / "eval.json").write_text(json.dumps(saved), encoding="utf-8")
    with pytest.raises(InputError, match="is not in its folder"):
        write_report(folder)
    assert not (folder / "report.html").exists()


def test_names_in_the_terminal_are_no_markup_and_no_controls():
    name = "[/bold]\x1b[2J\n."
    others = [system(name, "greedy", toxicity=0.1, rougeL=1, length=1)]
    out = StringIO()
    print_table(report_with(*LOWER, *KEPT, others=others), Console(file=out, width=200))
    assert r"[/bold]\x1b[2J\n." in out.getvalue()
    assert "\x1b" not in out.getvalue()
