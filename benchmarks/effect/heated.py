"""Heated dialogues: everyday ones with toxic lines said in between. A set to measure on, none of which any model here has seen,
and one to train on.

The recipe is that of heated/validation.jsonl, read off its rows: one to three toxic lines of 5 to 20 words (1 : 2 : 1),
each said by one of the speakers, anywhere but at the beginning; the summary stays the calm one.

SAMSum's train split has no unused part: the embedded summarizer's warm start saw all of it. So the dialogues are those of SAMSum's
validation split that heated/validation.jsonl leaves, and DialogSum's validation split, its #Person1# given names. The lines are of the
tenth of ParaDetox that neither the summarizer nor the embedded classifier was trained on (recipes/mini; of the lines in
heated/validation.jsonl nine in ten were). The set to train on is of SAMSum's train split and the other nine tenths, with
embedded dialogues among them.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from softspoken.data.reading import load_examples

Row = dict[str, Any]
HELD_OUT = 0.1
WORDS = range(5, 21)
LINES = (1, 2, 2, 3)
NUMBERED = re.compile(r"#Person\d+#")
SPEAKER = re.compile(r"^([^:\n]{1,40}):")
NAMES = Path("recipes/mini/bank.yaml")
TRAIN, PAIRS = "samsum/train.jsonl", "toxicity/paradetox.jsonl"
SOURCES = ("samsum/validation.jsonl", "heated/validation.jsonl", "dialogsum/validation.jsonl", PAIRS)
HEATED, PLAIN, EMBEDDED = 800, 200, 1000
"""Dialogues of the set to train on."""


def write_heated(data: Path, path: Path, limit: int | None = None) -> int:
    """The set of all rows, or of the first `limit`; returns how many there are."""
    samsum, taken, dialogsum, pairs = (_read(data / name) for name in SOURCES)
    names = yaml.safe_load(NAMES.read_text(encoding="utf-8"))["names"]
    rng = random.Random(0)
    _, held_out = toxic_lines(pairs)
    rows = [heat(rng, row, held_out) for row in unseen(rng, samsum, taken, dialogsum, names)][:limit]
    return _write(rows, path)


def write_training(data: Path, path: Path, limit: int | None = None) -> int:
    """HEATED dialogues of SAMSum's train split with toxic lines, PLAIN others as they are, EMBEDDED ones; in mixed order."""
    rng = random.Random(0)
    lines, _ = toxic_lines(_read(data / PAIRS))
    samsum = [row for row in _read(data / TRAIN) if speakers(row["dialogue"]) and row["summary"].strip()]
    samsum = rng.sample(samsum, HEATED + PLAIN)
    embedded = rng.sample(load_examples("mini", "train"), EMBEDDED)
    rows = [heat(rng, row, lines) for row in samsum[:HEATED]] + samsum[HEATED:]
    rows += [{"id": one.id, "dialogue": one.text, "summary": one.reference} for one in embedded]
    rng.shuffle(rows)
    return _write(rows[:limit], path)


def _write(rows: list[Row], path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.saving")
    beside.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    beside.replace(path)
    return len(rows)


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


def _read(path: Path) -> list[Row]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
