"""How a model decodes: by what is saved beside the adapter and the model, or plainly; and how long its responses may be."""

from __future__ import annotations

import copy
from pathlib import Path

from transformers import GenerationConfig
from transformers.generation import GenerationMode

from softspoken.models.adapters import adapter_folder
from softspoken.models.generation import read_generation
from softspoken.models.pretrained import load_generation_config
from softspoken.types import InputError

MAX_NEW_TOKENS = 60
"""The longest summary of a model that does not say its own; transformers' default, 20, cuts most summaries off."""
DECODINGS = (
    GenerationMode.GREEDY_SEARCH,
    GenerationMode.SAMPLE,
    GenerationMode.BEAM_SEARCH,
    GenerationMode.BEAM_SAMPLE,
)
"""What transformers decodes by without fetching code for it."""
BEAMS = (GenerationMode.BEAM_SEARCH, GenerationMode.BEAM_SAMPLE)
GREEDY = GenerationMode.GREEDY_SEARCH.value.replace("_", " ")
IDS = (
    *(
        "decoder_start_token_id",
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
        "forced_bos_token_id",
        "forced_eos_token_id",
    ),
    *("suppress_tokens", "begin_suppress_tokens", "bad_words_ids"),
)


def plain_config(saved: GenerationConfig) -> GenerationConfig:
    """What says which ids begin, end, force and forbid, and the length; not how to search among the rest."""
    kept = {name: value for name in IDS if (value := getattr(saved, name, None)) is not None}
    config = GenerationConfig(**kept)
    config.max_new_tokens = limit_of(saved)
    config.max_length = None
    return config


def own_search(model: str, adapter: str | None = None) -> str:
    """How the model (with the adapter) searches by its own generation config, such as "beam search (num_beams 4)"; what bends
    greedy decoding is named too, and nothing at all is "greedy search"."""
    folder = adapter_folder(adapter) if adapter else None
    config = generation_config_of(folder, load_generation_config(model), None)
    mode = config.get_generation_mode()
    beams, draws = mode in BEAMS, mode in (GenerationMode.SAMPLE, GenerationMode.BEAM_SAMPLE)
    named = {
        **({"num_beams": 1, "length_penalty": 1.0, "early_stopping": False} if beams else {}),
        **({"temperature": 1.0, "top_k": 0, "top_p": 1.0} if draws else {}),
        **dict.fromkeys(("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "min_length", "min_new_tokens"), 0),
        "repetition_penalty": 1.0,
    }
    found = {name: getattr(config, name, None) for name in named}
    said = [f"{name} {value}" for name, value in found.items() if value is not None and value != named[name]]
    return mode.value.replace("_", " ") + (f" ({', '.join(said)})" if said else "")


def length_limit(model: str, adapter: str | None = None) -> int:
    """The longest summary, in tokens, of the model (with the adapter) where it is not asked for another."""
    folder = adapter_folder(adapter) if adapter else None
    return limit_of(generation_config_of(folder, load_generation_config(model), None))


def limit_of(config: GenerationConfig) -> int:
    return config.max_new_tokens or config.max_length - 1  # the latter counts the decoder's start


def generation_config_of(folder: Path | None, models: GenerationConfig, max_new_tokens: int | None) -> GenerationConfig:
    """A copy of the adapter's config, or of the model's; what the former leaves open is the latter's, as in generate()."""
    config = copy.deepcopy(models)
    if folder and (adapters := read_generation(folder)):
        config = adapters
        for name, value in models.to_dict().items():
            if getattr(config, name, None) is None:
                setattr(config, name, value)
    if max_new_tokens or (config.max_new_tokens is None and config.max_length is None):
        config.max_new_tokens = max_new_tokens or MAX_NEW_TOKENS
    config.use_cache = True  # models saved by a training script often say no, at several times the cost
    if config.max_new_tokens is not None:
        config.max_length = None  # the former counts; transformers warns about each batch where both are set
    if config.get_generation_mode() not in DECODINGS:
        raise InputError(
            f"the generation_config.json of {folder or 'the model'} asks for {config.get_generation_mode().value.replace('_', ' ')}, "
            "which transformers has as code to be fetched, and softspoken runs no such code; take its settings out of that file"
        )
    return config
