"""Evaluations, run folders and a judge made up for the purpose: what is said of them is known beforehand."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import yaml

from softspoken.types import Comparison, EvalReport, Example, Interval, SliceResult, SystemResult

DECODINGS = ("greedy", "sampled")
DIALOGUE = Example(
    "1",
    "Nora: You are late again, idiot.\nFelix: Sorry!\nNora: Bring milk.\nMr. Lee: Hi",
    "Felix is on the bus",
    "Nora calls Felix an idiot",
)


def between(mean, low, high):
    return Interval(mean, low, high)


def compared(metric, difference, ratio=None, decoding="greedy", slice_name="all", b="tuned", a="base"):
    return Comparison(
        a, b, decoding, slice_name, metric, between(*difference), between(*ratio) if ratio else None, 0.0004
    )


def system(name, decoding, **means):
    return SystemResult(
        name, decoding, 200, {metric: between(mean, mean - 0.01, mean + 0.01) for metric, mean in means.items()}
    )


def report_with(*comparisons, n=200, others=(), **changes):
    systems = [system("human", None, toxicity=0.01)]
    for decoding in DECODINGS:
        systems += [
            system("base", decoding, toxicity=0.4, rougeL=40, length=10),
            system("tuned", decoding, toxicity=0.05, rougeL=40.2, length=11),
        ]
    report = EvalReport(
        {"id": "mini", "split": "test", "n": n}, ["mini", "other"], [*systems, *others], list(comparisons)
    )
    return replace(report, **changes)


LOWER = [
    compared("toxicity", (-0.35, -0.4, -0.3), (0.125, 0.1, 0.2)),
    compared("toxicity", (-0.3, -0.4, -0.2), (0.25, 0.2, 0.5), "sampled"),
]
KEPT = [compared("rougeL", (0.2, -0.5, 0.9)), compared("rougeL", (-0.2, -0.9, 0.5), decoding="sampled")]


# ------------------------------------------------------------------------------------------------------------ folders

SUMMARIES = {
    "human": "Nora scolds Felix.",
    "base": "<script>alert('x')</script> Nora calls Felix an idiot & leaves.",
    "tuned": "Nora and Felix argue.",
    "masked_words": "Nora calls Felix an […] & leaves.",
}
TOXICITY = {"human": 0.01, "base": 0.9, "tuned": 0.05, "masked_words": 0.02}
EVERY_METRIC = [
    *(
        "toxicity",
        "toxic_rate",
        "judge:other",
        "rouge1",
        "rouge2",
        "rougeL",
        "rougeLsum",
        "chrf",
        "similarity_reference",
    ),
    *("similarity_dialogue", "length", "length_ratio", "empty_rate", "truncated_rate", "degenerate_rate", "distinct_1"),
    *("distinct_2", "copied_share", "speakers_kept", "insult", "figure_of_my_own"),
]
SLICES = ["heated", "everyday", "length:short", "length:medium", "length:long", "speakers:2", "speakers:3+"]


def full_report() -> EvalReport:
    """Every metric, slice and kind of system that `evaluate` can write."""
    systems, comparisons = [], []
    for name in SUMMARIES:
        for decoding in (None,) if name == "human" else DECODINGS:
            metrics = {metric: between(0.3, 0.25, 0.35) for metric in EVERY_METRIC}
            metrics |= {"toxicity": between(TOXICITY[name], 0.5 * TOXICITY[name], 1.5 * TOXICITY[name])}
            metrics |= {metric: between(40.0, 38.0, 42.0) for metric in ("rouge1", "rougeL", "chrf")}
            if decoding == "sampled":
                metrics |= {
                    metric: between(0.5, 0.4, 0.6) for metric in ("expected_max_toxicity", "toxicity_probability")
                }
            slices = {part: SliceResult(6, metrics) for part in SLICES}
            systems.append(SystemResult(name, decoding, 12, metrics, slices, seeds=3 if name == "tuned" else 1))
            if decoding and name != "base":
                change = (TOXICITY[name] - 0.9, TOXICITY[name] - 0.95, TOXICITY[name] - 0.85)
                ratio = tuple(TOXICITY[name] / 0.9 * factor for factor in (1, 0.5, 1.5))
                comparisons += [
                    compared("toxicity", change, ratio, decoding, part, name) for part in ("all", "heated", "everyday")
                ]
                comparisons += [
                    compared("rougeL", (0.0, -0.5, 0.5), (1, 0.9, 1.1), decoding, b=name),
                    compared("judge:other", (0.0, -0.1, 0.1), (1, 0.9, 1.1), decoding, b=name),
                ]
    return EvalReport(
        {"id": "mini", "split": "test", "n": 12}, ["mini", "other"], systems, comparisons, config={"model": "mini"}
    )


def rows_of(report: EvalReport) -> list[dict]:
    return [
        {
            "row": number,
            "id": f"d{number}",
            "system": one.name,
            "decoding": one.decoding,
            "slices": ["all", "heated" if number < 6 else "everyday"],
            "dialogue": f"Nora: You idiot, {number}!\nFelix: Sorry.",
            "reference": SUMMARIES["human"],
            "summary": SUMMARIES[one.name],
            "metrics": {"toxicity": TOXICITY[one.name], "rougeL": 40.0},
        }
        for one in report.systems
        for number in range(12)
    ]


def write_run(folder: Path, report: EvalReport | None = None, *, steps: int = 30, **config: object) -> Path:
    """A run's folder without its models."""
    folder.mkdir(parents=True)
    if report:
        (folder / "eval.json").write_text(json.dumps(asdict(report)), encoding="utf-8")
        lines = [json.dumps(row) + "\n" for row in rows_of(report)]
        (folder / "eval_rows.jsonl").write_text("".join(lines), encoding="utf-8")
    names = ["objective/score", "objective/toxicity", "objective/kl", "objective/kl_stderr", "objective/entropy"]
    names += ["ppo/policy/clip_fraction", "tokens/response_mean", "ppo/grad_norm"]
    names += ["groups/alike", "eval/toxicity", "eval/rougeL"]
    metrics = [{"step": step, **dict.fromkeys(names, 1 / step)} for step in range(1, steps + 1)]
    if steps:
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in metrics), encoding="utf-8")
    record = {"config": {"model": "mini", "algorithm": "ppo", "seed": 0, **config}, "versions": {"torch": "2.13.0"}}
    (folder / "config.yaml").write_text(yaml.safe_dump(record), encoding="utf-8")
    (folder / "README.md").write_text("# card\n", encoding="utf-8")
    return folder


class WordJudge:
    """Toxic is a text with `word` in it."""

    def __init__(self, name, labels, word="idiot"):
        self.name, self.labels, self.word = name, labels, word

    def __call__(self, texts):
        return {
            label: [float(self.word in text) / (place + 1) for text in texts] for place, label in enumerate(self.labels)
        }

    def clear_cache(self):
        pass
