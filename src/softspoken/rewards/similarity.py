"""How near a response is to its text in an encoder's eyes."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoTokenizer

from softspoken.models.pretrained import from_pretrained
from softspoken.rewards.text_models import TextModel
from softspoken.types import Example, InputError


class Similarity:
    """How near a response is to its text in an encoder's eyes; a text longer than the encoder takes is cut."""

    def __init__(self, embed: TextModel, *, plain: bool = False) -> None:
        """`plain`: the cosine itself, nothing for a negative one; else from [−1, 1] to [0, 1]."""
        self.embed, self.plain = embed, plain

    def __call__(self, responses: list[str], examples: list[Example]) -> list[float]:
        cosines = self.cosine(responses, [example.text for example in examples])
        return [max(0.0, cosine) if self.plain else (1 + cosine) / 2 for cosine in cosines]

    def cosine(self, texts: list[str], others: list[str]) -> list[float]:
        """In [−1, 1], of each text and its counterpart."""
        if not texts:
            return []
        embedded = torch.stack(self.embed(texts)), torch.stack(self.embed(others))
        return torch.cosine_similarity(*embedded, dim=-1).clamp(-1, 1).tolist()

    @property
    def truncated(self) -> int:
        return self.embed.truncated

    def clear_cache(self) -> None:
        self.embed.clear_cache()


def load_similarity(model: str, *, device: str, batch_size: int, plain: bool = False) -> Similarity:
    load = functools.partial(
        from_pretrained, model=model, ways_on="give the folder of a local copy as similarity:FOLDER"
    )
    config = load(AutoConfig.from_pretrained)
    tokenizer = load(AutoTokenizer.from_pretrained)
    encoder, loaded = load(AutoModel.from_pretrained, dtype=torch.float32, output_loading_info=True)
    # A pooler is often not saved, nor read here; anything else that is absent would be random numbers.
    missing = sorted(name for name in loaded["missing_keys"] if "pooler" not in name)
    if missing:
        raise InputError(f"{model} is not a trained encoder: it lacks the weights of {missing[0]}")
    if config.is_encoder_decoder:
        encoder = encoder.get_encoder()
    return Similarity(
        TextModel(encoder, tokenizer, _mean_pooled, device=device, batch_size=batch_size, cache_size=10_000),
        plain=plain,
    )


def _mean_pooled(output: Any, mask: Tensor) -> Tensor:
    """Mean of the last hidden states [B, T, D] over the mask [B, T] → [B, D]."""
    weights = mask.unsqueeze(-1).to(output.last_hidden_state.dtype)
    return (output.last_hidden_state * weights).sum(dim=1) / weights.sum(dim=1)
