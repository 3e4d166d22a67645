"""CTranslate2 in place of torch: the same model in a form that a C++ runtime decodes several times as fast.

It is converted once and kept by its content; whether it computes the same tokens is `choosing`'s to find out.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from softspoken.inference.decoding import limit_of
from softspoken.models.generation import end_ids
from softspoken.types import first_line

log = logging.getLogger(__name__)

ENGINE = "ctranslate2"
KEPT = 8
"""Converted models in the cache; those that were used longest ago go first."""
MODEL_FILE, MADE_FILE = "model.bin", "made.json"
INSTALL = "pip install 'softspoken[ctranslate2]'"
SAME_MEANING = {
    "length_penalty": "length_penalty",
    "repetition_penalty": "repetition_penalty",
    "no_repeat_ngram_size": "no_repeat_ngram_size",
    "min_new_tokens": "min_decoding_length",
}
"""transformers' setting → CTranslate2's."""
UNDERSTOOD = {
    *SAME_MEANING,
    *("max_length", "max_new_tokens", "num_beams", "early_stopping", "use_cache", "transformers_version", "do_sample"),
    *("decoder_start_token_id", "bos_token_id", "eos_token_id", "pad_token_id", "forced_bos_token_id"),
    *("forced_eos_token_id", "suppress_tokens", "bad_words_ids", "temperature", "top_k", "top_p", "min_length"),
    *("num_return_sequences", "output_scores", "output_attentions", "output_hidden_states", "return_dict_in_generate"),
}


class Unsupported(Exception):
    """Why CTranslate2 cannot take the place of torch."""


@dataclass(frozen=True)
class Search:
    """How a batch of prompts is answered."""

    samples: int = 0
    """Responses drawn at temperature 1 for each prompt; 0 for the one that is searched for."""
    max_new_tokens: int | None = None
    num_beams: int | None = None
    """None for the generation config's own."""


