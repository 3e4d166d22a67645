"""Results files → docs/results.md, as results.md.j2 has it. No number on it is written by hand; what was not measured says how
to measure it.

python -m benchmarks.effect.page [RESULTS PAGE]
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from benchmarks.effect import curve_page, figures, heated
from benchmarks.effect.figures import WAYS, Figure, Results, Verdict, at_least, at_most, not_beyond_chance, shown, times
from benchmarks.pages import MISSING, draw, fill
from benchmarks.recipe import RECIPE
from benchmarks.records import read_json

HERE = Path(__file__).parent
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
CHOICES = {
    "adapter_scope": ("Where the adapter lies", "decoder alone"),
    "kl_coef": ("Weight of the KL penalty", "0.025"),
    "ppo_epochs": ("Passes over a step's samples", "1"),
    "reward": ("Reward", "mini + 1.5*rouge:rougeL"),
    "samples_per_prompt": ("Summaries sampled for each dialogue, at 48 a step", "6 of 8 dialogues"),
    "algorithm": ("Algorithm", "ppo"),
}
"""Of choices-NAME.json: the title, and the default as it was then."""
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
CARRIED = {"corpus": "embedded", "samsum": "heated SAMSum"}
EMBEDDED = "12.5 million parameters"
ANSWERED = "2967ada"
"""The last commit that can run sections 2 and 3."""
COMMAND = "make -f benchmarks/effect/Makefile"
Check = tuple[str, str, Verdict]
"""A goal, what was measured, whether that meets it."""


def main(results: Path = HERE / "results", written: Path = Path("docs/results.md")) -> None:
    picture, curve = written.with_name(f"{written.stem}-curve.png"), Results.read(results, "curve")
    drawn = curve and draw(curve_page.figure(curve), picture)
    shows = picture.name if drawn or (curve and picture.is_file()) else None
    written.write_text(page(results, shows), encoding="utf-8")
    print(f"wrote {written}")


def page(results: Path, picture: str | None = None) -> str:
    """The template calls what these modules hold by name. Sections 2 and 3 are answered: their results are the project's own."""
    return fill(
        HERE / "results.md.j2",
        **vars(figures) | vars(curve_page) | globals() | {"heated": heated, "RECIPE": RECIPE},
        works=read(results, SETS),
        trl=read(HERE / "results", TRL),
        choices=read(HERE / "results", CHOICES, "choices-"),
        curve=Results.read(results, "curve"),
        carry=read_json(results / "carry.json"),
        picture=picture,
    )


def read(folder: Path, names: Iterable[str], prefix: str = "") -> dict[str, Results]:
    found = {name: Results.read(folder, prefix + name) for name in names}
    return {name: results for name, results in found.items() if results}


def packages(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {versions[name]}" for name in ("torch", "transformers", "peft") if name in versions)


def shown_number(value: float) -> str:
    return figures.number(value, 2)


def name_of(system: str) -> str:
    if system.startswith("best_of_"):
        return f"best of {system.removeprefix('best_of_')} samples"
    return SYSTEMS.get(system, system)


# ---------------------------------------------------------------------------------------------------------- goals


def all_goals(works: dict[str, Results]) -> list[list[str]]:
    return [row for name, results in works.items() for part in SETS[name][1] for row in goal_rows(name, results, part)]


def goals(works: dict[str, Results]) -> str:
    """A sentence that counts them."""
    verdicts = [row[-1] for row in all_goals(works)]
    kinds = [kind for kind in ("met", "met on average", "missed", "cannot be said") if kind in verdicts]
    return f"Of {len(verdicts)} goals: {', '.join(f'{verdicts.count(kind)} {kind}' for kind in kinds)}."


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
    kept = {key: 100 * value for key, value in speakers.items()} if speakers else None
    by_judge = f"toxicity {LOWER} times lower by the reward's judge"
    by_other = f"{LOWER_BY_OTHER} times lower by the other judge, above its floor"
    return [
        (by_judge, of_base(ratio), at_most(ratio, 1 / LOWER)),
        (by_other, of_base(above), at_most(above, 1 / LOWER_BY_OTHER)),
        rouge_goal(results, way, part),
        ("speakers kept: not fewer", f"{shown(kept, 1, signed=True)} %", not_beyond_chance(speakers, "lower")),
    ]


def rouge_goal(results: Results, way: str, part: str) -> Check:
    rouge = results.difference("base", "ppo", way, "rougeL", part)
    return f"ROUGE-L not {ROUGE_LOSS:.0f} point lower", shown(rouge, 2, signed=True), at_least(rouge, -ROUGE_LOSS)


def of_base(ratio: Figure | None) -> str:
    return f"{shown(ratio)} of the base's: {times(ratio)}" if ratio else MISSING


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
