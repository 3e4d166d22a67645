"""Source and target language, by whatever way a tokenizer has them: tokens of their own (NLLB, M2M100, mBART), or a prefix of the
text (Marian's models of several languages). A T5 is told in its prompt's own words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from transformers import GenerationConfig

from softspoken.data.prompts import PromptFormat
from softspoken.types import InputError

STARTS_WITH_LANGUAGE = ("MBartTokenizer", "MBartTokenizerFast")
"""Their labels end in the language, which shifted right is what the decoder starts from."""


def speak(tokenizer: Any, prompt_format: PromptFormat, generation: GenerationConfig) -> PromptFormat:
    """Set the tokenizer and the generation config to the format's languages, where it names any; returns the format, with
    Marian's prefix in its template. Raises InputError for a language that the tokenizer does not know."""
    source, target = prompt_format.source_language, prompt_format.target_language
    if source:
        if not hasattr(tokenizer, "src_lang"):
            raise InputError(f"source_language {source!r}: this tokenizer knows no source languages; leave it out")
        _language_id(tokenizer, source, "source_language")
        tokenizer.src_lang = tokenizer.init_kwargs["src_lang"] = source
    if not target:
        return prompt_format
    if hasattr(tokenizer, "src_lang"):
        first = _language_id(tokenizer, target, "target_language")
        tokenizer.tgt_lang = tokenizer.init_kwargs["tgt_lang"] = target
        if type(tokenizer).__name__ in STARTS_WITH_LANGUAGE:
            generation.decoder_start_token_id = first
        else:
            generation.forced_bos_token_id = first
        return prompt_format
    prefix = _prefix(target)
    if prefix not in tokenizer.get_vocab():
        raise InputError(
            f"target_language {target!r}: this tokenizer has no token for it; say it in --prompt_template, as in 'translate "
            "English to German: {text}'"
        )
    if prefix in prompt_format.template:
        return prompt_format
    return replace(prompt_format, template=f"{prefix} {prompt_format.template}")


def unspoken(prompt_format: PromptFormat) -> PromptFormat:
    """The format as it was before `speak`, which puts Marian's prefix into its template."""
    prefix = f"{_prefix(prompt_format.target_language)} "
    return replace(prompt_format, template=prompt_format.template.removeprefix(prefix))


def _prefix(target: str | None) -> str:
    return f">>{target}<<"


def require_target(tokenizer: Any, generation: GenerationConfig) -> None:
    """Have a tokenizer that writes languages know the target's, from how the model's responses begin where nobody set it.

    Raises InputError where that says nothing: NLLB's and mBART's would silently take the source's, M2M100's crash.
    """
    if not hasattr(tokenizer, "src_lang") or getattr(tokenizer, "tgt_lang", None):
        return
    others = {tokenizer.eos_token, tokenizer.bos_token, tokenizer.pad_token, tokenizer.unk_token, tokenizer.mask_token}
    begins = [
        one for one in (generation.forced_bos_token_id, generation.decoder_start_token_id) if isinstance(one, int)
    ]
    languages = [token for token in tokenizer.convert_ids_to_tokens(begins) if token not in others]
    if not languages:
        raise InputError(
            f"target_language: the model writes several languages and does not say which; give one ({tokenizer.src_lang} is what "
            "texts are read in)"
        )
    tokenizer.tgt_lang = tokenizer.init_kwargs["tgt_lang"] = languages[0].strip("_")


def _language_id(tokenizer: Any, language: str, setting: str) -> int:
    """M2M100 writes `fr` as the token `__fr__`, the others as it is."""
    vocabulary = tokenizer.get_vocab()
    found = next((vocabulary[token] for token in (f"__{language}__", language) if token in vocabulary), None)
    known = [token.strip("_") for token in tokenizer.all_special_tokens if token.strip("_").replace("_", "").isalpha()]
    if found is None:
        raise InputError(
            f"{setting} {language!r} is not one of this tokenizer's languages; give one of them, such as {', '.join(known[:6])}"
        )
    return int(found)
