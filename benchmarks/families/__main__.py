"""The table of families, docs/families.md: what trains, and how far its numbers are from the model's own.

.venv/bin/python -m benchmarks.families            every family, both scopes, all algorithms (minutes), then docs/families.md
.venv/bin/python -m benchmarks.families --short    a few families, one update each; writes nothing
"""

from __future__ import annotations

import argparse
import importlib.metadata
import warnings
from itertools import product
from pathlib import Path

from transformers.utils import logging

from benchmarks.families.measure import ALGORITHMS, DIALOGUES, SCOPES, TOKENS, Found, measure
from benchmarks.families.models import FAMILIES
from benchmarks.pages import MISSING, fill, table
from benchmarks.provenance import ROOT, commit

SHORT = ("BART", "SwitchTransformers", "EncoderDecoder (BERT, BERT)", "LED", "ProphetNet")
PAGE = ROOT / "docs" / "families.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true")
    short = parser.parse_args().short
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.simplefilter("ignore")
    found = []
    for family in SHORT if short else FAMILIES:
        found.append(measure_short(family) if short else measure(family, list(product(SCOPES, ALGORITHMS)), whole=True))
        print(table([_row(found[-1])]).splitlines()[-1] + (found[-1].refused or ""), flush=True)
    if not short:
        PAGE.write_text(page(found), encoding="utf-8")


def measure_short(family: str) -> Found:
    return measure(family, [("all", "ppo")], whole=False)


def page(found: list[Found]) -> str:
    return fill(
        Path(__file__).with_name("families.md.j2"),
        table=table([_row(one) for one in found if not one.refused]),
        refused=[(one.family, one.refused) for one in found if one.refused],
        families=len(found),
        dialogues=DIALOGUES,
        tokens=TOKENS,
        short=f"{', '.join(SHORT[:-1])} and {SHORT[-1]} with one update",
        commit=commit(),
        versions={name: importlib.metadata.version(name) for name in ("transformers", "torch", "peft")},
    )


def _row(one: Found) -> list[tuple[str, str]]:
    count = len(one.trained)
    numbers = {"log-probability": one.logprob, "gradient": one.gradient, "one at a time": one.mismatch}
    return [
        ("family", one.family),
        ("trains", f"{count} of {len(SCOPES) * len(ALGORITHMS)}"),
        *((name, f"{value:.0e}" if value else "0") for name, value in numbers.items()),
        *((name, _yes(one.works.get(name))) for name in ("evaluate", "generate", "as PEFT's")),
    ]


def _yes(works: bool | None) -> str:
    return MISSING if works is None else "yes" if works else "no"


if __name__ == "__main__":
    main()
