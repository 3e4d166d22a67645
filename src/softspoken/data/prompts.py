"""Examples in, token ids out: the template, the tokens, and what is cut where a text is too long."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from softspoken.config.ranges import PLACES, check_settings, require_one_place
from softspoken.types import Example, InputError, PromptBatch

FORMAT_FILE = "softspoken.json"
"""Lies beside a model or an adapter and says how its prompts are made."""


@dataclass(frozen=True)
class PromptFormat:
    """How a text becomes a prompt, which end gives way when it is too long for the encoder, and how a response becomes a text."""

    template: str = "{text}"
    max_prompt_tokens: int = 512
    truncation_side: Literal["left", "right"] = "right"
    """`right` keeps the beginning of the text, `left` its end. The template itself is never cut."""
    clean: bool = False
    """Whether texts lose blank lines and the blanks at the ends of lines."""
    strip: bool = True
    """Whether responses lose the white space around them."""
    source_language: str | None = None
    target_language: str | None = None
    """As the tokenizer names them; None leaves it as it was saved."""

    def __post_init__(self) -> None:
        check_settings(self)  # it may come from a file that was edited
        require_one_place(self.template)

    def prompt(self, text: str) -> str:
        place = next(place for place in PLACES if place in self.template)
        return self.template.replace(place, text)  # other braces in a template are just braces

    def save(self, folder: Path) -> None:
        (folder / FORMAT_FILE).write_text(
            json.dumps({"prompt_format": asdict(self)}, indent=2) + "\n", encoding="utf-8"
        )

    @classmethod
    def load(cls, folder: str | Path) -> PromptFormat | None:
        """The format saved in `folder`, or None where there is none (a model that softspoken did not write)."""
        path = Path(folder) / FORMAT_FILE
        if not path.is_file():
            return None
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8"))["prompt_format"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(
                f"{path} is not a prompt format as softspoken writes it ({error}); restore or remove it"
            ) from error


def encode_prompts(examples: list[Example], tokenizer: Any, prompt_format: PromptFormat) -> PromptBatch:
    """Format, cut to fit, tokenize, pad on the right (the masks and T5's relative positions make the side irrelevant)."""
    ids, truncated = prompt_ids(examples, tokenizer, prompt_format)
    padded = tokenizer.pad({"input_ids": ids}, padding_side="right", return_tensors="pt")
    return PromptBatch(examples, padded["input_ids"], padded["attention_mask"], truncated)


def prompt_ids(examples: list[Example], tokenizer: Any, prompt_format: PromptFormat) -> tuple[list[list[int]], int]:
    """Each example's prompt as token ids, none longer than `max_prompt_tokens`, and how many had to be cut for that."""
    prompts = [prompt_format.prompt(example.text) for example in examples]
    ids: list[list[int]] = tokenizer(prompts, verbose=False)["input_ids"]
    long = [row for row, prompt in enumerate(ids) if len(prompt) > prompt_format.max_prompt_tokens]
    for row in long:
        ids[row] = _cut_to_fit(examples[row].text, len(ids[row]), tokenizer, prompt_format)
    return ids, len(long)


def _cut_to_fit(text: str, length: int, tokenizer: Any, prompt_format: PromptFormat) -> list[int]:
    """The prompt's ids with the text shortened on the stated side, from `length` tokens to at most `max_prompt_tokens`."""
    if not getattr(tokenizer, "is_fast", False):
        return _cut_by_characters(text, tokenizer, prompt_format)
    offsets = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False, verbose=False)["offset_mapping"]
    while (excess := length - prompt_format.max_prompt_tokens) > 0:
        if excess >= len(offsets):
            raise _no_room(prompt_format)
        offsets = offsets[excess:] if prompt_format.truncation_side == "left" else offsets[:-excess]
        shortened = text[offsets[0][0] : offsets[-1][1]]
        ids: list[int] = tokenizer(prompt_format.prompt(shortened), verbose=False)["input_ids"]
        length = len(ids)
    return ids


def _cut_by_characters(text: str, tokenizer: Any, prompt_format: PromptFormat) -> list[int]:
    """The same for a tokenizer that does not say which characters a token stands for (ByT5, Marian, M2M100, PLBart): as many
    characters as fit, found by halving."""

    def ids_of(kept: int) -> list[int]:
        part = text[len(text) - kept :] if prompt_format.truncation_side == "left" else text[:kept]
        return tokenizer(prompt_format.prompt(part), verbose=False)["input_ids"]

    fit, ids, too_many = 0, [], len(text)
    while too_many - fit > 1:
        middle = (fit + too_many) // 2
        found = ids_of(middle)
        if len(found) <= prompt_format.max_prompt_tokens:
            fit, ids = middle, found
        else:
            too_many = middle
    if not fit:
        raise _no_room(prompt_format)
    return ids


def _no_room(prompt_format: PromptFormat) -> InputError:
    limit = prompt_format.max_prompt_tokens
    return InputError(f"max_prompt_tokens {limit} leaves no room for a text in the prompt template; raise it")
