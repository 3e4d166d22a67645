"""Which engine decodes: CTranslate2 where it computes the same tokens as torch, and in words what was taken and why."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import Any

from softspoken.data.prompts import prompt_ids
from softspoken.data.reading import load_examples
from softspoken.inference.engines import CTranslate2, Search, Unsupported, content_digest, load
from softspoken.inference.generator import Generator
from softspoken.models.pretrained import resolve_device
from softspoken.types import InputError

log = logging.getLogger(__name__)

SELF_CHECK = 32
"""Texts of the embedded test split that both engines answer."""


@dataclass(frozen=True)
class Choice:
    engine: str
    why: str
    """A sentence."""
    different: int = 0
    """Of the self-check's texts, how many CTranslate2 answers with other tokens."""


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_engine(generator: Generator, wanted: str) -> None:
    """`choose_engine`, and what was taken is said."""
    if wanted == "torch":
        return
    on_cpu = generator.model.device.type == "cpu"
    choice = choose_engine(generator, wanted, workers=cores() if on_cpu else 1)
    log.info("decoded by %s: %s", choice.engine, choice.why)


def choose_engine(
    generator: Generator, wanted: str, *, compute_type: str = "float32", workers: int = 1, digest: str | None = None
) -> Choice:
    """Give `generator` the engine that `wanted` (auto, ctranslate2, torch) comes to. Raises InputError where ctranslate2 is
    demanded and cannot be had."""
    if wanted == "torch":
        return Choice("torch", "asked for")
    try:
        engine = _converted(generator, compute_type, workers, digest)
    except Unsupported as reason:
        if wanted == "ctranslate2":
            raise InputError(f"engine ctranslate2 cannot be used: {reason}; give torch or auto") from reason
        return Choice("torch", f"CTranslate2 cannot be used: {reason}")
    different = differing(generator, engine)
    how = f"CTranslate2 ({compute_type})"
    if not different:
        generator.engine = engine
        return Choice("ctranslate2", f"{how} gives torch's own tokens on the {SELF_CHECK} texts of the self-check")
    said = f"{how} gives other tokens than torch on {different} of the {SELF_CHECK} texts of the self-check"
    if wanted == "ctranslate2":
        generator.engine = engine
        return Choice("ctranslate2", f"{said}, and was asked for", different)
    return Choice("torch", said, different)


def _converted(generator: Generator, compute_type: str, workers: int, digest: str | None) -> CTranslate2:
    device = resolve_device("auto") if generator.model is None else generator.model.device
    if device.type not in ("cpu", "cuda"):
        raise Unsupported(f"it does not run on {device.type}")
    if generator.banned:
        raise Unsupported("words are banned")
    return load(
        generator.save_pretrained,
        digest or content_digest(generator.model, generator.tokenizer),
        generator.generation_config,
        generator.tokenizer,
        compute_type=compute_type,
        device=device.type,
        workers=workers,
    )


def differing(generator: Generator, engine: Any, texts: int = SELF_CHECK, batch: int = 8) -> int:
    """How many of the embedded texts `engine` answers with other tokens than torch does."""
    examples = load_examples("mini", "test", limit=texts)
    examples.sort(key=lambda example: len(example.text))
    different = 0
    for first in range(0, len(examples), batch):
        prompts, _ = prompt_ids(examples[first : first + batch], generator.tokenizer, generator.prompt_format)
        theirs = engine(prompts, Search())
        different += sum(a != b for a, b in zip(generator.ids_by_torch(prompts, Search()), theirs, strict=True))
    return different
