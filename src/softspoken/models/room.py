"""What a model has room for: how many positions its encoder and decoder know, and how many tokens its embeddings."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from softspoken.data.prompts import PromptFormat
from softspoken.models.adapters import saved_embeddings, tokenizer_source
from softspoken.models.pretrained import from_pretrained, load_tokenizer
from softspoken.types import InputError

log = logging.getLogger(__name__)


def fitting(prompt_format: PromptFormat, config: Any, tokenizer: Any) -> PromptFormat:
    """The format with prompts no longer than the encoder of `config` has positions for, which is said.

    Where the positions are in a table, the tokenizer's `model_max_length` counts too; relative positions (T5 and kin) know no
    limit, and then it is a habit of training.
    """
    most = _most_read(config, tokenizer)
    if prompt_format.max_prompt_tokens <= most:
        return prompt_format
    log.warning("prompts are cut to %d tokens, not %d: the model reads no more", most, prompt_format.max_prompt_tokens)
    return replace(prompt_format, max_prompt_tokens=int(most))


def fitting_of(prompt_format: PromptFormat, model: str) -> PromptFormat:
    """The same by the model's files, before it is loaded: said once for all that then asks by it."""
    return fitting(prompt_format, from_pretrained(AutoConfig.from_pretrained, model), load_tokenizer(model))


def _most_read(config: Any, tokenizer: Any) -> float:
    table = _positions(config, "encoder")
    return math.inf if table is None else min(table, tokenizer.model_max_length)


def require_room_to_answer(config: Any, max_new_tokens: int) -> None:
    """Raises InputError where the decoder of `config` has fewer positions than a response may have tokens."""
    table = _positions(config, "decoder")
    if table is not None and max_new_tokens > table:
        raise InputError(
            f"max_new_tokens {max_new_tokens} is more than the {table} positions of the model's decoder; give at most {table}"
        )


def _positions(config: Any, part: str) -> int | None:
    """The rows of the part's position table; None for relative positions."""
    places = config, config.get_text_config(**{part: True}), getattr(config, part, None)
    names = f"max_{part}_position_embeddings", "max_position_embeddings"
    found = (getattr(place, name, None) for name in names for place in places)
    return next((int(rows) for rows in found if rows), None)


def require_fit(model: str, adapter: Path | None = None, max_new_tokens: int | None = None) -> None:
    """`require_embeddings` and `require_room_to_answer`, by the files of a model and its adapter, before anything is loaded."""
    tokenizer = load_tokenizer(tokenizer_source(model, adapter))
    config = from_pretrained(AutoConfig.from_pretrained, model)
    rows = config.get_text_config(decoder=True).vocab_size
    require_embeddings((adapter and saved_embeddings(adapter)) or rows, tokenizer, model)
    if max_new_tokens:
        require_room_to_answer(config, max_new_tokens)


def require_embeddings(rows: int, tokenizer: Any, model: str) -> None:
    """Raises InputError where the tokenizer makes ids that the model's `rows` embeddings do not reach.

    A mask token beyond them, as BART's for CNN/DailyMail has, comes up in no text.
    """
    if len(tokenizer) <= rows:
        return
    beyond = {token: number for token, number in tokenizer.get_vocab().items() if number >= rows}
    beyond.pop(tokenizer.mask_token, None)
    if beyond:
        first = min(beyond, key=lambda token: beyond[token])
        raise InputError(
            f"the tokenizer for {model} has {len(tokenizer)} tokens and the model {rows} embeddings ({first!r} is the first "
            "without one); call model.resize_token_embeddings(len(tokenizer)) and save the model, or take its own tokenizer"
        )
