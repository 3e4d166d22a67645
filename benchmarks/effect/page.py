"""Results files → docs/results.md, as results.md.j2 has it. No number on it is written by hand; what was not measured says how
to measure it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from benchmarks.effect import choice_tables, curve_page, heated
from benchmarks.effect.figures import (
    WAYS,
    Figure,
    Results,
    Verdict,
    at_least,
    at_most,
    mean_of,
    not_beyond_chance,
    shown,
    times,
)
from benchmarks.effect.parts import CHOICES
from benchmarks.effect.settings import RECIPE, Settings
from benchmarks.pages import MISSING, Row, draw, fill, table

LOWER, LOWER_BY_OTHER, ROUGE_LOSS = 10, 3, 1.0
"""Of issue 4: times lower by the reward's judge, times lower above the floor by the other one, points of ROUGE-L."""
SETS: dict[str, tuple[str, tuple[str, ...]]] = {
    "works-test": ("The embedded test split", ("heated", "everyday")),
    "works-heated": ("SAMSum validation, heated", ("all",)),
    "works-made": ("SAMSum and DialogSum validation, heated", ("all",)),
    "works-samsum": ("SAMSum validation as it is", ("all",)),
}
"""Results file → its title, and the slices that are shown of it."""
TRL = {"trl-test": "The embedded test split", "trl-heated": "SAMSum validation, heated"}
SLICES = {"all": "all dialogues", "heated": "heated dialogues", "everyday": "everyday dialogues"}
ORDINARY = {("works-test", "everyday"), ("works-samsum", "all")}
SYSTEMS = {
    "human": "human references",
    "base": "base",
    "ppo": "**PPO**",
    "demo": "PPO, `make demo`",
    "calm_sft": "warm start on calm references",
    "banned_words": "banned words",
    "masked_words": "masked words",
    "trl": "TRL 0.11.4, its own learning rate",
    "trl_our_rate": "TRL 0.11.4, the recipe's learning rate",
}
COMMAND = ".venv/bin/python -m benchmarks.effect"
TEMPLATE = Path(__file__).with_name("results.md.j2")
Check = tuple[str, str, Verdict]
"""A goal, what was measured, whether that meets it."""


def write_page(settings: Settings) -> None:
    picture, curve = settings.page.with_name(f"{settings.page.stem}-curve.png"), Results.read(settings.results, "curve")
    drawn = curve and draw(curve_page.figure(curve), picture, settings.work)
    settings.page.parent.mkdir(parents=True, exist_ok=True)
    shows = picture.name if drawn or (curve and picture.is_file()) else None
    settings.page.write_text(page(settings, shows), encoding="utf-8")
    print(f"wrote {settings.page}")


def page(settings: Settings, picture: str | None = None) -> str:
    """The template calls what this module holds, and the modules it has imported, by name."""
    return fill(
        TEMPLATE,
        **globals() | {"heated": heated, "choice_tables": choice_tables, "RECIPE": RECIPE},
        works=read(settings, SETS),
        trl=read(settings, TRL),
        choices=read(settings, CHOICES, "choices-"),
        curve=Results.read(settings.results, "curve"),
        picture=picture,
    )


def read(settings: Settings, names: Iterable[str], prefix: str = "") -> dict[str, Results]:
    found = {name: Results.read(settings.results, prefix + name) for name in names}
    return {name: results for name, results in found.items() if results}


