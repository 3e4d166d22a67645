"""recipes/mini/reward.py: what is kept of an evaluation, and the table made of it, by figures made by hand."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "recipes/mini"))
page = pytest.importorskip("page")
reward = pytest.importorskip("reward")


def interval(mean):
    return {"mean": mean, "low": mean / 2, "high": mean * 2}


def test_of_an_evaluation_the_measures_are_kept_by_system_and_decoding():
    metrics = {
        "toxicity": interval(0.02),
        "hf:old:toxicity": interval(0.04),
        "rougeL": interval(39.0),
        "chrf": interval(1.0),
    }
    report = {
        "systems": [
            {"name": "human", "decoding": None, "metrics": {"toxicity": interval(0.01)}},
            {"name": "now", "decoding": "greedy", "metrics": metrics},
            {"name": "now", "decoding": "sampled", "metrics": {"toxicity": interval(0.03)}},
        ]
    }
    assert reward.shrunk(report, "hf:old:toxicity") == {
        "human": {"written": {"toxicity": interval(0.01)}},
        "now": {
            "greedy": {"toxicity": interval(0.02), "before": interval(0.04), "rougeL": interval(39.0)},
            "sampled": {"toxicity": interval(0.03)},
        },
    }


def test_table():
    found = {"toxicity": interval(0.02), "speakers_kept": interval(0.45)}
    systems = {name: {"greedy": found} for name in ("human", "base", "before", "now")}
    lines = page.reward({"systems": systems}).splitlines()
    assert lines[-1] == ("| the classifier now | greedy | 0.020 (0.010–0.040) | – | – | – | 45.0 % (22.5–90.0) | – |")
    assert len(lines) == 2 + 4


def test_what_is_published_is_of_the_seeds_that_the_script_trains():
    published = json.loads(Path(reward.__file__).with_name("results").joinpath("reward.json").read_text("utf-8"))
    assert tuple(published["seeds"]) == reward.SEEDS
