"""What notebooks and scripts import from `trl.core`, with TRL 0.11's meaning, its edges as well.

What these share with rl/numerics differs there: an empty mask is NaN in TRL, and 0 in a step of ours.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import TopKLogitsWarper, TopPLogitsWarper

from softspoken.rl import numerics
from softspoken.trl.stats import PADDING as WANDB_PADDING
from softspoken.trl.stats import as_numpy


class LengthSampler:
    """Draws a length from min_value to max_value − 1, each as likely."""

    def __init__(self, min_value: int, max_value: int) -> None:
        self.values = list(range(min_value, max_value))

    def __call__(self) -> int:
        return int(np.random.choice(self.values))


def set_seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def logprobs_from_logits(logits: Tensor, labels: Tensor, gather: bool = True) -> Tensor:
    """log softmax(logits) [N, T, V]; with `gather`, of the labels [N, T] alone."""
    return numerics.token_logprobs(logits, labels) if gather else logits.log_softmax(dim=-1)


def entropy_from_logits(logits: Tensor) -> Tensor:
    """Entropy [...] in nats of softmax(logits), [..., V]; with its gradient."""
    return logits.logsumexp(dim=-1) - (logits.softmax(dim=-1) * logits).sum(dim=-1)


def masked_mean(values: Tensor, mask: Tensor, axis: int | None = None) -> Tensor:
    """Mean over the mask, of all or along `axis`; NaN, as in TRL, where nothing counts."""
    if axis is None:
        return (values * mask).sum() / mask.sum()
    return (values * mask).sum(dim=axis) / mask.sum(dim=axis)


def masked_var(values: Tensor, mask: Tensor, unbiased: bool = True) -> Tensor:
    """Variance over the mask; with `unbiased`, of one value NaN, and of none a ValueError, as in TRL."""
    count = mask.sum()
    variance = masked_mean((values - masked_mean(values, mask)) ** 2, mask)
    if not unbiased:
        return variance
    if count == 0:
        raise ValueError("the mask is empty, as happens with a mini_batch_size of 1; raise it")
    return variance * count / (count - 1)


def whiten(values: Tensor, shift_mean: bool = True) -> Tensor:
    """Scaled to variance 1 and, with `shift_mean`, moved to mean 0, over all values."""
    return masked_whiten(values, torch.ones_like(values), shift_mean)


def masked_whiten(values: Tensor, mask: Tensor, shift_mean: bool = True) -> Tensor:
    """The same by mean and variance over the mask; what is off it is scaled alike, as in TRL."""
    mean = masked_mean(values, mask)
    whitened = (values - mean) * torch.rsqrt(masked_var(values, mask) + 1e-8)
    return whitened if shift_mean else whitened + mean


def clip_by_value(x: Tensor, tensor_min: Tensor, tensor_max: Tensor) -> Tensor:
    return torch.max(torch.min(x, tensor_max), tensor_min)


def flatten_dict(nested: Mapping[str, Any], sep: str = "/") -> dict[str, Any]:
    """Keys of nested dictionaries joined by `sep`, which none may hold."""
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        if sep in name:
            raise ValueError(f"separator {sep!r} not allowed to be in key {name!r}")
        inner = flatten_dict(value, sep) if isinstance(value, Mapping) else None
        flat |= {name: value} if inner is None else {f"{name}{sep}{key}": one for key, one in inner.items()}
    return flat


def stack_dicts(stats_dicts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """One row for each dictionary, flattened, and padded with −1 where others are longer."""
    rows = {name: [one[name].flatten() for one in stats_dicts] for name in stats_dicts[0]}
    return {name: pad_sequence(row, batch_first=True, padding_value=WANDB_PADDING) for name, row in rows.items()}


def stats_to_np(stats_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Tensors as arrays, numbers as floats."""
    return as_numpy(stats_dict, scalars=False)


def convert_to_scalar(stats: Mapping[str, Any]) -> dict[str, Any]:
    """Tensors and arrays of one entry (of none or one dimension) as plain numbers."""
    return {
        name: value.item() if getattr(value, "shape", None) in ((), (1,)) else value for name, value in stats.items()
    }


def add_suffix(input_dict: Mapping[str, Any], suffix: str) -> dict[str, Any]:
    return {name + suffix: value for name, value in input_dict.items()}


def average_torch_dicts(list_of_dicts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([one[name] for one in list_of_dicts]).mean(dim=0) for name in list_of_dicts[0]}


def pad_to_size(tensor: Tensor, size: int, dim: int = 1, padding: int = 50256) -> Tensor:
    """Padded on the right of the last dimension, as TRL does whatever `dim` it measures."""
    return torch.nn.functional.pad(tensor, (0, size - tensor.shape[dim]), value=padding)


def top_k_top_p_filtering(
    logits: Tensor, top_k: int = 0, top_p: float = 1.0, filter_value: float = -float("inf"), min_tokens_to_keep: int = 1
) -> Tensor:
    """Logits [N, V] with `filter_value` for what top-k and top-p leave out."""
    if top_k > 0:
        logits = TopKLogitsWarper(top_k, filter_value, min_tokens_to_keep)(None, logits)
    if 0 <= top_p <= 1.0:
        logits = TopPLogitsWarper(top_p, filter_value, min_tokens_to_keep)(None, logits)
    return logits


@torch.no_grad()
def respond_to_batch(model: Any, queries: Tensor, txt_len: int = 20, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """`txt_len` sampled tokens [N, txt_len] for queries [N, P], with no regard to EOS, from an encoder–decoder with a value head."""
    start = model.pretrained_model.generation_config.decoder_start_token_id
    if start is None:
        start = model.config.decoder_start_token_id
    ids = torch.full((len(queries), 1), start, device=queries.device)
    attention_mask = (queries != model.config.pad_token_id).long()
    for _ in range(txt_len):
        logits = model(input_ids=queries, attention_mask=attention_mask, decoder_input_ids=ids)[0][:, -1]
        logits = top_k_top_p_filtering(logits, top_k, top_p)
        ids = torch.cat([ids, torch.multinomial(logits.softmax(dim=-1), 1)], dim=1)
    model.drawn.add(model.pretrained_model, ids, {"do_sample": True, "top_k": top_k, "top_p": top_p})
    return ids[:, 1:]