def packages(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {versions[name]}" for name in ("torch", "transformers", "peft") if name in versions)


# ---------------------------------------------------------------------------------------------------------- goals


def all_goals(works: dict[str, Results]) -> list[list[str]]:
    return [row for name, results in works.items() for part in SETS[name][1] for row in goal_rows(name, results, part)]


def goals(works: dict[str, Results]) -> str:
    """A sentence that counts them."""
    verdicts = [row[-1] for row in all_goals(works)]
    kinds = [kind for kind in ("met", "met on average", "missed", "cannot be said") if kind in verdicts]
    return f"Of {len(verdicts)} goals: {', '.join(f'{verdicts.count(kind)} {kind}' for kind in kinds)}."


def goals_table(works: dict[str, Results]) -> str:
    titles = ("dialogues", "decoding", "goal", "measured", "")
    rows = [[*row[:-1], row[-1] if row[-1] == "met" else f"**{row[-1]}**"] for row in all_goals(works)]
    return table([list(zip(titles, row, strict=True)) for row in rows], left=5)


def goal_rows(name: str, results: Results, part: str) -> list[list[str]]:
    """Each goal beside what was measured of it, decoded in each way."""
    base = results.part("base", "greedy", part)
    place = f"{SETS[name][0]}, {SLICES[part]} ({base['n']})" if base else SETS[name][0]
    checks = ordinary_goals if (name, part) in ORDINARY else heated_goals
    ways = [way for way in WAYS if results.part("ppo", way, part)]
    return [[place, way, *check] for way in ways for check in checks(results, way, part)]


def ordinary_goals(results: Results, way: str, part: str) -> list[Check]:
    toxic = results.difference("base", "ppo", way, "toxicity", part)
    calm = ("toxicity not higher", shown(toxic, 4, signed=True), not_beyond_chance(toxic, "higher"))
    return [calm, rouge_goal(results, way, part)]


def heated_goals(results: Results, way: str, part: str) -> list[Check]:
    ratio, above = results.ratio("ppo", way, "toxicity", part), results.above("ppo", way, part)
    speakers = results.difference("base", "ppo", way, "speakers_kept", part)
    by_judge = f"toxicity {LOWER} times lower by the reward's judge"
    by_other = f"{LOWER_BY_OTHER} times lower by the other judge, above its floor"
    return [
        (by_judge, of_base(ratio), at_most(ratio, 1 / LOWER)),
        (by_other, of_base(above), at_most(above, 1 / LOWER_BY_OTHER)),
        rouge_goal(results, way, part),
        (
            "speakers kept: not fewer",
            f"{shown(percent(speakers), 1, signed=True)} %",
            not_beyond_chance(speakers, "lower"),
        ),
    ]


def rouge_goal(results: Results, way: str, part: str) -> Check:
    rouge = results.difference("base", "ppo", way, "rougeL", part)
    return f"ROUGE-L not {ROUGE_LOSS:.0f} point lower", shown(rouge, 2, signed=True), at_least(rouge, -ROUGE_LOSS)


def of_base(ratio: Figure | None) -> str:
    return f"{shown(ratio)} of the base's: {times(ratio)}" if ratio else MISSING


# --------------------------------------------------------------------------------------------------------- tables


def systems_table(results: Results, part: str) -> str:
    ways = [(name, way) for name in results.names for way in ([None] if name == "human" else WAYS)]
    return table([system_row(results, *one, part) for one in ways if results.part(*one, part)], left=2)


def system_row(results: Results, name: str, way: str | None, part: str) -> Row:
    found = results.part(name, way, part) or {}
    metrics = found["metrics"]
    trained = name not in ("human", "base") and results.seconds(name)
    speakers, words = percent(metrics.get("speakers_kept")), metrics.get("length")
    return [
        ("", name_of(name)),
        ("decoding", way or MISSING),
        ("trainings", str(found["seeds"]) if trained else MISSING),
        ("n", str(found["n"])),
        ("toxicity", shown(metrics.get("toxicity"))),
        ("of the base's", shown(results.ratio(name, way, "toxicity", part))),
        ("other judge", shown(metrics.get(results.content["judges"][-1]))),
        ("above its floor, of the base's", shown(results.above(name, way, part))),
        ("ROUGE-L", shown(metrics.get("rougeL"), 1)),
        ("against the base", shown(results.difference("base", name, way, "rougeL", part), 1, signed=True)),
        ("speakers kept", f"{speakers['mean']:.1f} %" if speakers else MISSING),
        ("words", f"{words['mean']:.1f}" if words else MISSING),
    ]


def name_of(system: str) -> str:
    if system.startswith("best_of_"):
        return f"best of {system.removeprefix('best_of_')} samples"
    return SYSTEMS.get(system, system)


def percent(share: Figure | None) -> Figure | None:
    return share and {key: 100 * value for key, value in share.items()}


def against_table(results: Results, centre: str) -> str:
    """`centre` − each other system but the base, over all dialogues: only there are they compared with one another."""
    rows = []
    for name in results.names:
        for way in WAYS if name not in ("human", "base", centre) else ():
            toxic, rouge = (results.difference(name, centre, way, metric) for metric in ("toxicity", "rougeL"))
            if toxic and rouge:
                difference = [("toxicity", shown(toxic, 3, signed=True)), ("ROUGE-L", shown(rouge, 1, signed=True))]
                words = (f"{name_of(centre)} is", compared_in_words(toxic, rouge))
                rows.append([("against", name_of(name)), ("decoding", way), *difference, words])
    return table(rows, left=2) if rows else ""


def compared_in_words(toxic: Figure, rouge: Figure) -> str:
    """By the paired intervals: what is beyond chance."""
    calmer = "less toxic" if toxic["high"] < 0 else "more toxic" if toxic["low"] > 0 else ""
    nearer = "nearer to" if rouge["low"] > 0 else "further from" if rouge["high"] < 0 else ""
    found = [calmer, nearer and f"{nearer} the reference"]
    return ", ".join(one for one in found if one) or "no different beyond chance"


def cost_table(results: Results) -> str:
    rows = []
    for name in dict.fromkeys(one["system"] for one in results.content["trainings"]):
        seconds, own = results.seconds(name), results.trainings(name)
        lost = ", ".join(f"after {one['diverged_after']} steps" for one in own if one["diverged_after"] is not None)
        rows.append(
            [
                ("", name_of(name)),
                ("trainings", str(len(own))),
                ("seconds", mean_of(seconds)),
                ("from to", f"{min(seconds):.0f} to {max(seconds):.0f}" if seconds else MISSING),
                ("threads", results.threads(name)),
                ("diverged", lost or "none"),
                ("the first one's command", f"`{own[0]['command']}`"),
            ]
        )
    return table(rows)