@dataclass(frozen=True)
class CTranslate2:
    """A converted model; called with prompts of token ids it answers with ids, the end's included where it was reached."""

    translator: Any
    generation: GenerationConfig
    tokens: list[str]
    """Of the tokenizer, by their ids."""
    ids: dict[str, int]
    ends: list[int]
    never: list[list[str]]
    """What no response holds."""
    not_drawn: list[list[str]]
    """Tokens that are padding or none of the tokenizer's: searched for they never come first, drawn they might."""
    options: dict[str, Any] = field(default_factory=dict)
    pieces: int = 1
    """That a batch is cut into, so that all workers have one."""

    def __call__(self, prompts: list[list[int]], search: Search) -> list[list[list[int]]]:
        """For each prompt its responses: several where they are drawn."""
        forced = self.generation.forced_bos_token_id
        results = self.translator.translate_batch(
            [[self.tokens[token] for token in prompt] for prompt in prompts],
            [[self.tokens[forced]]] * len(prompts) if forced is not None else None,
            max_batch_size=-(-len(prompts) // self.pieces),
            max_input_length=0,
            max_decoding_length=search.max_new_tokens or limit_of(self.generation),
            end_token=[self.tokens[end] for end in self.ends],
            return_end_token=True,
            **self._search(search),
        )
        return [[self._ids(tokens, search) for tokens in result.hypotheses] for result in results]

    def _search(self, search: Search) -> dict[str, Any]:
        if search.samples:
            return {
                "beam_size": 1,
                "num_hypotheses": search.samples,
                "sampling_topk": 0,  # the whole vocabulary
                "min_decoding_length": 0,
                "suppress_sequences": [*self.never, *self.not_drawn] or None,
            }
        beams = search.num_beams or self.generation.num_beams or 1
        return {"beam_size": beams, "suppress_sequences": self.never or None, **self.options}

    def _ids(self, tokens: list[str], search: Search) -> list[int]:
        ids = [self.ids[token] for token in tokens if token in self.ids]
        forced, limit = self.generation.forced_eos_token_id, search.max_new_tokens or limit_of(self.generation)
        if forced is not None and len(ids) == limit and ids[-1] not in self.ends:
            ids[-1] = forced if isinstance(forced, int) else forced[0]
        return ids


def load(
    save: Callable[[Path], None],
    digest: str,
    generation: GenerationConfig,
    tokenizer: Any,
    *,
    compute_type: str = "float32",
    device: str = "cpu",
    workers: int = 1,
) -> CTranslate2:
    """The model that `save` writes for transformers and `digest` names, converted or from the cache. Raises Unsupported."""
    _options(generation)  # first: a conversion takes its time
    folder = _kept(save, digest, compute_type, package())
    return opened(folder, generation, tokenizer, device=device, workers=workers)


def opened(
    folder: Path, generation: GenerationConfig, tokenizer: Any, *, device: str = "cpu", workers: int = 1
) -> CTranslate2:
    """What a conversion wrote to `folder`. Raises Unsupported."""
    ctranslate2 = package()
    options = _options(generation)
    try:
        translator = ctranslate2.Translator(
            str(folder), device=device, inter_threads=workers, intra_threads=0 if workers == 1 else 1
        )
    except (RuntimeError, ValueError) as error:
        raise Unsupported(first_line(error)) from error
    vocabulary = tokenizer.get_vocab()
    tokens = tokenizer.convert_ids_to_tokens(list(range(max(vocabulary.values()) + 1)))
    ends = end_ids(generation, tokenizer.eos_token_id)
    bad = [*([token] for token in generation.suppress_tokens or []), *(generation.bad_words_ids or [])]
    strange = sorted({*_vocabulary(folder)} - {*vocabulary})
    padding = [] if tokenizer.pad_token_id in ends else [tokenizer.pad_token]
    return CTranslate2(
        translator,
        generation,
        tokens,
        vocabulary,
        ends,
        never=[[tokens[token] for token in word] for word in bad],
        not_drawn=[[token] for token in [*padding, *strange]],
        options=options,
        pieces=workers,
    )


def package() -> Any:
    """Raises Unsupported where it is not installed."""
    try:
        import ctranslate2
    except ImportError as error:
        raise Unsupported(f"CTranslate2 is not installed ({INSTALL})") from error
    return ctranslate2


def convert(model: Path, output: Path, compute_type: str) -> None:
    """The folder of a whole model → one of CTranslate2's. Raises Unsupported for a family that it does not know."""
    ctranslate2 = package()
    converter = ctranslate2.converters.TransformersConverter(str(model), trust_remote_code=False)
    try:
        converter.convert(str(output), quantization=compute_type, force=True)
    except (ValueError, KeyError, AttributeError, NotImplementedError, RuntimeError) as error:
        raise Unsupported(first_line(error)) from error


def content_digest(model: Any, tokenizer: Any) -> str:
    """SHA-256 of weights, configuration and vocabulary: of what a model computes, wherever it lies."""
    found = hashlib.sha256()
    found.update(json.dumps(model.config.to_dict(), sort_keys=True, default=str).encode())
    found.update(json.dumps(sorted(tokenizer.get_vocab().items())).encode())
    for name, weight in sorted(model.state_dict().items()):
        found.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        found.update(weight.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return found.hexdigest()


def cache_folder() -> Path:
    """SOFTSPOKEN_CACHE, or the user's cache folder."""
    own = os.environ.get("SOFTSPOKEN_CACHE")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return (Path(own) if own else home / "softspoken") / ENGINE


# ----------------------------------------------------------------------------------------------------------- inside


def _options(generation: GenerationConfig) -> dict[str, Any]:
    """CTranslate2's for what the generation config says of searching. Raises Unsupported for what it has nothing for."""
    said = {name: value for name, value in generation.to_diff_dict().items() if value is not None}
    unknown = sorted(name for name in said if name not in UNDERSTOOD and not name.startswith("_") and said[name])
    if unknown or generation.do_sample or (generation.min_length or 0) > 0:
        what = unknown[0] if unknown else "do_sample" if generation.do_sample else "min_length"
        raise Unsupported(f"it has nothing for {what} of the generation config")
    if generation.forced_eos_token_id is not None and (generation.num_beams or 1) > 1:
        raise Unsupported("it has nothing for forced_eos_token_id with beams")
    options = {ours: said[theirs] for theirs, ours in SAME_MEANING.items() if theirs in said}
    return {"min_decoding_length": 0, **options}  # its own default forbids the end as the first token


def _kept(save: Callable[[Path], None], digest: str, compute_type: str, ctranslate2: Any) -> Path:
    """The converted model's folder in the cache, made where it is not there or not whole."""
    root = cache_folder()
    folder = root / f"{digest[:32]}-{compute_type}-{ctranslate2.__version__}"
    if _is_whole(folder):
        os.utime(folder)
        return folder
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".making-") as made:
        save(Path(made) / "model")
        convert(Path(made) / "model", Path(made) / "converted", compute_type)
        record = {"sha256": _file_digest(Path(made) / "converted" / MODEL_FILE)}
        (Path(made) / "converted" / MADE_FILE).write_text(json.dumps(record) + "\n", encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)  # one that is damaged
        with suppress(OSError):  # another process was faster, and made the same
            (Path(made) / "converted").replace(folder)
    _let_go_of_old_ones(root)
    return folder


def _is_whole(folder: Path) -> bool:
    try:
        made = json.loads((folder / MADE_FILE).read_text(encoding="utf-8"))
        return bool(made["sha256"] == _file_digest(folder / MODEL_FILE))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _let_go_of_old_ones(root: Path) -> None:
    kept = [folder for folder in root.iterdir() if (folder / MADE_FILE).is_file()]
    for folder in sorted(kept, key=lambda one: one.stat().st_mtime, reverse=True)[KEPT:]:
        shutil.rmtree(folder, ignore_errors=True)  # whoever has it loaded has it in memory


def _file_digest(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def _vocabulary(folder: Path) -> list[str]:
    """The tokens that the converted model writes."""
    for name in ("shared_vocabulary.json", "target_vocabulary.json"):
        if (folder / name).is_file():
            found: list[str] = json.loads((folder / name).read_text(encoding="utf-8"))
            return found
    return []
