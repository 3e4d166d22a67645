"""The flagship's figures and words are what they were before there were tasks."""

import json
from pathlib import Path

import pytest

from softspoken.config import EvaluateConfig
from softspoken.evaluation.evaluate import evaluate
from softspoken.report.verdict import remarks, verdicts

BEFORE = Path(__file__).with_name("before_tasks.json")
"""What the code before tasks made of the same: `figures` of this evaluation, and its verdict in words."""


def figures(report) -> dict[str, dict[str, list[float]]]:
    """System → metric → mean, low and high."""
    return {
        f"{one.name} {name}": {metric: [i.mean, i.low, i.high] for metric, i in part.metrics.items()}
        for one in report.systems
        for name, part in {"all": one, **one.slices}.items()
    }


def test_an_evaluation_of_summaries_is_what_it_was(tmp_path):
    config = EvaluateConfig(
        output=str(tmp_path), baseline=["masked_words"], judge=["mini", "profanity"], limit=6, samples=0, device="cpu"
    )
    report = evaluate(config)
    before = json.loads(BEFORE.read_text(encoding="utf-8"))
    found = figures(report)
    assert list(found) == list(before["figures"])
    for system, metrics in before["figures"].items():
        assert list(found[system]) == list(metrics)
        for metric, interval in metrics.items():
            assert found[system][metric] == pytest.approx(interval, abs=2e-4), (system, metric)
    [verdict] = verdicts(report)
    assert [verdict.headline, *verdict.sentences, *verdict.notes, *remarks(report)] == before["words"]
    rows = [json.loads(line) for line in (tmp_path / "eval_rows.jsonl").read_text(encoding="utf-8").splitlines()]
    assert list(rows[0])[:10] == before["row"][:10]
    assert list(rows[-1]["metrics"]) == before["row_metrics"]
