"""ROUGE, as the reward and the evaluation both have it: rouge-score's, over words of every script and sentences found here."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from softspoken.config.specs import ROUGES
from softspoken.data.words import by_sentence, tokens


def rouge(references: Sequence[str], response: str, kinds: Sequence[str] = ROUGES) -> dict[str, float]:
    """F1 of each kind in [0, 1], each the best over the references (Lin 2004).

    Words are stemmed where they are ASCII, which is what rouge-score knows; of other scripts it would drop every letter.
    """
    found = [_against(reference, response, tuple(kinds)) for reference in references]
    return {kind: max(scores[kind] for scores in found) for kind in kinds}


def _against(reference: str, response: str, kinds: tuple[str, ...]) -> dict[str, float]:
    texts = by_sentence(reference), by_sentence(response)
    one_each = "\n" not in "".join(texts)  # then ROUGE-Lsum is ROUGE-L, at half the work
    wanted = tuple(dict.fromkeys("rougeL" if one_each and kind == "rougeLsum" else kind for kind in kinds))
    scores = {kind: score.fmeasure for kind, score in _scorer(wanted).score(*texts).items()}
    return {kind: scores[kind if kind in scores else "rougeL"] for kind in kinds}


@functools.cache
def _scorer(kinds: tuple[str, ...]) -> Any:
    from rouge_score.rouge_scorer import RougeScorer  # takes seconds to import

    return RougeScorer(kinds, tokenizer=_Tokenizer())


class _Tokenizer:
    """Stemming is most of the work; words come again in every response, and a reference with each of its responses."""

    def __init__(self) -> None:
        from nltk.stem.porter import PorterStemmer

        stem = functools.lru_cache(maxsize=65_536)(PorterStemmer().stem)

        @functools.lru_cache(maxsize=4096)
        def tokenize(text: str) -> list[str]:
            return [stem(token) if len(token) > 3 and token.isascii() else token for token in tokens(text)]

        self.tokenize = tokenize
