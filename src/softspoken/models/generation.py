"""What a generation config says of ids: which begins a response, which end it, which must not come out; and what of it is saved."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor

from softspoken.types import InputError, RunError, first_line

FILE = "generation_config.json"
ONE_ID = ("decoder_start_token_id", "bos_token_id", "pad_token_id", "forced_bos_token_id")
IDS = ("eos_token_id", "forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens")
"""One or several."""
COUNTS = (
    *(
        "max_length",
        "max_new_tokens",
        "min_length",
        "min_new_tokens",
        "num_beams",
        "num_return_sequences",
        "num_beam_groups",
    ),
    *("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "top_k"),
)
NUMBERS = (
    *(
        "temperature",
        "top_p",
        "min_p",
        "top_h",
        "typical_p",
        "epsilon_cutoff",
        "eta_cutoff",
        "length_penalty",
        "guidance_scale",
    ),
    *("repetition_penalty", "encoder_repetition_penalty", "diversity_penalty", "penalty_alpha", "max_time"),
)
SWITCHES = ("do_sample", "use_cache", "remove_invalid_values", "renormalize_logits")
SAMPLING_ALONE = ("temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff")
BEAMS_ALONE = ("early_stopping", "length_penalty")


@dataclass(frozen=True)
class Forbidden:
    always: list[int]
    """Ids that come out nowhere."""
    first: list[int]
    """Ids that do not come out at the first position that is sampled."""
    sequences: list[list[int]]
    """Runs of several ids: the last does not come out after the others."""


def read_generation(folder: Path) -> GenerationConfig | None:
    """What a folder says of decoding; None where it has no such file. Raises InputError for one that cannot be read, or holds what
    could not be decoded by: transformers itself says so in the middle of the work, or passes it over."""
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        generation = GenerationConfig.from_pretrained(str(folder))
    except Exception as error:  # as in pretrained.from_pretrained
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise InputError(f"{path} cannot be read ({first_line(error)[:200]}); restore or remove it") from error
    require_sound(generation, str(path))
    return generation


def require_sound(generation: GenerationConfig, whose: str) -> None:
    """Raises InputError for the first setting that is not of its kind."""
    said = vars(generation)
    words = said.get("bad_words_ids")
    if words is not None and not (isinstance(words, list) and all(_are_ids(word) and word for word in words)):
        _refuse(whose, "bad_words_ids", words, "lists of ids")
    for kind, names, fits in (
        ("an id", ONE_ID, _is_count),
        ("an id, or a list of them", IDS, lambda value: _is_count(value) or _are_ids(value)),
        ("a whole number from 0 on", COUNTS, _is_count),
        ("a finite number", NUMBERS, _is_number),
        ("true or false", SWITCHES, lambda value: isinstance(value, bool)),
        ('true, false or "never"', ("early_stopping",), lambda value: isinstance(value, bool) or value == "never"),
    ):
        for name in names:
            if said.get(name) is not None and not fits(said[name]):
                _refuse(whose, name, said[name], kind)


def _refuse(whose: str, name: str, value: Any, kind: str) -> None:
    shown = repr(value)
    shown = shown if len(shown) <= 80 else f"{shown[:80]}…"
    raise InputError(f"{whose}: {name} must be {kind}, not {shown}; mend it, or take it out")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_count, value))


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer of hundreds of digits
        return False


def require_finite(logprobs: Tensor, when: str) -> None:
    """What decoding recorded must be numbers: looked at once a batch, where a look at each token would wait for the GPU.

    Raises RunError, which begins with `when`.
    """
    if not torch.isfinite(logprobs).all():
        raise RunError(
            f"{when}: the model's logits are not finite, so that nothing can be decoded; its weights hold NaN or infinity, or an "
            "update broke them: lower the learning rate and, with weights below float32, try float32"
        )


class Watched(LogitsProcessor):
    """Leaves the logits as they are, and keeps the largest of each row: transformers' search takes id 0 of those that are NaN."""

    def __init__(self) -> None:
        self.largest: list[Tensor] = []

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        self.largest.append(scores.amax(dim=-1))
        return scores


