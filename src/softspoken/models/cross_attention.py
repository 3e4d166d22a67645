"""The decoder's attention to the encoder: where it is, and its keys and values when they are known beforehand."""

from __future__ import annotations

from typing import Any

from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import Tensor, nn

NAMES = ("EncDecAttention", "encoder_attn", "cross_attn")
"""What T5, BART and Pegasus, and T5Gemma call it."""
KEYS_VALUES = (("k", "v"), ("k_proj", "v_proj"))


def cross_attentions(decoder: nn.Module) -> list[nn.Module]:
    """Each decoder layer's, in the order of the layers; none for a family that names it otherwise."""
    return [module for name, module in decoder.named_modules() if name.rsplit(".", 1)[-1] in NAMES]


def key_value_projections(decoder: nn.Module) -> list[tuple[nn.Module, nn.Module]]:
    """Those of each cross-attention. Empty, so that the model computes keys and values itself in each pass, for a family that
    names them otherwise, for adapters that are more than a term to add (DoRA, IA³), and where these weights themselves are trained."""
    pairs: list[Any] = []
    for attention in cross_attentions(decoder):
        pairs += [(getattr(attention, k), getattr(attention, v)) for k, v in KEYS_VALUES if hasattr(attention, k)]
    tuned = [part for pair in pairs for part in pair if isinstance(part, BaseTunerLayer)]
    whole = any(isinstance(part, AuxiliaryTrainingWrapper) for part in decoder.modules())
    whole = whole or any(_base(part).weight.requires_grad for pair in pairs for part in pair)
    plain = not whole and all(isinstance(part, LoraLayer) and not part.lora_variant for part in tuned)
    return pairs if plain else []


def _base(projection: Any) -> Any:
    return projection.get_base_layer() if isinstance(projection, BaseTunerLayer) else projection


def with_adapter_term(frozen: Tensor, projection: nn.Module, states: Tensor) -> Tensor:
    """Keys or values [B, H, P, d] by the frozen weights, plus what the active LoRA adapter adds to that projection.

    states: [B, P, D], the encoder's.
    """
    if not isinstance(projection, LoraLayer) or projection.disable_adapters:
        return frozen
    total = frozen
    for name in projection.active_adapters:
        if name in projection.lora_A:
            inner = projection.lora_A[name]
            given = projection.lora_dropout[name](states.to(inner.weight.dtype))
            term = projection.lora_B[name](inner(given)) * projection.scaling[name]
            total = total + term.unflatten(-1, (-1, frozen.shape[-1])).transpose(1, 2)
    return total.to(frozen.dtype)
