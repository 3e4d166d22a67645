"""What notebooks import from `trl.core`."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import TopKLogitsWarper, TopPLogitsWarper


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
        if top_k > 0:
            logits = TopKLogitsWarper(top_k)(ids, logits)
        if top_p < 1.0:
            logits = TopPLogitsWarper(top_p)(ids, logits)
        ids = torch.cat([ids, torch.multinomial(logits.softmax(dim=-1), 1)], dim=1)
    model.drawn.add(model.pretrained_model, ids, {"do_sample": True, "top_k": top_k, "top_p": top_p})
    return ids[:, 1:]
