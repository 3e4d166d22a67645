"""What was tried → docs/reliability.md, as reliability.md.j2 has it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from benchmarks.pages import Row, fill, table
from benchmarks.provenance import ROOT
from benchmarks.records import Record, read_lines
from benchmarks.reliability import faults, fuzz, kills, soak

RESULTS = Path(__file__).parent / "results"
PAGE = ROOT / "docs" / "reliability.md"
SENTENCES = 3
"""Of each kind of fault, as examples."""


def write_page() -> None:
    parts = {part: read_lines(RESULTS / f"{part}.jsonl") for part in TABLES}
    commits = Counter(one["commit"] for records in parts.values() for one in records)
    text = fill(
        Path(__file__).with_name("reliability.md.j2"),
        commits=", ".join(sorted(commits)),
        all_faults=len(faults.trials()),
        tried=tried(parts),
        chain=kills.CHAIN,
        bound=f"{fuzz.BOUND:.0f}",
        memory=fuzz.MEMORY >> 20,
        block=fuzz.BLOCK,
        warm=round(100 * soak.WARM),
        blocks=soak.BLOCKS,
        **{part: TABLES[part](records) if records else "Not tried yet." for part, records in parts.items()},
        said=sentences(parts["faults"]),
    )
    PAGE.write_text(text, encoding="utf-8")


def tried(parts: dict[str, list[Record]]) -> str:
    """How much of the aim, in words."""
    seen = {one["command"]: one["size"] for one in parts["soak"]}
    counts = [
        (sum(one["kills"] for one in parts["kills"]), "kills"),
        (len(parts["faults"]), "faults"),
        (sum(one["inputs"] for one in parts["fuzz"]), "inputs"),
        (seen.get("train", 0), "steps"),
        (seen.get("generate", 0), "texts"),
    ]
    *most, last = [f"{count:,} {what}" for count, what in counts]
    return f"{', '.join(most)} and {last}"


def kills_table(records: list[Record]) -> str:
    return table([_kills(name, some) for name, some in _each(records, "command")])


def _kills(name: str, some: list[Record]) -> Row:
    places = {(one["command"], one["operation"]) for one in some}
    number = sum({one["command"]: one["operations"] for one in some}.values())
    return [
        ("command", name),
        ("runs", f"{len(some):,}"),
        ("kills", f"{sum(one['kills'] for one in some):,}"),
        ("gone on with", f"{sum(one['went_on'] for one in some):,}"),
        ("operations killed at first", f"{len(places)} of {number}"),
        ("other bytes", str(sum(bool(one["other_bytes"]) for one in some))),
        ("others' files touched", str(sum(bool(one["touched"]) for one in some))),
        ("refused or failed", str(sum(bool(one["wrong"]) for one in some))),
    ]


def faults_table(records: list[Record]) -> str:
    tried = [one for one in records if one["status"] != faults.NOT_HERE]
    return table([_faults(name, some) for name, some in _each(tried, "command")])


def _faults(name: str, some: list[Record]) -> Row:
    statuses = Counter(one["status"] for one in some)
    return [
        ("command", name),
        ("phases", str(len({(one["command"], one["phase"]) for one in some}))),
        ("faults", str(len(some))),
        *((title, str(statuses[number])) for number, title in enumerate(("survived", "exit 1", "exit 2"))),
        ("not said in one sentence", str(sum(bool(one["wrong"]) for one in some))),
        ("others' files touched", str(sum(bool(one["touched"]) for one in some))),
    ]


def sentences(records: list[Record]) -> list[tuple[str, list[str]]]:
    """Of each fault, what is said most often."""
    found = []
    for fault, some in _each(records, "fault", whole=False):
        said = Counter(re.sub(r"^step \d+", "step N", one["said"]) for one in some if one["said"])
        found.append((fault[0].upper() + fault[1:], [sentence for sentence, _ in said.most_common(SENTENCES)]))
    return [one for one in found if one[1]]


def fuzz_table(records: list[Record]) -> str:
    return table([_fuzz(name, some) for name, some in _each(records, "kind")])


def _fuzz(name: str, some: list[Record]) -> Row:
    exits = sum((Counter(one["exit"]) for one in some), Counter[str]())
    return [
        ("inputs", name),
        ("tried", f"{sum(one['inputs'] for one in some):,}"),
        ("exit 0", f"{exits['0']:,}"),
        ("exit 2, one line", f"{exits['2']:,}"),
        ("anything else", str(sum(len(one["wrong"]) for one in some))),
        ("longest, s", f"{max(one['seconds'] for one in some):.1f}"),
        ("most memory, MiB", str(max(one["grown"] for one in some) >> 20)),
    ]


def soak_table(records: list[Record]) -> str:
    rows: list[Row] = []
    for one in records:
        found = soak.figures(one)
        unit = soak.WORK[one["command"]]
        memory, seconds = found["memory"], found["seconds"]
        rows.append(
            [
                ("work", f"`{one['command']}`, {one['size']:,} {unit}"),
                ("memory", f"{found['level'][0]:.0f} MiB"),
                ("its gain", f"{round(memory[0], 1) + 0.0:+.1f} ± {memory[1]:.1f} MiB"),
                ("CPU ms a step or text", f"{1000 * found['each'][0]:.1f}"),
                ("their gain", f"{100 * seconds[0]:+.1f} ± {100 * seconds[1]:.1f} %"),
            ]
        )
    return table(rows)


def _each(records: list[Record], field: str, *, whole: bool = True) -> list[tuple[str, list[Record]]]:
    names = list(dict.fromkeys(one[field] for one in records))
    parts = [(name, [one for one in records if one[field] == name]) for name in names]
    return [*parts, *([("all", records)] if whole else [])]


TABLES: dict[str, Callable[[list[Record]], str]] = {
    "kills": kills_table,
    "faults": faults_table,
    "fuzz": fuzz_table,
    "soak": soak_table,
}
