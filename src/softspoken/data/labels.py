"""What a decoder is taught to write: references as token ids that begin and end as the model's own responses do."""

from __future__ import annotations

from typing import Any

from transformers import GenerationConfig


def label_ids(references: list[str], tokenizer: Any, generation: GenerationConfig) -> list[list[int]]:
    """Each reference's ids, an end among them.

    Shifted right they are what the decoder reads: an id that begins every response is not among them once more, unless it
    is forced as well.
    """
    start, end = generation.decoder_start_token_id, tokenizer.eos_token_id
    labels: list[list[int]] = tokenizer(text_target=references, verbose=False)["input_ids"]
    if start is not None and start != generation.forced_bos_token_id:
        labels = [label[1:] if label[:1] == [start] else label for label in labels]
    return [label if end in label[-2:] else [*label, end] for label in labels]


def ended(label: list[int], end: int, most: int) -> list[int]:
    """No more than `most` of the ids, of which the end, and what comes after it (mBART's language), are the last."""
    place = len(label) - 1 - label[::-1].index(end)
    return label[: min(place, most - len(label) + place)] + label[place:]
