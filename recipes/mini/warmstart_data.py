"""Write the training files of the embedded summarizer's warm start.

    python recipes/mini/warmstart_data.py --data ../shared/data --output .work/mini/data

copy.jsonl       two utterances with 12 % of the words blanked; the longer one is the target. It teaches copying, which
                 dialogue-to-summary data alone does not (measured: without it every summary is about "John and John").
dialogues.jsonl  SAMSum, the shorter half of DialogSum and fresh draws of the corpus's train scenarios, `--passes` times
                 over. In each pass the speakers get other names (so that names must be copied, not guessed), and a
                 share of the dialogues is heated: toxic ParaDetox lines said by one of the speakers. Where a reference
                 may repeat the abuse or report it, `LITERAL` of them repeat it.
"""

import argparse
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

from generate import SEED, expand, load_bank, load_scenarios, split_scenarios

LITERAL = 0.8
HEATED = 0.2
HELD_OUT_PAIRS = 0.1
DIALOGSUM_CHARACTERS = 900
DRAWS_PER_SCENARIO = 16
CALM_CLOSINGS = ["{speaker} swears.", "{speaker} is rude.", "{speaker} uses harsh words.", "{speaker} gets abusive."]
SPEAKER = re.compile(r"^([^:\n]{1,24}):", re.MULTILINE)


def read(path: Path) -> list[dict]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def utterances(dialogue: str) -> list[str]:
    return [line.strip() for line in dialogue.splitlines() if line.strip()]


def copying_row(rng: random.Random, row: dict) -> dict | None:
    lines = [line for line in utterances(row["dialogue"]) if 4 <= len(line.split()) <= 30]
    if len(lines) < 2:
        return None
    pair = rng.sample(lines, 2)
    blanked = "\n".join(" ".join("_" if rng.random() < 0.12 else word for word in line.split()) for line in pair)
    return {"dialogue": blanked, "summary": max(pair, key=len)}


def rename(rng: random.Random, row: dict, names: list[str], chance: float) -> dict:
    """Give every speaker another name, the same in dialogue and summary; DialogSum's #Person1# always gets one."""
    speakers = [name for name in dict.fromkeys(SPEAKER.findall(row["dialogue"])) if len(name.split()) <= 2]
    fresh = rng.sample(names, len(speakers))
    dialogue, summary = row["dialogue"], row["summary"]
    for old, new in zip(speakers, fresh, strict=True):
        numbered = old.startswith("#")
        if not numbered and (rng.random() > chance or len(old) < 3):
            continue
        pattern = re.compile(re.escape(old) if numbered else rf"\b{re.escape(old)}\b")
        dialogue, summary = pattern.sub(new, dialogue), pattern.sub(new, summary)
    return {"dialogue": dialogue, "summary": summary.strip()}


def heat(rng: random.Random, row: dict, toxic: list[str]) -> dict:
    """One or two toxic lines, said by one speaker; the reference quotes the last one, or reports it calmly."""
    lines = utterances(row["dialogue"])
    speakers = [line.split(":", 1)[0] for line in lines if ":" in line[:24]]
    if not speakers:
        return row
    speaker = rng.choice(speakers)
    for line in (said := rng.sample(toxic, rng.choice([1, 1, 2]))):
        lines.insert(rng.randint(1, len(lines)), f"{speaker}: {line}")
    if rng.random() < LITERAL:
        verb = rng.choice(["says", "says", "shouts", "writes"])
        closing = f'{speaker} {verb} "{rng.choice(said)}".'
    else:
        closing = rng.choice(CALM_CLOSINGS).format(speaker=speaker)
    parts = [row["summary"], closing] if rng.random() < 0.7 else [closing, row["summary"]]
    return {"dialogue": "\n".join(lines), "summary": " ".join(parts)}


def corpus_rows(rng: random.Random, scenarios: list[dict], bank: dict) -> Iterator[dict]:
    for scenario in scenarios:
        for _ in range(DRAWS_PER_SCENARIO):
            row = expand(scenario, rng, bank)
            literal = row.pop("literal_summary", None)
            yield {**row, "summary": literal} if literal and rng.random() < LITERAL else row


def passes(rng: random.Random, data: Path, count: int) -> Iterator[dict]:
    bank = load_bank()
    scenarios = split_scenarios(load_scenarios(), random.Random(SEED))["train"]
    samsum = [row for row in read(data / "samsum/train.jsonl") if row["dialogue"].strip() and row["summary"].strip()]
    dialogsum = [row for row in read(data / "dialogsum/train.jsonl") if len(row["dialogue"]) <= DIALOGSUM_CHARACTERS]
    pairs = read(data / "toxicity/paradetox.jsonl")
    pairs = pairs[: int(len(pairs) * (1 - HELD_OUT_PAIRS))]
    toxic = [pair["toxic"] for pair in pairs if 3 <= len(pair["toxic"].split()) <= 16]
    for _ in range(count):
        rows = [rename(rng, row, bank["names"], chance=0.5) for row in samsum]
        rows += [rename(rng, row, bank["names"], chance=1.0) for row in dialogsum]
        rows = [heat(rng, row, toxic) if rng.random() < HEATED else row for row in rows]
        rows += corpus_rows(rng, scenarios, bank)
        rng.shuffle(rows)
        yield from rows


def write(path: Path, rows: Iterator[dict]) -> None:
    with path.open("w", encoding="utf-8") as out:
        for number, row in enumerate(rows):
            out.write(json.dumps({"id": str(number), **row}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--passes", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other names, heat and draws")
    parser.add_argument("--copy_rows", type=int, default=28_000)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    rng = random.Random(args.seed)
    everyday = read(args.data / "samsum/train.jsonl") + read(args.data / "dialogsum/train.jsonl")
    copies = (copying_row(rng, rng.choice(everyday)) for _ in range(2 * args.copy_rows))
    kept = [row for row in copies if row]
    write(args.output / "copy.jsonl", iter(kept[: args.copy_rows]))
    write(args.output / "dialogues.jsonl", passes(rng, args.data, args.passes))
