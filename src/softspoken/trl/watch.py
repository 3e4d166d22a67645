"""What a step looks out for: each finding is said once, or each time it matters, with its numbers and the remedy."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from softspoken.rl.policy import Policy
from softspoken.trl.align import Prompts, Responses, retokenized, select
from softspoken.trl.passes import forward_all
from softspoken.trl.record import Record, Special
from softspoken.trl.sampling import COUNTED, biases, distance, resolve_settings

FEW = 4
"""Responses that the cost of generation settings is counted on."""
REMEDY = "do_sample=True, top_k=0, top_p=1.0, min_length=-1"
REPEALED = {
    "num_beams": 1,
    "temperature": 1.0,
    "typical_p": 1.0,
    "repetition_penalty": 1.0,
    "min_new_tokens": 0,
    "encoder_repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
}
"""Settings that the remedy names as well where they are set, with what they must be."""


class Watch:
    def __init__(self, policy: Policy, special: Special, record: Record) -> None:
        self.policy = policy
        self.special = special
        self.record = record
        self._said: set[str] = set()

    def responses(self, prompts: Prompts, batch: Responses, given: list[Tensor]) -> None:
        """Whether these are the tokens that were drawn, and from the distribution that is trained."""
        if "retokenized" not in self._said:
            count = retokenized(batch.contents, given, self.record, self.policy.tokenizer, self.special)
            if count:
                self._said.add("retokenized")
                _say(
                    f"{count} of {len(given)} responses are not the tokens that were generated, but look decoded and tokenized "
                    "again: the update then trains tokens that the policy did not choose; keep the tensors that generate "
                    "returned, give those to step, and decode only to score"
                )
        drawn_with = [self.record.settings.get(content) for content in batch.contents]
        for settings in drawn_with:
            found = self._biases(settings) if settings is not None else {}
            if settings is not None and found and repr(found) not in self._said:
                self._said.add(repr(found))
                rows = [
                    row for row, other in enumerate(drawn_with) if other is not None and self._biases(other) == found
                ]
                self._say_biased(found, prompts, batch, rows[:FEW], settings)

    def skipped(self, minis: int, of: int, threshold: float) -> None:
        if 2 * minis > of:
            _say(
                f"{minis} of {of} mini-batches of this step were SKIPPED and trained nothing: their mean probability ratio passed "
                f"ratio_threshold {threshold}, or was no number; the responses are not what the policy generates, or the learning "
                "rate is too high",
                RuntimeWarning,
            )

    def _biases(self, settings: dict[str, Any]) -> dict[str, Any]:
        return biases(resolve_settings(self.policy, settings), len(self.policy.forbidden))

    @torch.no_grad()
    def _say_biased(
        self, found: dict[str, Any], prompts: Prompts, batch: Responses, rows: list[int], given: dict[str, Any]
    ) -> None:
        chosen = torch.tensor(rows, device=self.policy.device)
        some, few = select(prompts, batch, chosen)
        logits = forward_all(self.policy, some, few, None, FEW, logits=True).logits
        settings = resolve_settings(self.policy, given)
        apart = (distance(self.policy, logits, few.ids, settings) * few.scored).sum().item()
        names = ", ".join(f"{name}={value}" for name, value in found.items())
        # Of greedy and beam search all is counted: what they put out is the one thing that they can.
        unknown = [name for name in found if name not in COUNTED] if settings["do_sample"] else []
        by = f"by {'at least ' * bool(unknown)}{apart / len(rows):.3g} nats a response ({apart / few.scored.sum().item():.2g} a token; counted on {len(rows)})"
        without = f", {' and '.join(unknown)} left out, as that cannot be counted" if unknown else ""
        if len(unknown) == len(found):
            by, without = "by how much cannot be counted", ""
        _say(
            f"generation with {names} draws from another distribution than the one that is trained, {by}{without}: the KL that step "
            f"measures can fall that far below 0 as training goes on; sample with {_remedy(found)}",
            level=6,  # one more for no_grad
        )


def say_negative_kl(per_response: Tensor) -> None:
    """`per_response` [N]: warn when its mean is below 0 by more than chance (three standard errors)."""
    kl = per_response.mean().item()
    error = per_response.std().item() / len(per_response) ** 0.5 if len(per_response) > 1 else float("inf")
    if kl < -1.0 or (kl < -0.01 and kl + 3 * error < 0):
        _say(
            f"KL to the reference is {kl:.2f} ± {error:.2f} nats a response, and a true one is never negative: the responses are not "
            f"drawn from the distribution that is scored; generate with {REMEDY}, and give step the tokens as they were generated",
            level=5,
        )


def _remedy(found: dict[str, Any]) -> str:
    """REMEDY, and what it leaves out that a model's own generation config may bring (BART's beams, say)."""
    more = [f"{name}={REPEALED[name]}" for name in found if name in REPEALED]
    return ", ".join([REMEDY, *more])


def _say(text: str, category: type[Warning] = UserWarning, level: int = 4) -> None:
    # The level of the notebook's own line: here, the watch, step, the notebook.
    warnings.warn(text, category, stacklevel=level)
