"""Heated dialogues: everyday ones with toxic lines said in between. A set to measure on, none of which any model here has seen,
and one to train on.

python -m benchmarks.effect.heated train|measure DATA FILE [ROWS]

The recipe is that of heated/validation.jsonl, read off its rows: one to three toxic lines of 5 to 20 words (1 : 2 : 1),
each said by one of the speakers, anywhere but at the beginning; the summary stays the calm one.

SAMSum's train split has no unused part: the embedded summarizer's warm start saw all of it. So the dialogues are those of SAMSum's
validation split that heated/validation.jsonl leaves, and DialogSum's validation split, its #Person1# given names. The lines are of the
tenth of ParaDetox that neither the summarizer nor the embedded classifier was trained on (recipes/mini; of the lines in
heated/validation.jsonl nine in ten were). The set to train on is of SAMSum's train split and the other nine tenths, with
embedded dialogues among them.
"""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Iterable
from pathlib import Path

import yaml

from benchmarks.records import Record, read_lines, write_lines
from softspoken.data.reading import load_examples

Row = Record
HELD_OUT = 0.1
WORDS = range(5, 21)
LINES = (1, 2, 2, 3)
NUMBERED = re.compile(r"#Person\d+#")
SPEAKER = re.compile(r"^([^:\n]{1,40}):")
NAMES = Path("recipes/mini/bank.yaml")
TRAIN, PAIRS = "samsum/train.jsonl", "toxicity/paradetox.jsonl"
HEATED = "heated/validation.jsonl"
SOURCES = ("samsum/validation.jsonl", HEATED, "dialogsum/validation.jsonl", PAIRS)
CHANGED, PLAIN, EMBEDDED = 800, 200, 1000
"""Dialogues of the set to train on."""


def write_heated(data: Path, path: Path, limit: int | None = None) -> int:
    """The set of all rows, or of the first `limit`; returns how many there are."""
    samsum, taken, dialogsum, pairs = (read_lines(data / name) for name in SOURCES)
    names = yaml.safe_load(NAMES.read_text(encoding="utf-8"))["names"]
    rng = random.Random(0)
    _, held_out = toxic_lines(pairs)
    rows = [heat(rng, row, held_out) for row in unseen(rng, samsum, taken, dialogsum, names)][:limit]
    return write_lines(path, rows)


def write_training(data: Path, path: Path, limit: int | None = None) -> int:
    """CHANGED dialogues of SAMSum's train split with toxic lines, PLAIN others as they are, EMBEDDED ones; in mixed order."""
    rng = random.Random(0)
    lines, _ = toxic_lines(read_lines(data / PAIRS))
    samsum = [row for row in read_lines(data / TRAIN) if speakers(row["dialogue"]) and row["summary"].strip()]
    samsum = rng.sample(samsum, CHANGED + PLAIN)
    embedded = rng.sample(load_examples("mini", "train"), EMBEDDED)
    rows = [heat(rng, row, lines) for row in samsum[:CHANGED]] + samsum[CHANGED:]
    rows += [{"id": one.id, "dialogue": one.text, "summary": one.reference} for one in embedded]
    rng.shuffle(rows)
    return write_lines(path, rows[:limit])


def unseen(
    rng: random.Random, samsum: list[Row], taken: list[Row], dialogsum: list[Row], names: list[str]
) -> list[Row]:
    """Dialogues with speakers and a summary, those that are in `taken` (as heated-ID) left out; in mixed order."""
    used = {row["id"].removeprefix("heated-") for row in taken}
    rows = [{**row, "id": f"samsum-{row['id']}"} for row in samsum if row["id"] not in used]
    rows += [{**named(rng, row, names), "id": f"dialogsum-{row['id']}"} for row in dialogsum]
    rows = [row for row in rows if speakers(row["dialogue"]) and row["summary"].strip()]
    rng.shuffle(rows)
    return rows


def toxic_lines(pairs: list[Row]) -> tuple[list[str], list[str]]:
    """Those trained on, and those held out: the last tenth, as recipes/mini cuts it."""
    lines = [" ".join(pair["toxic"].split()) for pair in pairs]
    cut = int(len(pairs) * (1 - HELD_OUT))
    seen = {line for line in lines[:cut] if len(line.split()) in WORDS}
    return sorted(seen), sorted({line for line in lines[cut:] if len(line.split()) in WORDS} - seen)


def named(rng: random.Random, row: Row, names: list[str]) -> Row:
    """Numbered persons get names that the dialogue does not have, the same in dialogue and summary."""
    persons = sorted(set(NUMBERED.findall(row["dialogue"] + row["summary"])))
    free = [name for name in names if name not in row["dialogue"]]
    calls = dict(zip(persons, rng.sample(free, len(persons)), strict=True))
    return {**row, **{key: NUMBERED.sub(lambda match: calls[match[0]], row[key]) for key in ("dialogue", "summary")}}


def heat(rng: random.Random, row: Row, toxic: list[str]) -> Row:
    lines = [line.strip() for line in row["dialogue"].splitlines() if line.strip()]
    who = speakers(row["dialogue"])
    for said in rng.sample(toxic, rng.choice(LINES)):
        lines.insert(rng.randint(1, len(lines)), f"{rng.choice(who)}: {said}")
    return {"id": row["id"], "dialogue": "\n".join(lines), "summary": row["summary"]}


def speakers(dialogue: str) -> list[str]:
    found: Iterable[re.Match[str] | None] = map(SPEAKER.match, dialogue.splitlines())
    return list(dict.fromkeys(match[1].strip() for match in found if match))


if __name__ == "__main__":
    what, *folders, rows = sys.argv[1:] if len(sys.argv) > 4 else [*sys.argv[1:], None]
    write = {"train": write_training, "measure": write_heated}[what]
    print(f"{write(*map(Path, folders), int(rows) if rows else None)} dialogues")
