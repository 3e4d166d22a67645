"""How does the classifier do on texts of a kind that it never saw? Trained without one of its sources, tested on that.

    python recipes/mini/transfer.py --data ../shared/data && python recipes/mini/page.py

The sources are Davidson's tweets, ParaDetox's forum lines, and the reports and dialogue turns that were written for this. Without a source not a text
of it is trained on, nor counted when the vocabulary is pruned. `--share` of the examples that are left: 0.2 of them take two minutes a model
on one thread.
"""

import argparse
import functools
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from classifier import Scorer, baseline, compare, fetch_encoder, neural_scorer, train
from classifier_data import SOURCES, test_sets, training_examples

TESTS = {
    "davidson": ["davidson held-out tweets", "davidson held-out, marks stripped"],
    "paradetox": ["paradetox held-out pairs", "paradetox, swear words disguised"],
    "reports": ["corpus validation, literal against calm", "generated reports, wordings never trained on"],
}


def once(score: Scorer) -> Scorer:
    """Texts that come again are not scored again."""
    kept = functools.cache(lambda texts: score(list(texts)))
    return lambda texts: kept(tuple(texts))


def mean_of(*scorers: Scorer) -> Scorer:
    return lambda texts: np.mean([score(texts) for score in scorers], axis=0)


def main(data: Path, corpus: Path, encoder_cache: Path, share: float, results: Path) -> None:
    torch.set_num_threads(1)
    encoder, tests = fetch_encoder(encoder_cache), test_sets(data, corpus)
    found: dict[str, Any] = {}
    for without in SOURCES:
        examples = training_examples(data, corpus, random.Random(0), without=without, share=share)
        neural, linear = once(neural_scorer(*train(encoder, examples))), once(baseline(examples))
        systems = {"mini": neural, "tf-idf": linear, "mean of both": mean_of(neural, linear)}
        own = [test for test in tests if test.name in TESTS[without]]
        found[without] = {"examples": len(examples), "tests": compare(own, systems)}
        results.write_text(json.dumps({"share": share, "without": found}, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with samsum/, dialogsum/, toxicity/, heated/")
    parser.add_argument("--corpus", type=Path, default=Path(__file__).parents[2] / "src/softspoken/assets/mini/corpus")
    parser.add_argument("--encoder_cache", type=Path, default=Path(".work/minilm"))
    parser.add_argument("--share", type=float, default=0.2)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results/transfer.json")
    main(**vars(parser.parse_args()))
