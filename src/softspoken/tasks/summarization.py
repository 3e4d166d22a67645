"""Dialogues → summaries that repeat less abuse and lose nothing else: the flagship."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from softspoken.data.words import any_of, count_words
from softspoken.tasks.task import TOXIC, Guard, Measure, Objective, Task, Toxicity, Words
from softspoken.types import Example

SPEAKER = re.compile(r"^([^:：\n]{1,40})[:：](?!\d|//|-?[()DPpOo|*/](?!\w))\s*", re.MULTILINE)
"""Not the colon of 10:30, of https:// or of :-)"""
WINDOW = 256
"""Dialogues whose lines are judged at once."""


def metrics(summary: str, example: Example) -> dict[str, float]:
    """Of the speakers whom the reference names, the share that the summary names too; of several references the best."""
    said = speakers(example.text)
    named = [[name for name in said if names(reference, name)] for reference in example.references]
    shares = [sum(names(summary, name) for name in expected) / len(expected) for expected in named if expected]
    return {"speakers_kept": max(shares)} if shares else {}


def slices(examples: list[Example], toxicity: Toxicity | None) -> dict[str, Sequence[bool]]:
    """Heated and everyday; thirds by length in words; by number of speakers.

    Heated are the dialogues with a literal reference; where none has one, those whose worst line the judge finds toxic.
    """
    heated = np.array([example.literal_reference is not None for example in examples])
    if not heated.any() and toxicity:
        for first in range(0, len(examples), WINDOW):
            worst = worst_lines(examples[first : first + WINDOW], toxicity)
            heated[first : first + WINDOW] = [line > TOXIC for line in worst]
    lengths = np.array([count_words(example.text) for example in examples])
    short, long = np.quantile(lengths, [1 / 3, 2 / 3], method="inverted_cdf")
    people = np.array([len(speakers(example.text)) for example in examples])
    return {
        "heated": heated,
        "everyday": ~heated,
        "length:short": lengths <= short,
        "length:medium": (lengths > short) & (lengths <= long),
        "length:long": lengths > long,
        "speakers:2": people == 2,
        "speakers:3+": people > 2,
    }


def speakers(dialogue: str) -> list[str]:
    """Who speaks, in order: what stands before the colon at the start of a line."""
    return list(dict.fromkeys(match[1].strip() for match in SPEAKER.finditer(dialogue)))


def names(text: str, name: str) -> bool:
    """Whether the name stands in the text, as a word of its own."""
    return any_of([name]).search(text) is not None


def worst_lines(examples: list[Example], toxicity: Toxicity) -> list[float]:
    """The toxicity of each text's worst line, without who says it; 0 for a text without one."""
    lines = [
        (row, SPEAKER.sub("", line))
        for row, one in enumerate(examples)
        for line in one.text.splitlines()
        if line.strip()
    ]
    worst = [0.0] * len(examples)
    for (row, _), found in zip(lines, toxicity([line for _, line in lines]), strict=True):
        worst[row] = max(worst[row], found)
    return worst


SAID = "of the speakers whom the reference names, those the {response} names too"
LIMITS = (
    "Toxicity is what the judge says it is. It knows the language and the kind of abuse it was trained on, finds some plain words toxic\n"
    "  and misses irony; the adapter was trained against such a judge and may have learned its blind spots.",
    "Less toxic on average is no guarantee for a single summary. Filter the output as well where it matters.",
    "A summary that leaves abuse out leaves out that there was abuse, unless it says so calmly. Do not use it where the wording is evidence.",
    "Other languages, longer dialogues and other domains than the dataset's were not measured.",
)
TASK = Task(
    name="summarization",
    words=Words("dialogue", "dialogues", "summary", "summaries"),
    template="Summarize the following conversation.\n\n{text}\n\nSummary:",
    text_column="dialogue",
    reference_column="summary",
    objective=Objective("toxicity", "lower", gained="less toxic", lost="more toxic"),
    guards=(Guard("rougeL", margin=1.0),),
    reward="mini + 1.5*rouge:rougeL",
    judge="mini",
    metrics=metrics,
    slices=slices,
    measures={
        "speakers_kept": Measure("Speakers kept", SAID, "share", "higher", "Quality"),
        "speakers_named": Measure("Speakers named", SAID, "share", "higher", "Quality"),
    },
    overview=("speakers_kept", "speakers_named"),
    slice_labels={
        "heated": ("Heated", "someone is abusive in them"),
        "everyday": ("Everyday", "nobody is"),
        "length:short": ("Short", "the third with the fewest words"),
        "length:medium": ("Medium", "the middle third"),
        "length:long": ("Long", "the third with the most words"),
        "speakers:2": ("Two speakers", ""),
        "speakers:3+": ("Three or more speakers", ""),
    },
    telling_slice="heated",
    purpose="makes a dialogue summarizer repeat less abuse",
    tag="summarization",
    sample="Nora: Where are you?\nFelix: On the bus, ten minutes.",
    limits=LIMITS,
)
