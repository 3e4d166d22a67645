"""A local file is split where no evaluation set is given; an evaluation on what was trained on says so, in red."""

import json
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from softspoken.config import EvaluateConfig
from softspoken.data.holding_out import TRAINED_ON
from softspoken.evaluation.evaluate import evaluate
from softspoken.report.report import print_table, read_report
from softspoken.train import train
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


def test_training_rows_are_evaluated_on_where_that_is_asked_for(tiny_t5, data, tmp_path):
    run = train(config_for(tiny_t5, data, tmp_path / "run", steps=1, eval_limit=4, eval_samples=0, eval_share=0.0))
    [alarm] = read_report(run).alarms
    assert alarm.startswith("tuned was trained on 4 of these 4 dialogues")
    assert f"> **{alarm}**" in (run / "README.md").read_text(encoding="utf-8")
