"""Results files → docs/results.md. No number in it is written by hand; what was not measured says how to measure it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.effect.choice_tables import choice_section
from benchmarks.effect.curve_page import curve_section
from benchmarks.effect.figures import WAYS, Figure, Results, Verdict, at_least, at_most, not_beyond_chance, shown, times
from benchmarks.effect.heated import EMBEDDED, HEATED, PLAIN
from benchmarks.effect.settings import Settings
from softspoken.config import TrainConfig

LOWER, LOWER_BY_OTHER, ROUGE_LOSS = 10, 3, 1.0
"""Of issue 4: times lower by the reward's judge, times lower above the floor by the other one, points of ROUGE-L."""
SETS: dict[str, tuple[str, tuple[str, ...]]] = {
    "works-test": ("The embedded test split", ("heated", "everyday")),
    "works-heated": ("SAMSum validation, heated", ("all",)),
    "works-made": ("SAMSum and DialogSum validation, heated", ("all",)),
    "works-samsum": ("SAMSum validation as it is", ("all",)),
}
"""Results file → its title, and the slices that are shown of it."""
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


def write_page(settings: Settings) -> None:
    picture = settings.page.with_name(f"{settings.page.stem}-curve.png")
    settings.page.parent.mkdir(parents=True, exist_ok=True)
    settings.page.write_text(page(settings, picture.name if draw_curve(settings, picture) else None), encoding="utf-8")
    print(f"wrote {settings.page}")


def draw_curve(settings: Settings, picture: Any) -> bool:
    from benchmarks.effect.curve_page import draw

    results = Results.read(settings.results, "curve")
    return draw(results, picture, settings.work) if results else False


def page(settings: Settings, picture: str | None = None) -> str:
    sections = [
        INTRODUCTION,
        "## 1. Does it work?",
        works_section(settings),
        "## 2. Against what people run today",
        trl_section(settings),
        "## 3. Which choices matter",
        choice_section(settings, missing),
        "## 4. The curve of cost",
        curve_section(settings, missing, picture),
        METHOD,
    ]
    return "\n\n".join(sections) + "\n"


def missing(part: str, what: str = "") -> str:
    return f"{what}not measured yet: run `{COMMAND} {part}`."


# ---------------------------------------------------------------------------------------------------------- works


def works_section(settings: Settings) -> str:
    found = {name: results for name in SETS if (results := Results.read(settings.results, name))}
    if not found:
        return missing("works", "PPO beside the cheap alternatives: ")
    parts = [f"### Goals\n\n{goals(found)}"]
    for name, results in found.items():
        title, slices = SETS[name]
        parts.append(f"### {title}\n\n{about(results)}")
        parts += [f"{SLICES[part].capitalize()}:\n\n{systems_table(results, part)}" for part in slices]
        if against := against_table(results, "ppo", slices[0]):
            parts.append(
                f"PPO against the cheap alternatives, on all {results.content['dataset']['n']} dialogues:\n\n{against}"
            )
    parts += [missing("works", f"{title}: ") for name, (title, _) in SETS.items() if name not in found]
    return "\n\n".join(parts)


def goals(found: dict[str, Results]) -> str:
    """Each goal beside what was measured, with a sentence that counts them."""
    rows = [row for name, results in found.items() for part in SETS[name][1] for row in goal_rows(name, results, part)]
    verdicts = [row[-1] for row in rows]
    counts = [f"{verdicts.count(kind)} {kind}" for kind in ("met", "met on average", "missed", "cannot be said")]
    sentence = f"Of {len(rows)} goals: {', '.join(one for one in counts if not one.startswith('0 '))}."
    header = ["dialogues", "decoding", "goal", "measured", ""]
    shown_rows = [[*row[:-1], row[-1] if row[-1] == "met" else f"**{row[-1]}**"] for row in rows]
    return f"{sentence} {VERDICTS}\n\n{table(header, shown_rows, left=5)}"


def goal_rows(name: str, results: Results, part: str) -> list[list[str]]:
    rows: list[list[str]] = []
    n = results.part("base", "greedy", part)
    place = f"{SETS[name][0]}, {SLICES[part]} ({n['n']})" if n else SETS[name][0]
    for way in WAYS:
        if results.part("ppo", way, part) is None:
            continue
        rouge = results.difference("base", "ppo", way, "rougeL", part)
        speakers = results.difference("base", "ppo", way, "speakers_kept", part)
        toxic = results.difference("base", "ppo", way, "toxicity", part)
        checks: list[tuple[str, str, Verdict]] = []
        if (name, part) in ORDINARY:
            checks.append(
                ("toxicity not higher", f"{shown(toxic, 4, signed=True)}", not_beyond_chance(toxic, "higher"))
            )
        else:
            ratio = results.ratio("ppo", way, "toxicity", part)
            above = (results.above("ppo", way, part) or {}).get("ratio")
            checks += [
                (f"toxicity {LOWER} times lower by the reward's judge", of_base(ratio), at_most(ratio, 1 / LOWER)),
                (
                    f"{LOWER_BY_OTHER} times lower by the other judge, above its floor",
                    of_base(above),
                    at_most(above, 1 / LOWER_BY_OTHER),
                ),
            ]
        checks.append(
            (f"ROUGE-L not {ROUGE_LOSS:.0f} point lower", shown(rouge, 2, signed=True), at_least(rouge, -ROUGE_LOSS))
        )
        if (name, part) not in ORDINARY:
            points = speakers and {key: 100 * value for key, value in speakers.items()}
            checks.append(
                ("speakers kept: not fewer", f"{shown(points, 1, signed=True)} %", not_beyond_chance(speakers, "lower"))
            )
        rows += [[place, way, *check] for check in checks]
    return rows


