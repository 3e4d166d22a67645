"""What is a score of the embedded classifier worth? Of texts that it gives 0.7, are seven in ten toxic?

    python recipes/mini/calibration.py --data ../shared/data && python recipes/mini/page.py

A reliability diagram in numbers, ten bins of equal width, for the held-out sets that people labelled and for the reports that were written for
this; and the expected calibration error (Guo et al. 2017): the mean of |share toxic − mean score| over the bins, weighted by texts. A set's own
share of toxic texts is in it (Davidson's tweets: 83 %), so the error is also given after a temperature and a shift fitted on one half of the set
and measured on the other, both ways.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from classifier import neural_scorer
from classifier_data import test_sets
from numpy.typing import NDArray
from scipy.special import logit
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from transformers import AutoModelForSequenceClassification, AutoTokenizer

BINS = 10
SETS = {
    "ParaDetox": ["paradetox held-out pairs"],
    "Davidson": ["davidson held-out tweets"],
    "reports": ["corpus validation, literal against calm", "generated reports, wordings never trained on"],
}
Scores, Toxic = NDArray[np.float64], NDArray[np.bool_]


def bins_of(scores: Scores) -> NDArray[np.int64]:
    """0 … BINS − 1; a score of 1 is in the last."""
    return np.minimum((scores * BINS).astype(np.int64), BINS - 1)


def reliability(scores: Scores, toxic: Toxic) -> list[dict[str, Any]]:
    """Of each bin that has texts: how many, their mean score and the share that is toxic, with Wilson's 95 % interval."""
    rows = []
    for number in range(BINS):
        here = bins_of(scores) == number
        if here.any():
            interval = binomtest(int(toxic[here].sum()), int(here.sum())).proportion_ci(method="wilson")
            share = {"mean": float(toxic[here].mean()), "low": float(interval.low), "high": float(interval.high)}
            rows.append({"bin": number, "n": int(here.sum()), "score": float(scores[here].mean()), "toxic": share})
    return rows


def calibration_error(scores: Scores, toxic: Toxic) -> float:
    """In [0, 1]."""
    rows = reliability(scores, toxic)
    return sum(row["n"] * abs(row["toxic"]["mean"] - row["score"]) for row in rows) / len(scores)


def refitted(scores: Scores, toxic: Toxic, seed: int = 0) -> Scores:
    """Each half's scores by the temperature and the shift of the logits that fit the other half best."""
    logits = logit(np.clip(scores, 1e-7, 1 - 1e-7))[:, None]
    half = np.random.default_rng(seed).permutation(len(scores)) % 2 == 0
    fitted = np.empty_like(scores)
    for part in (half, ~half):
        fitted[part] = LogisticRegression(C=1e6).fit(logits[~part], toxic[~part]).predict_proba(logits[part])[:, 1]
    return fitted


def main(data: Path, corpus: Path, model: Path, results: Path) -> None:
    scorer = neural_scorer(
        AutoModelForSequenceClassification.from_pretrained(model).eval().float(), AutoTokenizer.from_pretrained(model)
    )
    tests = {test.name: test for test in test_sets(data, corpus)}
    found = {}
    for name, parts in SETS.items():
        scores = np.concatenate([scorer(tests[part].texts) for part in parts])
        toxic = np.concatenate([np.array(tests[part].toxic) for part in parts])
        found[name] = {
            "n": len(scores),
            "toxic": float(toxic.mean()),
            "error": calibration_error(scores, toxic),
            "error_refitted": calibration_error(refitted(scores, toxic), toxic),
            "bins": reliability(scores, toxic),
        }
        print(name, {key: value for key, value in found[name].items() if key != "bins"})
    results.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    assets = Path(__file__).parents[2] / "src/softspoken/assets/mini"
    parser.add_argument("--data", type=Path, required=True, help="folder with samsum/, dialogsum/, toxicity/, heated/")
    parser.add_argument("--corpus", type=Path, default=assets / "corpus")
    parser.add_argument("--model", type=Path, default=assets / "classifier")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results/calibration.json")
    main(**vars(parser.parse_args()))
