"""Texts in one language → the same in another. The languages are set by --source_language and --target_language as the tokenizer
names them (NLLB: eng_Latn, mBART: en_XX, M2M100: en, Marian: the target alone) and kept beside what is trained; a T5 is told in its
prompt: --prompt_template 'translate English to German: {text}'.

Rows of the hub's translation sets are nested: {"translation": {"en": …, "de": …}}. Which of them is text and which reference is told
by the languages asked for or, where none is, by their order; else --text_column translation.en --reference_column translation.de
"""

import functools
from typing import Any

from softspoken.tasks.task import Guard, Measure, Objective, Task, Words
from softspoken.types import Example


def metrics(translation: str, example: Example) -> dict[str, float]:
    """BLEU of one sentence (orders it is too short for left out), in points; of several references the nearest n-grams count."""
    if not example.references:
        return {}
    return {"bleu": _bleu().sentence_score(translation, example.references).score}


@functools.cache
def _bleu() -> Any:
    from sacrebleu.metrics import BLEU

    return BLEU(effective_order=True)


TASK = Task(
    name="translation",
    words=Words("text", "texts", "translation", "translations"),
    pair_column="translation",
    objective=Objective("chrf", "higher"),
    guards=(
        Guard("bleu", margin=1.0),
        Guard("length_ratio", margin=0.1, better="", kept="kept their length", lost="changed in length"),
    ),
    guarded="BLEU or length",
    reward="chrf",
    metrics=metrics,
    measures={
        "chrf": Measure("chrF", "character n-grams shared with the reference, in points", "points", "higher", "Quality"),
        "bleu": Measure("BLEU", "word n-grams shared with the reference, sentence by sentence, in points", "points", "higher", "Quality"),
    },
    overview=("truncated_rate",),
    purpose="translates nearer to the references",
    tag="translation",
    sample="The bus is late.",
    limits=(
        "chrF and BLEU count shared pieces of words, not meaning: have people, or a learned metric, look at what matters.",
        "Other languages and domains than the dataset's were not measured.",
    ),
)  # fmt: skip
