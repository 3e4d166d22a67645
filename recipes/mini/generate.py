"""Expand the hand-written scenarios into the embedded corpus.

    python recipes/mini/generate.py --output src/softspoken/assets/mini/corpus

A scenario is a situation with slots (names, things, times, abuse) and alternative wordings; each of its dialogues is one
seeded draw. The splits are by scenario: what the test split is about was never trained on. Written as
{train,validation,test}.jsonl.gz with `id, dialogue, summary, literal_summary, group`; `group` is the scenario.
"""

import argparse
import gzip
import json
import random
import re
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
SLOT = re.compile(r"\{(\w+?)(2?)\}")
VOWEL_SOUND = re.compile(r"^(?:[aeio]|un(?!i)|ug|hono|hour)", re.IGNORECASE)
SEED = 0
HELD_OUT_SCENARIOS = 50
PER_SCENARIO = {"train": 16, "validation": 5, "test": 5}


def load_scenarios() -> list[dict[str, Any]]:
    scenarios = [
        s for path in sorted((HERE / "scenarios").glob("*.yaml")) for s in yaml.safe_load(path.read_text("utf-8"))
    ]
    assert len({s["id"] for s in scenarios}) == len(scenarios), "scenario ids must be unique"
    return scenarios


def load_bank() -> dict[str, list[str]]:
    return yaml.safe_load((HERE / "bank.yaml").read_text("utf-8"))


def split_scenarios(scenarios: list[dict[str, Any]], rng: random.Random) -> dict[str, list[dict[str, Any]]]:
    """Held-out scenarios are half heated, half everyday, and drawn from every topic file alike."""
    splits: dict[str, list[dict[str, Any]]] = {"train": [], "validation": [], "test": []}
    for heated in (True, False):
        kind = [s for s in scenarios if s["heated"] is heated]
        rng.shuffle(kind)
        half = HELD_OUT_SCENARIOS // 2
        splits["test"] += kind[:half]
        splits["validation"] += kind[half : 2 * half]
        splits["train"] += kind[2 * half :]
    return splits


class Filling:
    """One value for each slot, drawn when first asked for and the same ever after."""

    def __init__(self, rng: random.Random, bank: dict[str, list[str]], slots: dict[str, list[str]]) -> None:
        self.rng, self.bank, self.slots, self.values = rng, bank, slots, {}
        self.values.update(zip("ABCD", rng.sample(bank["names"], 4), strict=True))

    def value(self, name: str, number: str) -> str:
        if name.startswith("an_"):
            noun = self.value(name.removeprefix("an_"), number)
            return f"{'an' if VOWEL_SOUND.match(noun) else 'a'} {noun}"
        key = name + number
        if key not in self.values:
            choices = self.slots.get(name) or self.bank[name]
            taken = self.values.get(name)
            self.values[key] = self.rng.choice([choice for choice in choices if choice != taken])
        return str(self.values[key])

    def fill(self, text: str) -> str:
        return SLOT.sub(lambda slot: self.value(slot[1], slot[2]), text)


def sentence_case(text: str) -> str:
    """Capitals at the start and after a full stop, where a slot may have put a small letter."""
    return re.sub(r"(^|[.!?] )([a-z])", lambda match: match[1] + match[2].upper(), text)


def chat_style(rng: random.Random, line: str, careless: bool) -> str:
    speaker, said = line.split(": ", 1)
    if careless and rng.random() < 0.6:
        return f"{speaker}: {said[0].lower()}{said[1:].rstrip('.')}"
    return f"{speaker}: {sentence_case(said)}"


def expand(scenario: dict[str, Any], rng: random.Random, bank: dict[str, list[str]]) -> dict[str, str]:
    filling = Filling(rng, bank, scenario.get("slots") or {})
    careless = rng.random() < 0.3
    lines = []
    for turn in scenario["turns"]:
        wording = turn if isinstance(turn, str) else rng.choice(turn)
        if wording.startswith("? "):
            if rng.random() < 0.5:
                continue
            wording = wording.removeprefix("? ")
        speaker, said = wording.split(":", 1)
        lines.append(chat_style(rng, f"{filling.values[speaker]}: {filling.fill(said.strip())}", careless))
    variant = rng.randrange(len(scenario["calm"]))
    row = {"dialogue": "\n".join(lines), "summary": sentence_case(filling.fill(scenario["calm"][variant]))}
    if scenario["heated"]:
        row["literal_summary"] = sentence_case(filling.fill(scenario["literal"][variant]))
    return row


def generate(output: Path) -> None:
    bank = load_bank()
    splits = split_scenarios(load_scenarios(), random.Random(SEED))
    output.mkdir(parents=True, exist_ok=True)
    for split, scenarios in splits.items():
        rows, seen = [], set()
        for scenario in scenarios:
            rng = random.Random(f"{SEED}-{scenario['id']}")
            for number in range(PER_SCENARIO[split]):
                row = expand(scenario, rng, bank)
                assert row["dialogue"] not in seen, f"{scenario['id']}: too few wordings"
                seen.add(row["dialogue"])
                rows.append({"id": f"{scenario['id']}-{number}", **row, "group": scenario["id"]})
        random.Random(SEED).shuffle(rows)
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        with gzip.GzipFile(output / f"{split}.jsonl.gz", "wb", mtime=0) as file:
            file.write(text.encode("utf-8"))
        heated = sum("literal_summary" in row for row in rows)
        print(f"{split}: {len(rows)} dialogues ({heated} heated) of {len(scenarios)} scenarios")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    generate(parser.parse_args().output)
