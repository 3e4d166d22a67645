"""Results of the choices → a table each, and which rows are better than the default."""

from __future__ import annotations

from benchmarks.effect.figures import WAYS, Results, mean_of, shown
from benchmarks.pages import Row, table

DEFAULT = "default"
LABELS = {"everywhere": "encoder and decoder"}
"""Other rows say what differs."""


def choice_table(results: Results, default: str) -> str:
    ways = [(name, way) for name in others(results, "human", "base") for way in WAYS if results.part(name, way)]
    return table([choice_row(results, *one, default) for one in ways], left=2)


def choice_row(results: Results, name: str, way: str, default: str) -> Row:
    def difference(other: str, metric: str, digits: int) -> str:
        return shown(results.difference(other, name, way, metric), digits, signed=True)

    label = LABELS.get(name) or changes(results, name)
    metrics = (results.part(name, way) or {})["metrics"]
    return [
        ("", f"**{default} (default)**" if name == DEFAULT else label),
        ("decoding", way),
        ("toxicity", shown(metrics["toxicity"])),
        ("of the base's", shown(results.ratio(name, way))),
        ("against the default", difference(DEFAULT, "toxicity", 3)),
        ("ROUGE-L", shown(metrics["rougeL"], 1)),
        ("against the base", difference("base", "rougeL", 1)),
        ("against the default", difference(DEFAULT, "rougeL", 1)),
        ("words", f"{metrics['length']['mean']:.1f}"),
        ("s a training", mean_of(results.seconds(name))),
    ]


def others(results: Results, *left_out: str) -> list[str]:
    return [name for name in results.names if name not in left_out]


def changes(results: Results, name: str) -> str:
    """What a row changes."""
    changed = results.trainings(name)[0]["changes"]
    return ", ".join(f"{key} {value}" for key, value in changed.items() if key != "steps")


def verdict(results: Results) -> str:
    """Better than the default: less toxic or nearer to the reference beyond chance in some way of decoding, and in no way the
    opposite of either. Worse: the same the other way round."""
    better, mixed, worse = [], [], []
    for name, (good, bad) in against_default(results).items():
        label = f"`{changes(results, name)}`"
        if good and bad:
            mixed.append(f"{label} trades ({', '.join(good)}, but {', '.join(bad)})")
        elif good:
            better.append(f"{label} is better ({', '.join(good)})")
        elif bad:
            worse.append(f"{label} is worse ({', '.join(bad)})")
    return "; ".join(better + mixed + worse) + "." if better + mixed + worse else "no difference beyond chance."


def any_better(choices: dict[str, Results]) -> bool:
    return any(good and not bad for results in choices.values() for good, bad in against_default(results).values())


def against_default(results: Results) -> dict[str, tuple[list[str], list[str]]]:
    """What is better in each other row, and what is worse."""
    return {name: gains_and_losses(results, name) for name in others(results, "human", "base", DEFAULT)}


def gains_and_losses(results: Results, name: str) -> tuple[list[str], list[str]]:
    good, bad = [], []
    for way in WAYS:
        toxic = results.difference(DEFAULT, name, way, "toxicity")
        rouge = results.difference(DEFAULT, name, way, "rougeL")
        if toxic and toxic["high"] < 0:
            good.append(f"less toxic {way}")
        if toxic and toxic["low"] > 0:
            bad.append(f"more toxic {way}")
        if rouge and rouge["low"] > 0:
            good.append(f"ROUGE-L higher {way}")
        if rouge and rouge["high"] < 0:
            bad.append(f"ROUGE-L lower {way}")
    return good, bad
