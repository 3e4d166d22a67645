"""Summaries that say only what the dialogue says: an inference model in the reward, and in the report as a guard.

    softspoken train --task examples/nli_guard.py --model google/flan-t5-base --dataset knkarthick/samsum --on_bad_row skip \
        --output runs/entailed

A task is a file with a TASK in it. This one is `summarization` with a term more: the probability that the dialogue entails its summary. The
reward raises it a little, so that calm is not bought by inventing; and as a guard the verdict says of it whether it was lost. Any
cross-encoder with a label "entailment" will do; --measure entailed=entails:ANOTHER takes another in its place.
"""

from dataclasses import replace

from softspoken.tasks.summarization import TASK as SUMMARIZATION
from softspoken.tasks.task import Guard, Measure

NLI = "MoritzLaurer/DeBERTa-v3-base-mnli-fever-anli"

TASK = replace(
    SUMMARIZATION,
    name="entailed summarization",
    terms={"entailed": f"entails:{NLI}"},
    reward="mini + 1.5*rouge:rougeL + 0.5*{entailed}",
    guards=(
        *SUMMARIZATION.guards,
        Guard("entailed", margin=0.02, kept="stayed as true", lost="say more than was said"),
    ),
    guarded="ROUGE-L or entailment",
    measures={
        **SUMMARIZATION.measures,
        "entailed": Measure(
            "Entailed", "probability that the {text} entails the {response}", "fraction", "higher", "Quality"
        ),
    },
)
