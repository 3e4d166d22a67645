"""Pure functions on tensors: masked statistics, token log-probabilities, KL estimators, advantages, rows in pieces.

Every mask is bool (or 0/1), true where a token counts. Log-probabilities are natural; KL is in nats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

Projection = Callable[[Tensor], Tensor]
"""States [n, D] → logits [n, V] float32, each row's from that row alone."""


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the true positions, a scalar; 0 where there are none."""
    mask = mask.to(values.dtype)
    return (values * mask).sum() / mask.sum().clamp(min=1)


def masked_var(values: Tensor, mask: Tensor) -> Tensor:
    """Unbiased variance over the true positions, a scalar; 0 where there are fewer than two."""
    count = mask.sum()
    centred = (values - masked_mean(values, mask)) * mask.to(values.dtype)
    return centred.square().sum() / (count - 1).clamp(min=1)


def whiten(values: Tensor, mask: Tensor, *, shift_mean: bool = True) -> Tensor:
    """Values scaled to variance 1 (and, with `shift_mean`, moved to mean 0) over the mask, and 0 off it.

    Source: OpenAI lm-human-preferences `whiten`, as described in Huang et al. 2024, detail 18; epsilon 1e-8.
    """
    mean, variance = masked_mean(values, mask), masked_var(values, mask)
    whitened = (values - mean) * torch.rsqrt(variance + 1e-8)
    if not shift_mean:
        whitened = whitened + mean
    return whitened * mask.to(values.dtype)


def token_logprobs(logits: Tensor, ids: Tensor) -> Tensor:
    """log softmax(logits)[ids]. logits: [..., V] float32; ids: [...] int64; returns [...] float32.

    log_softmax goes over the vocabulary once each way, logsumexp four times; what it keeps, projected_logprobs keeps small.
    """
    return torch.log_softmax(logits, dim=-1).gather(-1, ids.unsqueeze(-1)).squeeze(-1)


def projected_logprobs(project: Projection, states: Tensor, ids: Tensor, rows: int) -> Tensor:
    """token_logprobs(project(states), ids) of some `rows` at a time; the gradient for the states is taken on the way.

    states: [n, D]; ids: [n] int64; returns [n] float32. Right where nothing else that the projection reads is trained.
    """
    return _ProjectedLogprobs.apply(project, states, ids, rows)


class _ProjectedLogprobs(torch.autograd.Function):
    """The gradient of log softmax(logits)[id] is 1 at the id minus the softmax: written over what it is made of."""

    @staticmethod
    def forward(ctx: Any, project: Projection, states: Tensor, ids: Tensor, rows: int) -> Tensor:
        results, gradients = [], []
        for some, their_ids in zip(states.split(rows), ids.unsqueeze(-1).split(rows), strict=True):
            some = some.detach().requires_grad_(ctx.needs_input_grad[1])
            with torch.set_grad_enabled(ctx.needs_input_grad[1]):
                logits = project(some)
            logprobs = torch.log_softmax(logits.detach(), dim=-1)
            results.append(logprobs.gather(-1, their_ids).squeeze(-1))
            if ctx.needs_input_grad[1]:
                own = logprobs.exp_().neg_()
                own.scatter_add_(-1, their_ids, torch.ones_like(results[-1]).unsqueeze(-1))
                gradients += torch.autograd.grad(logits, some, own)
        ctx.save_for_backward(*gradients)
        return torch.cat(results)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, None, None]:
        own = torch.cat(ctx.saved_tensors)
        return None, gradient.unsqueeze(1).to(own.dtype) * own, None, None


def sample(logits: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """Inverse-CDF sampling from softmax(logits), one uniform in [0, 1) a row: what is drawn, and its log-probability.

    logits: [N, V] float32, −inf for ids that must not come out; uniforms: [N] float32; returns [N] int64, [N] float32.
    A draw lands on the first id whose cumulative probability exceeds it, so an id of probability 0 is never drawn. Where logits
    are not finite, an id comes out all the same, and NaN: an error here would wait for a GPU at each token, or break it.
    """
    probabilities = torch.softmax(logits, dim=-1)
    # A GPU adds in an order of its own: in float32 the sum may rise by rounding where the probability is 0.
    cumulative = probabilities.cumsum(dim=-1, dtype=torch.float64 if probabilities.is_cuda else None)
    total = cumulative[:, -1]
    drawn = torch.minimum(uniforms * total, torch.nextafter(total, torch.zeros_like(total)))
    ids = torch.searchsorted(cumulative, drawn.unsqueeze(-1), right=True).clamp(max=logits.shape[-1] - 1)
    return ids.squeeze(-1), probabilities.gather(-1, ids).squeeze(-1).log()


MOST = 20.0
"""Nats of a log-ratio beyond which its exponential goes on as a straight line."""


def ratio(logratio: Tensor) -> Tensor:
    """exp(logratio), of any shape; beyond MOST its tangent there, so that neither it nor its gradient is infinite.

    One token of 100 nats would make its mini-batch's gradient NaN (∞·0). Others clamp at ±20 (verl), with no gradient there.
    """
    near = logratio.clamp(max=MOST)
    return near.exp() * (1 + logratio - near)


def sequence_ratio(logratio: Tensor, mask: Tensor) -> Tensor:
    """exp of the mean log-ratio over a response's tokens, at each of them: [N, T] → [N, T] (Zheng et al. 2025, GSPO, eq. 7)."""
    mean = (logratio * mask).sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True).clamp(min=1)
    return ratio(mean).expand_as(logratio)