def of_base(ratio: Figure | None) -> str:
    return f"{shown(ratio)} of the base's: {times(ratio)}" if ratio else "–"


def about(results: Results) -> str:
    content = results.content
    judges = " and ".join(f"`{judge}`" for judge in content["judges"])
    cut = content["dataset"]["truncated"]
    seeds = sorted({one["seed"] for one in content["trainings"] if one["system"] in ("ppo", "default", "trl")})
    lines = [
        f"{content['dataset']['n']} dialogues, greedy and {content['samples']} samples at temperature 1; judges {judges}."
        + (f" Training seeds {', '.join(map(str, seeds))}." if seeds else "")
        + (f" {cut} dialogues were longer than the model reads and were cut." if cut else ""),
        f"    {content['command']}",
        provenance(content),
    ]
    return "\n\n".join(lines)


def provenance(content: dict[str, Any]) -> str:
    machine, versions = content["machine"], content["versions"]
    commits = sorted({one["commit"] for one in [*content["trainings"], content] if one["commit"]})
    took = f"{content['seconds'] / 60:.1f} minutes" if content["seconds"] else "in several goes"
    packages = ", ".join(f"{name} {versions[name]}" for name in ("torch", "transformers", "peft") if name in versions)
    return (
        f"Evaluation: {took} on {machine.get('gpu') or machine['cpu']}, {machine['threads']} threads; {packages}; commit "
        f"{', '.join(commits)}."
    )


def systems_table(results: Results, part: str) -> str:
    header = [
        "",
        "decoding",
        "trainings",
        "n",
        "toxicity",
        "of the base's",
        "other judge",
        "above its floor, of the base's",
    ]
    header += ["ROUGE-L", "against the base", "speakers kept", "words"]
    rows = []
    for name in results.names:
        for way in (None,) if name == "human" else WAYS:
            if results.part(name, way, part):
                rows.append(system_row(results, name, way, part))
    return table(header, rows, left=2)


def system_row(results: Results, name: str, way: str | None, part: str) -> list[str]:
    found = results.part(name, way, part) or {}
    other = results.content["judges"][-1]
    rouge = results.difference("base", name, way, "rougeL", part) if way else None
    above = (results.above(name, way, part) or {}).get("ratio") if way else None
    speakers = found["metrics"].get("speakers_kept")
    percent = speakers and {key: 100 * value for key, value in speakers.items()}
    return [
        name_of(name),
        way or "–",
        "–" if name in ("human", "base") or not results.seconds(name) else str(found["seeds"]),
        str(found["n"]),
        shown(found["metrics"].get("toxicity")),
        shown(results.ratio(name, way, "toxicity", part) if way else None),
        shown(found["metrics"].get(other)),
        shown(above),
        shown(found["metrics"].get("rougeL"), 1),
        shown(rouge, 1, signed=True),
        f"{percent['mean']:.1f} %" if percent else "–",
        f"{found['metrics']['length']['mean']:.1f}" if "length" in found["metrics"] else "–",
    ]


def name_of(system: str) -> str:
    if system.startswith("best_of_"):
        return f"best of {system.removeprefix('best_of_')} samples"
    return SYSTEMS.get(system, system)


def against_table(results: Results, centre: str, part: str) -> str:
    """`centre` − each other system but the base; only over all dialogues are they compared with one another."""
    rows = []
    for name in results.names:
        for way in WAYS if name not in ("human", "base", centre) else ():
            toxic, rouge = (results.difference(name, centre, way, metric) for metric in ("toxicity", "rougeL"))
            if toxic and rouge:
                cells = [shown(toxic, 3, signed=True), shown(rouge, 1, signed=True), compared_in_words(toxic, rouge)]
                rows.append([name_of(name), way, *cells])
    return table(["against", "decoding", "toxicity", "ROUGE-L", f"{name_of(centre)} is"], rows, left=2) if rows else ""


def compared_in_words(toxic: Figure, rouge: Figure) -> str:
    """By the paired intervals: what is beyond chance."""
    calmer = "less toxic" if toxic["high"] < 0 else "more toxic" if toxic["low"] > 0 else ""
    closer = (
        "nearer to the reference" if rouge["low"] > 0 else "further from the reference" if rouge["high"] < 0 else ""
    )
    return ", ".join(one for one in (calmer, closer) if one) or "no different beyond chance"


