"""Results of the choices → a table each, and which rows are better than the default."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.effect.figures import WAYS, Results, shown
from benchmarks.effect.settings import Settings
from softspoken.config import TrainConfig

DEFAULT = "default"
TABLES: dict[str, tuple[str, dict[str, str]]] = {
    "adapter_scope": (
        "Where the adapter lies",
        {DEFAULT: "{adapter_scope} alone", "everywhere": "encoder and decoder"},
    ),
    "kl_coef": ("Weight of the KL penalty", {DEFAULT: "{kl_coef}"}),
    "ppo_epochs": ("Passes over a step's samples", {DEFAULT: "{ppo_epochs}"}),
    "reward": ("Reward", {DEFAULT: "{reward}"}),
    "samples_per_prompt": (
        "Summaries sampled for each dialogue, at 48 a step",
        {DEFAULT: "{samples_per_prompt} of {batch_size} dialogues"},
    ),
    "algorithm": ("Algorithm", {DEFAULT: "{algorithm}"}),
}
"""Results file → its title, and how its default reads; other rows say what differs."""


def choice_section(settings: Settings, missing: Callable[[str, str], str]) -> str:
    parts, verdicts, measured = [], [], []
    for name, (title, labels) in TABLES.items():
        results = Results.read(settings.results, f"choices-{name}")
        if results is None:
            parts.append(missing("choices", f"### {title}\n\n"))
            continue
        parts.append(f"### {title}\n\n{choice_table(results, labels)}")
        verdicts.append(f"- {title}: {verdict(results)}")
        measured.append(results)
    if not measured:
        return missing("choices", "A table for each choice: ")
    content = measured[0].content
    compared = [row for results in measured for row in against_default(results).values()]
    stay = [] if any(good and not bad for good, bad in compared) else [STAY]
    seeds = sorted({one["seed"] for one in content["trainings"]})
    said = (
        f"The recipe with one thing changed at a time: {len(seeds)} seed{'s' if len(seeds) > 1 else ''} each, evaluated on {content['dataset']['n']} dialogues of the "
        f"validation split, greedy and {content['samples']} sample{'s' if content['samples'] > 1 else ''}. *Against the default* is by "
        f"paired interval; seconds are those of the steps, torch having {measured[0].threads(DEFAULT)} of the machine's threads. "
        f"The first table's command:\n\n    {content['command']}"
    )
    return "\n\n".join(
        [said, *parts, f"### What follows for the defaults\n\n{SUMMARY}\n\n" + "\n".join([*verdicts, *stay])]
    )


def choice_table(results: Results, labels: dict[str, str]) -> str:
    header = ["", "decoding", "toxicity", "of the base's", "against the default", "ROUGE-L", "against the base"]
    header += ["against the default", "words", "s a training"]
    rows = [header, ["---", "---"] + ["---:"] * (len(header) - 2)]
    for name in results.names:
        for way in WAYS if name not in ("human", "base") else ():
            if part := results.part(name, way):
                seconds = results.seconds(name)
                rows.append(
                    [
                        label(results, name, labels),
                        way,
                        shown(part["metrics"]["toxicity"]),
                        shown(results.ratio(name, way)),
                        shown(results.difference(DEFAULT, name, way, "toxicity"), 3, signed=True),
                        shown(part["metrics"]["rougeL"], 1),
                        shown(results.difference("base", name, way, "rougeL"), 1, signed=True),
                        shown(results.difference(DEFAULT, name, way, "rougeL"), 1, signed=True),
                        f"{part['metrics']['length']['mean']:.1f}",
                        f"{sum(seconds) / len(seconds):.0f}" if seconds else "–",
                    ]
                )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def label(results: Results, name: str, labels: dict[str, str]) -> str:
    """The default's own settings by name, or what a row changes."""
    changes = next(one["changes"] for one in results.content["trainings"] if one["system"] == name)
    if name == DEFAULT:
        defaults = {
            one: getattr(TrainConfig, one) for one in TrainConfig.__dataclass_fields__ if hasattr(TrainConfig, one)
        }
        return f"**{labels[DEFAULT].format(**defaults)} (default)**"
    if name in labels:
        return labels[name]
    return ", ".join(f"{key} {value}" for key, value in changes.items() if key != "steps")


def verdict(results: Results) -> str:
    """Better than the default: less toxic or nearer to the reference beyond chance in some way of decoding, and in no way the
    opposite of either. Worse: the same the other way round."""
    better, worse, mixed = [], [], []
    for name, (good, bad) in against_default(results).items():
        text = ", ".join(f"`{one}`" for one in [label(results, name, {})])
        if good and not bad:
            better.append(f"{text} is better ({', '.join(good)})")
        elif bad and not good:
            worse.append(f"{text} is worse ({', '.join(bad)})")
        elif good and bad:
            mixed.append(f"{text} trades ({', '.join(good)}, but {', '.join(bad)})")
    found = better + mixed + worse
    return "; ".join(found) + "." if found else "no difference beyond chance."


def against_default(results: Results) -> dict[str, tuple[list[str], list[str]]]:
    """What is better in each other row, and what is worse."""
    others = [name for name in results.names if name not in ("human", "base", DEFAULT)]
    return {name: gains_and_losses(results, name) for name in others}


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


SUMMARY = (
    "A row is called better or worse where the paired interval of a difference to the default leaves 0 out; many intervals are "
    "looked at here, so one in twenty of them does so by chance. The defaults are those of `softspoken.config.TrainConfig`."
)
STAY = """
Nothing is better than the defaults beyond chance, so they stay: the adapter in the decoder alone and one pass over the samples
because they cost less, the others because nothing here speaks against them."""