def clipped_surrogate(
    ratio: Tensor, advantages: Tensor, low: float, high: float, dual_clip: float | None = None
) -> tuple[Tensor, Tensor]:
    """−min(rA, clip(r, 1 − low, 1 + high)A), elementwise, and where the clip holds it (Schulman et al. 2017, eq. 7; a `high` of
    its own: Yu et al. 2025, DAPO, eq. 10).

    With `dual_clip`, where A < 0, no more than −dual_clip · A (Ye et al. 2020, "dual-clip PPO"): a token that has become many times as
    likely, of a response that was bad, would else have a gradient without a bound.
    """
    plain, clipped = -advantages * ratio, -advantages * ratio.clamp(1 - low, 1 + high)
    loss = torch.maximum(plain, clipped)
    held = clipped > plain
    if dual_clip is not None:
        most = torch.where(advantages < 0, -advantages * dual_clip, torch.inf)
        loss, held = torch.minimum(loss, most), held | (loss > most)
    return loss, held


def cispo_surrogate(ratio: Tensor, logprobs: Tensor, advantages: Tensor, high: float) -> tuple[Tensor, Tensor]:
    """−sg(min(r, 1 + high)) A log π, elementwise, and where the bound holds r (MiniMax-M1 2025, eq. 4 and 5, without a lower
    bound, as in their runs). Where PPO's clip takes a token's gradient away, here it is only kept from growing."""
    weight = ratio.detach().clamp(max=1 + high)
    return -weight * advantages * logprobs, ratio.detach() > 1 + high


def dpo_loss(margins: Tensor, beta: float) -> Tensor:
    """−log σ(β · margin), elementwise (Rafailov et al. 2023, eq. 7): margin is log(π/π_ref) of what was preferred, summed over its
    tokens, less that of what was not, in nats."""
    return -torch.nn.functional.logsigmoid(beta * margins)


def kl_k1(logratio: Tensor) -> Tensor:
    """k1 = log p − log q under samples of p: unbiased, of high variance, may be negative (Schulman 2020)."""
    return logratio


def kl_k2(logratio: Tensor) -> Tensor:
    """k2 = (log p − log q)² / 2: biased, of low variance, never negative (Schulman 2020)."""
    return logratio.square() / 2


def kl_k3(logratio: Tensor) -> Tensor:
    """k3 = q/p − 1 − log(q/p): unbiased and never negative (Schulman 2020). q/p grows as in `ratio`."""
    near = logratio.clamp(min=-MOST)
    return torch.expm1(-near) + (-near).exp() * (near - logratio) + logratio


KL_ESTIMATORS = {"k1": kl_k1, "k2": kl_k2, "k3": kl_k3, "k3_unweighted": kl_k3}
"""Each takes log p − log q of samples drawn from p, any shape, and estimates KL(p || q) elementwise."""


