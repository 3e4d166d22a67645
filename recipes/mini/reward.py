"""What another classifier as the reward does to the demo: trained with each, judged by both, and by one that was nobody's reward.

    python recipes/mini/reward.py --before FOLDER                      FOLDER: the classifier to compare the embedded one with
    python recipes/mini/reward.py --before FOLDER --results recipes/mini/results/reward.json && python recipes/mini/page.py   as published

Six trainings of 50 steps, those that are there gone on from, and an evaluation of all on the embedded test split: about 20 minutes on two idle cores.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import softspoken
from softspoken.config import EvaluateConfig, TrainConfig

SEEDS = (0, 1, 2)
SAMPLES = 2
METRICS = ("toxicity", "before", "profanity", "rougeL", "speakers_kept", "length")
"""`toxicity` is the embedded classifier's."""


def trained(term: str, seed: int, output: Path) -> Path:
    """The adapter of the demo with this term for toxicity in its reward; it is trained unless it is there."""
    if not (output / "end.json").is_file():
        reward = f"{term} + 1.5*rouge:rougeL"
        softspoken.train(TrainConfig(reward=reward, seed=seed, eval_limit=0, output=str(output), overwrite=True))
    return output / "adapter"


def shrunk(report: dict[str, Any], before: str) -> dict[str, Any]:
    """Of an eval.json: system → decoding → metric → its mean and interval."""
    found: dict[str, Any] = {}
    for system in report["systems"]:
        metrics = {name.replace(before, "before"): interval for name, interval in system["metrics"].items()}
        kept = {name: metrics[name] for name in METRICS if name in metrics}
        found.setdefault(system["name"], {})[system["decoding"] or "written"] = kept
    return found


def main(before: Path, work: Path, results: Path | None) -> None:
    judges = ["mini", f"hf:{before}:toxicity", "profanity"]
    terms = {"now": "mini", "before": f"hf:{before}:-toxicity"}
    adapters = [
        f"{name}={trained(term, seed, work / f'{name}-{seed}')}" for name, term in terms.items() for seed in SEEDS
    ]
    evaluation = work / "evaluation"
    config = EvaluateConfig(
        adapter=adapters,
        judge=judges,
        samples=SAMPLES,
        output=str(evaluation),
        overwrite=True,
    )
    print(softspoken.evaluate(config))
    if results is not None:
        report = json.loads((evaluation / "eval.json").read_text("utf-8"))
        found = {"seeds": SEEDS, "samples": SAMPLES, "systems": shrunk(report, judges[1])}
        results.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="a folder that transformers reads")
    parser.add_argument(
        "--work", type=Path, default=Path(".work/reward"), help="where trainings and evaluation are put"
    )
    parser.add_argument(
        "--results", type=Path, help="where means and intervals are written, as JSON, for page.py; else they are shown"
    )
    main(**vars(parser.parse_args()))
