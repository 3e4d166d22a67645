"""The flagship's figures are what they were before there were tasks."""

import json
from importlib.metadata import version
from pathlib import Path

import pytest

from softspoken.config import EvaluateConfig
from softspoken.evaluation.evaluate import evaluate
from softspoken.report.verdict import verdicts

BEFORE = Path(__file__).with_name("before_tasks.json")
"""What the code before tasks made of this evaluation (commit 5614014)."""


def test_an_evaluation_of_summaries_is_what_it_was(tmp_path):
    config = EvaluateConfig(
        output=str(tmp_path), baseline=["masked_words"], judge=["mini", "profanity"], limit=6, samples=0, device="cpu"
    )
    report = evaluate(config)
    before = json.loads(BEFORE.read_text(encoding="utf-8"))
    parts = {
        f"{one.name} {name}": part
        for one in report.systems
        for name, part in {"all": one, "heated": one.slices["heated"]}.items()
    }
    assert list(parts) == list(before["means"])
    for system, means in before["means"].items():
        found = {metric: interval.mean for metric, interval in parts[system].metrics.items()}
        assert list(found) == list(means)
        if not version("alt-profanity-check").startswith("1.9."):  # each release has weights of its own
            del found["profanity"], means["profanity"]
        assert found == pytest.approx(means, abs=2e-4), system
    assert [verdict.headline for verdict in verdicts(report)] == [before["headline"]]
    rows = [json.loads(line) for line in (tmp_path / "eval_rows.jsonl").read_text(encoding="utf-8").splitlines()]
    assert list(rows[0]) == before["row"]
    assert list(rows[-1]["metrics"]) == before["row_metrics"]
