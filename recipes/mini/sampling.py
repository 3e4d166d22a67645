"""Responses of a T5, many at once: greedy ones, or several drawn ones of which the one most like the others is taken.

Minimum Bayes risk (Kumar and Byrne 2004) with the mean of unigram and bigram F1, over token ids, as the gain: what most of the
draws say is neither a loop nor somebody's invention.
"""

import math

import torch
import torch.nn.functional as F
from learner import END, PAD, Forward
from torch import Tensor

FLOOR = 0.02  # tokens of less than this share of the likeliest one's probability are not drawn (min-p)
LOOK_EVERY = 8  # tokens between two looks at whether all have ended
WIDE = 1 << 14  # above every token id


@torch.no_grad()
def draw(forward: Forward, inputs: Tensor, samples: int, limit: int, temperature: float) -> Tensor:
    """[N, L] → ids [N, samples, limit], ended by END and padded; the likeliest ones where the temperature is 0."""
    model, heads, size = forward.model, forward.heads, forward.size
    count, device = len(inputs), inputs.device
    rows = count * samples
    states, unseen = forward.encoded(inputs)
    memories = [part.contiguous() for part in forward.memories(states)]
    cross_bias = unseen.expand(-1, heads, samples, -1)
    bias = forward.position_bias(model.decoder, limit, causal=True)
    blocks = model.decoder.block
    own = [torch.zeros(2, rows, heads, limit, size, dtype=forward.dtype, device=device) for _ in blocks]
    ids = torch.full((rows, limit), PAD, dtype=torch.long, device=device)
    token = torch.full((rows,), PAD, dtype=torch.long, device=device)
    ended = torch.zeros(rows, dtype=torch.bool, device=device)
    for at in range(limit):
        x = F.embedding(token, model.shared.weight).unsqueeze(1)
        for number, block in enumerate(blocks):
            a, layer = block.layer[0].SelfAttention, block.layer[0]
            q, k, v = forward.split(
                forward.linear(forward.norm(x, layer.layer_norm), a.q.weight, a.k.weight, a.v.weight), 3
            )
            own[number][0, :, :, at], own[number][1, :, :, at] = k[:, :, 0], v[:, :, 0]
            keys, values = own[number][:, :, :, : at + 1]
            scores = (q @ keys.transpose(-1, -2)).float() + bias[:, :, at : at + 1, : at + 1].float()
            x = x + forward.linear(forward.merged(scores.softmax(-1).to(forward.dtype) @ values), a.o.weight)
            # All samples of an input read the same keys: they are the queries of one attention.
            a, layer = block.layer[1].EncDecAttention, block.layer[1]
            q = forward.linear(forward.norm(x, layer.layer_norm), a.q.weight)
            q = q.view(count, samples, heads, size).transpose(1, 2)
            k, v = memories[2 * number : 2 * number + 2]
            scores = (q @ k.transpose(-1, -2)).float() + cross_bias.float()
            found = (scores.softmax(-1).to(forward.dtype) @ v).transpose(1, 2).reshape(rows, 1, heads * size)
            x = x + forward.linear(found, a.o.weight)
            x = forward.feed_forward(x, block.layer[2])
        logits = forward.scores(x)[:, 0].float()
        logits[:, PAD] = -torch.inf
        if temperature:
            likeliest = logits.max(-1, keepdim=True).values
            logits = logits.masked_fill(logits < likeliest + math.log(FLOOR), -torch.inf)
            logits = logits / temperature - torch.empty_like(logits).exponential_().log()  # Gumbel's noise
        token = logits.argmax(-1).masked_fill(ended, PAD)
        ids[:, at] = token
        ended = ended | (token == END)
        if at % LOOK_EVERY == LOOK_EVERY - 1 and bool(ended.all()):
            break
    return ids.view(count, samples, limit)


def counted(ids: Tensor) -> Tensor:
    """[..., T] → the same, each id told apart from its earlier occurrences, so that sets of them overlap as bags do."""
    length = ids.shape[-1]
    earlier = torch.ones(length, length, dtype=torch.bool, device=ids.device).tril(-1)
    occurrence = ((ids[..., :, None] == ids[..., None, :]) & earlier).sum(-1)
    return ids * 64 + occurrence.clamp(max=63)


def f1(a: Tensor, b: Tensor) -> Tensor:
    """F1 of the overlap of two bags, [..., T] and [..., U]; places below 0 count as empty."""
    one, other = counted(a), counted(b)
    there, here = a >= 0, b >= 0
    shared = ((one[..., :, None] == other[..., None, :]) & there[..., :, None] & here[..., None, :]).sum((-1, -2))
    return 2 * shared / (there.sum(-1) + here.sum(-1)).clamp(min=1)


def gain(a: Tensor, b: Tensor) -> Tensor:
    """The mean of unigram and bigram F1 of ids [..., T] and [..., U], the end and the padding left out."""
    a, b = (ids.long().masked_fill((ids == PAD) | (ids == END), -1) for ids in (a, b))
    pairs = [
        torch.where((ids[..., :-1] >= 0) & (ids[..., 1:] >= 0), ids[..., :-1] * WIDE + ids[..., 1:], -1)
        for ids in (a, b)
    ]
    return (f1(a, b) + f1(*pairs)) / 2


def likest(ids: Tensor, reference: Tensor | None = None, weight: float = 0.0) -> tuple[Tensor, Tensor]:
    """Of ids [N, S, T] the one with the highest mean gain against the others, [N, T], and that gain [N].

    `reference` [N, T]: what was once written for it counts by `weight` beside the mean of the others.
    """
    samples = ids.shape[1]
    against = torch.stack([gain(ids[:, place, None], ids).sum(-1) for place in range(samples)], dim=1)
    score = (against - 1) / max(1, samples - 1)
    if reference is not None:
        score = (1 - weight) * score + weight * gain(ids, reference[:, None])
    best = score.argmax(1)
    return ids[torch.arange(len(ids), device=ids.device), best], score.gather(1, best[:, None])[:, 0]