def start_id(generation: GenerationConfig, config: Any) -> int:
    """The decoder's first id, looked for where and in the order in which transformers' generate looks."""
    places = generation.decoder_start_token_id, getattr(config, "decoder_start_token_id", None), generation.bos_token_id
    found = next((place for place in places if place is not None), None)
    if found is None:
        raise InputError(
            "the model does not say how a response begins; set decoder_start_token_id in its generation_config.json"
        )
    return found


def end_ids(generation: GenerationConfig, eos_id: int) -> list[int]:
    """The ids that end a summary: the tokenizer's EOS and those of the generation config, which may be one, several or none."""
    return sorted({eos_id, *_listed(generation.eos_token_id)})


def forbidden_ids(generation: GenerationConfig) -> Forbidden:
    """From `suppress_tokens`, `begin_suppress_tokens` and `bad_words_ids`, as transformers' generate takes them."""
    words = generation.bad_words_ids or []
    ends = _listed(generation.eos_token_id)
    alone = [
        word[0] for word in words if len(word) == 1 and word[0] not in ends
    ]  # where it forbids an end, generate does not
    return Forbidden(
        always=sorted({*_listed(generation.suppress_tokens), *alone}),
        first=sorted({*_listed(generation.begin_suppress_tokens)}),
        sequences=[word for word in words if len(word) > 1],
    )


def padding_ids(generation: GenerationConfig, config: Any, pad_id: int, ends: list[int]) -> list[int]:
    """The ids that stand for padding alone, and so never come out: the tokenizer's or, where that is an end (as after
    `tokenizer.pad_token = tokenizer.eos_token`), the model's own."""
    if pad_id not in ends:
        return [pad_id]
    models = {generation.pad_token_id, getattr(config, "pad_token_id", None)}
    return sorted(pad for pad in models if pad is not None and pad not in ends)


def require_special(tokenizer: Any, whose: str) -> None:
    """Raises InputError for a tokenizer that cannot pad, or cannot end a text."""
    for name in ("pad_token", "eos_token"):
        if getattr(tokenizer, name, None) is None:
            raise InputError(
                f"{whose} has no {name}; set it to a token of its vocabulary that texts do not use (tokenizer.{name} = …) and save it"
            )


def require_ids_within(generation: GenerationConfig, tokenizer: Any, size: int) -> None:
    """Raises InputError for an id, of the tokenizer's or the generation config's, that the model's vocabulary does not reach."""
    require_special(tokenizer, "the tokenizer")
    for name in ("pad_token_id", "eos_token_id"):
        _require_within(f"the tokenizer's {name}", [getattr(tokenizer, name)], size)
    names = (
        "decoder_start_token_id",
        "forced_bos_token_id",
        "forced_eos_token_id",
        "pad_token_id",
        "eos_token_id",
        "suppress_tokens",
        "begin_suppress_tokens",
    )
    for name in names:
        _require_within(f"{name} of the generation config", _listed(getattr(generation, name)), size)
    for word in generation.bad_words_ids or []:
        _require_within("bad_words_ids of the generation config", word, size)


def _require_within(what: str, ids: list[int], size: int) -> None:
    beyond = [one for one in ids if not (isinstance(one, int) and 0 <= one < size)]
    if beyond:
        raise InputError(f"{what} is {beyond[0]!r}, and the model has {size} ids, from 0 on; mend it and save it")


def _listed(ids: int | list[int] | None) -> list[int]:
    return ids if isinstance(ids, list) else [] if ids is None else [ids]


def generation_to_save(own: GenerationConfig, max_new_tokens: int) -> GenerationConfig:
    """A model's own generation config with this length, for what is trained from it.

    Settings that have no effect in it, which transformers refuses to save (a temperature without do_sample, as many models of
    the hub have), are left out. Raises InputError for what else keeps it from being saved; better before the first step.
    """
    config = deepcopy(own)
    config.max_new_tokens, config.max_length = max_new_tokens, None
    idle = (*(() if config.do_sample else SAMPLING_ALONE), *(BEAMS_ALONE if (config.num_beams or 1) == 1 else ()))
    for name in idle:
        setattr(config, name, None)
    try:
        config.validate(strict=True)
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"the model's generation config cannot be saved with max_new_tokens {max_new_tokens} ({reason[:300]}); mend its "
            "generation_config.json"
        ) from error
    return config
