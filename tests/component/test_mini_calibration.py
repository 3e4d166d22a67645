"""recipes/mini/calibration.py, by scores made by hand; and what is trained on when a source is left out."""

import json
import random
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "recipes/mini"))
calibration = pytest.importorskip("calibration")
data = pytest.importorskip("classifier_data")
page = pytest.importorskip("page")

SCORES = np.array([0.1, 0.1, 0.15, 0.95, 1.0, 0.9, 0.9])
TOXIC = np.array([False, False, True, True, True, True, False])


def test_bins():
    assert calibration.bins_of(np.array([0.0, 0.05, 0.1, 0.55, 0.999, 1.0])).tolist() == [0, 0, 1, 5, 9, 9]
    low, high = calibration.reliability(SCORES, TOXIC)
    assert (low["bin"], low["n"], high["bin"], high["n"]) == (1, 3, 9, 4)
    assert (low["score"], low["toxic"]["mean"]) == pytest.approx((0.35 / 3, 1 / 3))
    assert (high["score"], high["toxic"]["mean"]) == pytest.approx((0.9375, 0.75))
    # Wilson for 3 of 4: (3 + 1.9208 ± 1.96 sqrt(3·1/4 + 0.9604)) / 7.8415
    assert (high["toxic"]["low"], high["toxic"]["high"]) == pytest.approx((0.3006, 0.9544), abs=1e-3)


def test_error_is_weighted_by_texts():
    expected = (3 * (1 / 3 - 0.35 / 3) + 4 * (0.9375 - 0.75)) / 7
    assert calibration.calibration_error(SCORES, TOXIC) == pytest.approx(expected)
    assert calibration.calibration_error(np.array([0.5, 0.5]), np.array([True, False])) == 0


def test_a_shift_is_refitted_away():
    """Each score is true of its texts, and then all odds are a tenth of what they should be."""
    true = np.repeat([0.2, 0.5, 0.8], 500)
    toxic = np.concatenate([np.arange(500) < 500 * share for share in (0.2, 0.5, 0.8)])
    odds = true / (1 - true) / 10
    shifted = odds / (1 + odds)
    assert calibration.calibration_error(shifted, toxic) > 0.2
    assert calibration.calibration_error(calibration.refitted(shifted, toxic), toxic) < 0.05


def written(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def test_a_source_left_out_is_not_trained_on(tmp_path, monkeypatch):
    """Each source marks its texts: pairs, tweets, and the words of the corpus and of the generated reports."""
    written(
        tmp_path / "toxicity/paradetox.jsonl",
        [{"toxic": f"PAIR you fool {row}", "neutral": [f"PAIR you {row}"]} for row in range(20)],
    )
    labels = ["hate_speech", "offensive_language", "neither"]
    written(
        tmp_path / "toxicity/davidson.jsonl", [{"text": f"TWEET {row}", "label": labels[row % 3]} for row in range(30)]
    )
    plain = [
        {"summary": f"They meet {row}.", "dialogue": f"Al: See you at {row}.\nBo: Yes, see you."} for row in range(6000)
    ]
    for name in ("samsum", "dialogsum"):
        written(tmp_path / name / "train.jsonl", plain)
    written(
        tmp_path / "corpus/train.jsonl", [{"summary": "CORPUS calm.", "dialogue": "Al: CORPUS hi.\nBo: CORPUS yes."}]
    )
    (tmp_path / "corpus/train.jsonl").rename(tmp_path / "corpus/train.jsonl.gz")
    monkeypatch.setattr(data, "read", lambda path: [json.loads(line) for line in path.read_text("utf-8").splitlines()])
    marks = {"davidson": "TWEET", "paradetox": "PAIR", "reports": "CORPUS"}
    for without in data.SOURCES:
        examples = data.training_examples(tmp_path, tmp_path / "corpus", random.Random(0), without=without)
        found = {source: any(mark in each.text for each in examples) for source, mark in marks.items()}
        assert found == {source: source != without for source in marks}


def test_page():
    found = {"n": 7, "error": 0.2, "error_refitted": 0.1, "bins": calibration.reliability(SCORES, TOXIC)}
    lines = page.calibration({"A": found}).splitlines()
    assert lines[2] == "| 0.0 – 0.1 | – |"
    assert lines[11] == "| 0.9 – 1.0 | 4, 0.94 → 0.75 (0.30–0.95) |"
    assert lines[12:] == ["| expected calibration error | 0.200 |", "| after a temperature and a shift | 0.100 |"]


def test_page_of_what_was_left_out():
    """Beside the embedded classifier's own number for the set, from results/classifier.json."""
    area = {"n_toxic": 3, "n_clean": 4, "auc": {"mean": 0.9, "low": 0.8, "high": 0.95}}
    name = "davidson held-out tweets"
    lines = page.transfer({"without": {"davidson": {"tests": {name: {"mini": area, "tf-idf": area}}}}}).splitlines()
    assert lines[2].startswith(f"| davidson | {name} | 3 / 4 | 0.900 (0.800–0.950) | 0.900 (0.800–0.950) | 0.98")