def kl_for_loss(estimator: str, logprobs: Tensor, old_logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """KL(p || q) at each token, any shape, to be differentiated: p the policy as it is, whose samples came of an older p_old.

    An estimate of an expectation under p has a gradient of its own and one through p: the ratio p/p_old in front of it
    carries the latter, and corrects for the samples' being p_old's. With it k1's and k3's gradients are those of
    KL(p || q), k3's with less noise (at p = p_old, a token's is log p − log q); k2's is that of its own, biased expectation.
    Without it, "k3_unweighted" (Shao et al. 2024, eq. 4), the gradient is that of KL(q || p): a token 4 nats too likely is
    pulled back by 1 − e⁻⁴ instead of 4. Source: DeepSeek-V3.2 2025, "Unbiased KL Estimate"; TRL's use_bias_correction_kl.
    """
    estimate = KL_ESTIMATORS[estimator](logprobs - ref_logprobs)
    return estimate if estimator == "k3_unweighted" else ratio(logprobs - old_logprobs) * estimate


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, gae_lambda: float) -> Tensor:
    """Generalized advantage estimates (Schulman et al. 2016, eq. 16), [N, T] float32, 0 off the mask.

    rewards, values: [N, T] float32; mask: [N, T] bool. Positions off the mask are stepped over, so neither padding nor a
    forced token takes part; the value after the last true position is 0, the episode's end.
    """
    advantages = torch.zeros_like(values)
    next_value = torch.zeros_like(values[:, 0])
    next_advantage = torch.zeros_like(values[:, 0])
    for t in reversed(range(values.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        advantage = delta + gamma * gae_lambda * next_advantage
        next_advantage = torch.where(mask[:, t], advantage, next_advantage)
        next_value = torch.where(mask[:, t], values[:, t], next_value)
        advantages[:, t] = torch.where(mask[:, t], advantage, 0.0)
    return advantages


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """1 − Var(returns − values) / Var(returns) over the mask; 0 where the returns do not vary."""
    variance = masked_var(returns, mask)
    if variance <= 1e-12:
        return 0.0
    return 1.0 - (masked_var(returns - values, mask) / variance).item()


def last_true(mask: Tensor) -> Tensor:
    """[N] int64: the last true position of each row; −1 for a row with none."""
    positions = torch.arange(mask.shape[1], device=mask.device)
    return torch.where(mask, positions, -1).max(dim=1).values


def in_pieces(widths: list[int], rows: int, tokens: int | None) -> list[slice]:
    """Runs of at most `rows` widths, each run's length times its largest at most `tokens`; a run is never empty."""
    pieces, first, widest = [], 0, 0
    for row, width in enumerate(widths):
        widest = max(widest, width)
        count = row - first + 1
        if count > 1 and (count > rows or (tokens is not None and count * widest > tokens)):
            pieces.append(slice(first, row))
            first, widest = row, width
    return [*pieces, slice(first, len(widths))]


def of_similar_length(
    input_ids: Tensor, attention_mask: Tensor, most: int, tokens: int | None = None
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Prompts [B, P] in pieces of similar length, each cut to its longest: their rows, ids and mask; see `in_pieces`."""
    lengths = attention_mask.sum(dim=1)
    order = lengths.argsort(stable=True)
    for piece in in_pieces(lengths[order].tolist(), most, tokens):
        rows = order[piece]
        width = int(lengths[rows].max())
        yield rows, input_ids[rows, :width], attention_mask[rows, :width]


def each_once(rows: Tensor, count: int) -> tuple[Tensor | slice, Tensor | slice]:
    """Of `count` prompts: those of the rows [N] once, and each row's place among them; a slice where nothing need be copied."""
    prompts, place = rows.unique(return_inverse=True)
    if len(prompts) == len(rows):
        prompts, place = rows, slice(None)
    in_order = len(prompts) == count and torch.equal(prompts, torch.arange(count, device=rows.device))
    return slice(None) if in_order else prompts, place


def gather_rows(pieces: list[tuple[Tensor, Tensor]], shape: torch.Size, dim: int) -> Tensor:
    """Groups of rows, each cut to its own width along `dim`, put back in order and padded with 0 to `shape`'s [B, P]."""
    whole = list(pieces[0][1].shape)
    whole[0], whole[dim] = shape
    result = pieces[0][1].new_zeros(whole)
    for rows, piece in pieces:
        result.narrow(dim, 0, piece.shape[dim])[rows] = piece
    return result
