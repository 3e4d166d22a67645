"""sacrebleu's measures of one response against its references, in points; of several references the nearest counts."""

from __future__ import annotations

import functools
from typing import Any


def chrf(response: str, references: list[str]) -> float:
    """chrF2: character 1- to 6-grams, recall weighing double (Popović 2015)."""
    return float(_chrf().sentence_score(response, references).score)


def bleu(response: str, references: list[str]) -> float:
    """BLEU of a sentence (Papineni et al. 2002), without the orders that it is too short for."""
    return float(_bleu().sentence_score(response, references).score)


@functools.cache
def _chrf() -> Any:
    from sacrebleu.metrics import CHRF

    return CHRF()


@functools.cache
def _bleu() -> Any:
    from sacrebleu.metrics import BLEU

    return BLEU(effective_order=True)
