"""The table of all rows: what is in it, and that it stays bounded."""

import json

from made_up import full_report, rows_of
from softspoken.report import every_row as module
from softspoken.report.every_row import as_json, every_row


def written(tmp_path, rows):
    path = tmp_path / "eval_rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_every_example_is_there_with_both_responses_and_their_figures(tmp_path):
    report = full_report()
    table = every_row(written(tmp_path, rows_of(report)), report)
    assert (len(table["rows"]), table["of"], table["cut"]) == (12, 12, 0)
    assert table["systems"] == ["base", "tuned"]
    assert [one["key"] for one in table["metrics"]] == ["toxicity", "reward", "rougeL"]
    name, parts, _, blurred, base, tuned = table["rows"][7]
    assert (name, parts, blurred) == ("d7", ["everyday"], True)
    assert (base[1:], tuned[1:]) == ([True, [0.9, None, 40.0]], [False, [0.05, None, 40.0]])
    assert every_row(tmp_path / "none.jsonl", report) is None


def test_texts_and_rows_are_cut_to_what_fits_and_counted(tmp_path, monkeypatch):
    report = full_report()
    path = written(tmp_path, rows_of(report))
    monkeypatch.setattr(module, "MOST_ROWS", 5)
    monkeypatch.setattr(module, "MOST_CHARACTERS", 200)
    table = every_row(path, report)
    assert (len(table["rows"]), table["of"]) == (5, 12)
    # 200 characters over 5 rows: 20 for each text, 10 for each response.
    assert max(len(row[2]) for row in table["rows"]) == 20
    assert {len(row[4][0]) for row in table["rows"]} == {10}
    assert table["rows"][0][4][0].endswith("…")
    assert table["cut"] == 5 * 3


def test_the_data_cannot_end_its_element():
    text = as_json({"rows": ["</script><script>alert(1)</script>", "<!--"]})
    assert "<" not in text
    assert json.loads(text)["rows"][1] == "<!--"
