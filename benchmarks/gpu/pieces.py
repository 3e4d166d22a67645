"""The policies, prompts and samples that the checks are made on, and how two ways of sampling are compared."""

from __future__ import annotations

import functools
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.families.models import build
from softspoken.config import TrainConfig
from softspoken.data.prompts import encode_prompts
from softspoken.data.reading import load_examples
from softspoken.rl import graphs
from softspoken.rl.loading import load_policy
from softspoken.rl.policy import Policy
from softspoken.rl.rollout import generate_rollout, sample_rows
from softspoken.train import ALGORITHMS
from softspoken.types import Experience, Memory, PromptBatch, Sampled, Scores

EXAMPLES = load_examples("mini", "train")[:64]
SAMPLES = 6
LOG_RATIO = 2e-5
"""The most that two ways of sampling the same tokens may be apart in float32, in nats: rounding, of which the line says how much."""
OFF = {"float32": 1e-4, "bfloat16": 0.3}
"""The same of one token at a time and all at once."""
ALIKE = {"float64": 1.0, "float32": 0.95, "bfloat16": 0.0}
"""The share of rows of which both ways must sample the same tokens; the rest had a draw within rounding of two tokens' border."""


@functools.cache
def workplace() -> Path:
    """A folder for as long as the process lives."""
    kept = tempfile.TemporaryDirectory(prefix="gpu-checks-")
    _kept.append(kept)
    return Path(kept.name)


_kept: list[tempfile.TemporaryDirectory[str]] = []


@functools.cache
def tiny(family: str) -> str:
    """A tiny random model of that family (benchmarks/families/models.py)."""
    return str(build(family, workplace() / family.replace(" ", "-")))


def settings(device: str, dtype: str = "float32", family: str | None = None, **changes: Any) -> TrainConfig:
    """Of the embedded model or of a tiny one of `family`. float64: loaded in float32."""
    small = {"model": tiny(family), "lora_r": 2, "max_new_tokens": 12, "samples_per_prompt": 4} if family else {}
    given: dict[str, Any] = {**small, "device": device, "min_response_chars": 0, "target_kl": None, **changes}
    return TrainConfig(dtype="bfloat16" if dtype == "bfloat16" else "float32", **given)


def policy_of(device: str, dtype: str = "float32", family: str | None = None, **changes: Any) -> Policy:
    """With an adapter, and a value head, that do something."""
    policy = load_policy(settings(device, dtype, family, **changes))
    if dtype == "float64":
        policy.model.double()
    torch.nn.init.normal_(policy.value_head.weight, std=0.1)
    move(policy)
    return policy


@torch.no_grad()
def move(policy: Policy) -> None:
    """In place, as an optimizer does it; by little, for a random model's attention is soon so sharp that rounding decides."""
    for name, weight in policy.adapter_parameters().items():
        if "lora_B" in name:
            weight.normal_(std=0.02)


def prompts_of(policy: Policy, count: int, *, first: int = 0, lines: int | None = None) -> PromptBatch:
    """With `lines`, no more of each text: short ones, for graphs of another width."""
    examples = [
        replace(example, text="\n".join(example.text.splitlines()[:lines]))
        for example in EXAMPLES[first : first + count]
    ]
    return encode_prompts(examples, policy.tokenizer, policy.prompt_format)


@torch.no_grad()
def inputs(
    policy: Policy, prompts: PromptBatch, limit: int = 40, seed: int = 0, ends: float = 0.0
) -> tuple[Memory, Tensor, Tensor]:
    """What both ways of sampling are given. `ends`: the share of draws that are 0, where the end of the text comes out."""
    count, generator = len(prompts.examples), torch.Generator().manual_seed(seed)
    memory = policy.read(prompts.input_ids.to(policy.device), prompts.attention_mask.to(policy.device), 8)
    index = torch.arange(count, device=policy.device).repeat_interleave(SAMPLES)
    uniforms = torch.rand((len(index), limit), generator=generator)
    uniforms[torch.rand(uniforms.shape, generator=generator) < ends] = 0.0
    return memory, index, uniforms.to(policy.device)


@torch.no_grad()
def captured(policy: Policy, memory: Memory, index: Tensor, uniforms: Tensor) -> Sampled:
    return graphs.sample(policy, memory, index, uniforms, 1.0, capture=policy.device.type == "cuda")


@torch.no_grad()
def both_ways(policy: Policy, memory: Memory, index: Tensor, uniforms: Tensor) -> tuple[Sampled, Sampled]:
    return sample_rows(policy, memory, index, uniforms, 1.0), captured(policy, memory, index, uniforms)


class Compared:
    """How many rows both ways sampled alike, and how far apart their log-probabilities and values are in those."""

    def __init__(self, dtype: str) -> None:
        self.dtype, self.rows, self.alike, self.apart, self.values = dtype, 0, 0, 0.0, 0.0

    def add(self, plain: Sampled, other: Sampled) -> None:
        length = min(plain[0].shape[1], other[0].shape[1])
        ids, masks, logprobs, values = ((a[:, :length], b[:, :length]) for a, b in zip(plain, other, strict=True))
        alike = (ids[0] == ids[1]).all(dim=1) & (masks[0] == masks[1]).all(dim=1)
        self.rows, self.alike = self.rows + len(alike), self.alike + int(alike.sum())
        if alike.any():
            self.apart = max(self.apart, (logprobs[0] - logprobs[1])[alike].abs().max().item())
            self.values = max(self.values, (values[0] - values[1])[alike].abs().max().item())

    def said(self) -> str:
        said = f"{self.alike} of {self.rows} rows alike, log-ratio {self.apart:.1e}, values {self.values:.1e}"
        assert self.alike >= ALIKE[self.dtype] * self.rows, said
        assert self.dtype == "bfloat16" or self.apart <= LOG_RATIO, said
        return said


def experience_of(policy: Policy, config: TrainConfig, prompts: PromptBatch, seed: int = 0) -> Experience:
    """A step's samples with scores made up for the purpose."""
    rollout = generate_rollout(policy, prompts, config, torch.Generator().manual_seed(seed))
    scores = torch.tensor([len(text) / 100 for text in rollout.responses])
    scores = scores + torch.linspace(0, 1, len(scores))
    return ALGORITHMS[config.algorithm].build_experience(rollout, Scores(scores, {}), config, config.kl_coef)  # type: ignore[no-any-return]


def letters(responses: list[str], texts: list[str]) -> list[float]:
    """A reward: the share of letters."""
    return [sum(map(str.isalpha, text)) / max(1, len(text)) for text in responses]