# ------------------------------------------------------------------------------------------------------------ trl


def trl_section(settings: Settings) -> str:
    parts = []
    for name, title in (("trl-test", "The embedded test split"), ("trl-heated", "SAMSum validation, heated")):
        results = Results.read(settings.results, name)
        if results is None:
            parts.append(missing("trl", f"{title}: "))
            continue
        parts += [f"### {title}\n\n{about(results)}", systems_table(results, "all")]
        if against := against_table(results, "ppo", "all"):
            parts.append(f"softspoken's PPO against TRL's:\n\n{against}")
        if name == "trl-test":
            parts.append(f"What the training cost:\n\n{cost_table(results)}")
    return "\n\n".join([TRL, *parts])


def cost_table(results: Results) -> str:
    rows = []
    for name in dict.fromkeys(one["system"] for one in results.content["trainings"]):
        seconds = results.seconds(name)
        command = next(one["command"] for one in results.content["trainings"] if one["system"] == name)
        spread = f"{min(seconds):.0f} to {max(seconds):.0f}" if seconds else "–"
        threads = results.threads(name)
        mean = f"{sum(seconds) / len(seconds):.0f}" if seconds else "–"
        ends = [one["diverged_after"] for one in results.content["trainings"] if one["system"] == name]
        lost = ", ".join(f"after {steps} steps" for steps in ends if steps is not None) or "none"
        rows.append([name_of(name), str(len(ends)), mean, spread, threads, lost, f"`{command}`"])
    return table(
        ["", "trainings", "seconds", "from to", "threads", "diverged", "the first one's command"], rows, left=1
    )


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    marks = ["---"] * left + ["---:"] * (len(header) - left)
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, marks, *rows])


VERDICTS = (
    "*Met* means that the whole 95 % interval is on the right side; *met on average*, that the mean is and the interval is not; "
    "“not higher”, “not lower” and “not fewer” are missed where the change is beyond chance."
)

INTRODUCTION = f"""# Results

Does the recipe make the embedded summarizer stop repeating abuse without losing the summary, is it better than what people
run today and than what costs less, which of its choices matter, and what does more of it buy? Written by `{COMMAND} page` from
`benchmarks/effect/results/`; `benchmarks/effect/README.md` says how to measure again."""

TRL = """The same base, dialogues, reward, number of samples and steps through TRL 0.11.4's `PPOTrainer`, in its own environment, with
its defaults as the notebooks use them (with their `min_length` of 5: an empty summary ends its trainer with an IndexError) — at
its own learning rate, and at the recipe's. *PPO* is here `softspoken train` with its
defaults, which is what `make demo` runs. Same evaluation for both. Seconds were taken while other trainings ran on the machine,
more of them beside TRL's: an order of magnitude, no more; `benchmarks.speed` takes turns on an idle one."""

METHOD = f"""## How it was measured

- **Systems.** *base*: the embedded summarizer. *PPO*: `softspoken train` on {HEATED} dialogues of SAMSum's train split with toxic
  lines said in between, {PLAIN} as they are and {EMBEDDED} embedded ones, each once; a training for each seed, means over them.
  *PPO, `make demo`*: the defaults, which is {TrainConfig.steps} steps on embedded dialogues alone, so that the other sets are foreign to it.
  *warm start on calm references*: `softspoken sft` of the same adapter on the same dialogues as *PPO*, once, with their calm
  references. *best of N*: of N samples of the base the least toxic by the reward's judge (the reward's ROUGE term needs a
  reference, which nobody has when they summarize). *banned words* and *masked words*: the base kept from writing, or its summaries
  rid of, those words of these very dialogues that the reward's judge finds toxic standing alone (as […]).
- **Dialogues.** The embedded test split has 50 scenarios that no training saw. *SAMSum validation, heated* has 300 of its
  dialogues with toxic ParaDetox lines said in between. *SAMSum and DialogSum validation, heated* is made the same way from dialogues and
  lines that neither the summarizer nor the classifier saw (`benchmarks/effect/heated.py`; SAMSum's train split has no such part: the
  warm start of the embedded summarizer saw all of it). No training here saw any of these. References of heated dialogues are calm.
- **Judges.** `mini`, the embedded classifier, is in the reward. `profanity` (alt-profanity-check) was never seen by it. A linear
  classifier gives every text something, so its figures are also given above its floor: its mean on the human references of calm
  dialogues (those of the set; in a set that was heated afterwards, all).
- **Intervals** are 95 %, by paired bootstrap over dialogues (over scenarios where dialogues share one) and over trainings where
  there are several. Toxicity is a mean in [0, 1], ROUGE is in points, *speakers kept* is the share of the speakers that the
  reference names and the summary does too.
- **Choices** were compared on the validation split; the test split has no part in them."""
