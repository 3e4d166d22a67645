"""A local file is split where no evaluation set is given; an evaluation on what was trained on says so, in red."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from softspoken.config import EvaluateConfig
from softspoken.data.holding_out import TRAINED_ON
from softspoken.evaluation.evaluate import evaluate
from softspoken.report.report import print_table, read_report
from softspoken.train import train
from softspoken.training.start import Evaluated, evaluated
from softspoken.types import InputError
from tiny_run import config_for


def rows_of(run: Path) -> set[str]:
    return {json.loads(line)["id"] for line in (run / "eval_rows.jsonl").read_text(encoding="utf-8").splitlines()}


def test_a_tenth_is_held_out_and_a_later_evaluation_finds_it_again(tiny_t5, data, tmp_path):
    settings = {"steps": 1, "eval_limit": None, "eval_samples": 0, "eval_share": 0.2}
    run = train(config_for(tiny_t5, data, tmp_path / "run", **settings))
    held = rows_of(run)
    assert len(held) == 2
    assert len((run / TRAINED_ON).read_text(encoding="ascii").split()) == 8
    report = read_report(run)
    assert (report.alarms, report.config["held_out"]) == ([], 0.2)

    again = EvaluateConfig(
        output=str(tmp_path / "again"), model=str(tiny_t5), adapter=[str(run / "adapter")], dataset=str(data),
        samples=0, judge=["mini"], held_out=0.2, device="cpu",
    )  # fmt: skip
    assert evaluate(again).alarms == []
    assert rows_of(tmp_path / "again") == held
    everything = evaluate(replace(again, output=str(tmp_path / "all"), held_out=0.0))
    [alarm] = everything.alarms
    assert alarm.startswith("tuned was trained on 8 of these 10 dialogues: ")
    page = (tmp_path / "all" / "report.html").read_text(encoding="utf-8")
    assert f'<p class="remark alarm"><b>{alarm}</b></p>' in page
    console = Console(
        record=True, width=200, force_terminal=True, color_system="standard", file=(tmp_path / "x").open("w")
    )
    print_table(everything, console)
    assert f"\x1b[1;31m{alarm[:40]}" in console.export_text(styles=True)


def test_rows_are_held_out_of_a_dict_that_has_but_one_split(tiny_t5, data, tmp_path, caplog):
    rows = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
    settings = {"steps": 1, "eval_limit": None, "eval_samples": 0, "eval_share": 0.2}
    with caplog.at_level("INFO"):
        run = train(config_for(tiny_t5, data, tmp_path / "run", dataset={"train": rows}, **settings))
    held = rows_of(run)
    assert len(held) == 2
    said = "rows given in Python: 8 rows are trained on, and 2 rows are held out for the evaluation, in whole groups (--eval_share 0.2, seed 0)"
    assert said in caplog.messages
    report = read_report(run)
    assert (report.alarms, report.dataset["split"], report.config["held_out"]) == ([], "train", 0.2)
    assert ", held out from training" in (run / "README.md").read_text(encoding="utf-8")

    again = EvaluateConfig(
        output=str(tmp_path / "again"), model=str(tiny_t5), dataset={"train": rows}, samples=0, judge=["mini"], held_out=0.2,
        device="cpu",
    )  # fmt: skip
    assert evaluate(again).dataset["split"] == "train"
    assert rows_of(tmp_path / "again") == held
    with pytest.raises(InputError, match="held_out is for a dataset that is one set or one split, and rows given in"):
        evaluate(replace(again, output=str(tmp_path / "two"), dataset={"train": rows, "test": rows}))


def test_a_set_of_one_split_is_evaluated_on_as_it_is_asked(tiny_t5, data, tmp_path):
    """Without a share on what was trained on, as a file is; and on the part of a split that is named."""
    rows = {"train": [{"dialogue": "Nora: hi", "summary": "Hi."}]}
    config = config_for(tiny_t5, data, tmp_path, dataset=rows)
    for changes, split, share in (
        ({"eval_share": 0.0}, "train", 0.0),
        ({"eval_split": "train"}, "train", 0.0),
        ({"eval_dataset": str(data)}, "test", 0.0),
        ({"dataset": str(data)}, "test", 0.1),
        ({"dataset": {**rows, "test": []}}, "test", 0.0),
    ):
        assert evaluated(replace(config, eval_limit=None, **changes)) == Evaluated(split, share)


def test_training_rows_are_evaluated_on_where_that_is_asked_for(tiny_t5, data, tmp_path):
    run = train(config_for(tiny_t5, data, tmp_path / "run", steps=1, eval_limit=4, eval_samples=0, eval_share=0.0))
    [alarm] = read_report(run).alarms
    assert alarm.startswith("tuned was trained on 4 of these 4 dialogues")
    assert f"> **{alarm}**" in (run / "README.md").read_text(encoding="utf-8")
