"""Gradients of the two paths, the same seed twice, and a run that is resumed."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.gpu.pieces import experience_of, policy_of, prompts_of, settings, workplace
from softspoken.config import TrainConfig
from softspoken.rl import ppo, replays
from softspoken.rl.policy import Policy
from softspoken.rl.rollout import micro_batches, reference_logprobs, teacher_forced
from softspoken.train import ALGORITHMS, steps, train
from softspoken.training.start import optimizer_of
from softspoken.types import Experience

SCOPES = ("decoder", "all")
RELATIVE = 1e-4
"""The most that the gradients of the two paths may be apart in float32, as a share of their size."""
OTHERWISE: dict[str, dict[str, Any]] = {"plain": {"fast": False}, "recomputed": {"gradient_checkpointing": True}}
"""How else the gradient is computed."""
TIMES = 4
"""How often something is repeated to see whether it is the same each time."""

Weights = dict[str, Tensor]


# ------------------------------------------------------------------------------------------------------- gradients


def gradients(device: str, dtype: str, family: str | None) -> str:
    """The adapter's gradient, a step's of PPO, of the fast path against the plain path, and where layers are computed again."""
    said, worst = [], 0.0
    for scope in SCOPES:
        fast = policy_of(device, dtype, family, adapter_scope=scope)
        config = settings(device, dtype, family, adapter_scope=scope)
        experience = experience_of(fast, config, prompts_of(fast, 8))
        found = gradient(fast, experience, config)
        for name, changes in OTHERWISE.items():
            other = policy_of(device, dtype, family, adapter_scope=scope, **changes)
            _copy(fast, other)
            rollout = experience.rollout if name == "recomputed" else replace(experience.rollout, memory=None)
            expected = gradient(other, replace(experience, rollout=rollout), replace(config, **changes))
            apart = _relative(found, expected)
            said.append(f"{scope} {name} {apart:.1e}")
            worst = max(worst, apart)
    assert dtype != "float32" or worst <= RELATIVE, ", ".join(said)
    return ", ".join(said)


def gradient(policy: Policy, experience: Experience, config: TrainConfig) -> Weights:
    """Of every adapter weight, of the loss over all rows."""
    policy.model.zero_grad(set_to_none=True)
    rollout = experience.rollout
    for rows in micro_batches(policy, rollout, torch.arange(len(rollout.responses)), config):
        loss, _ = ppo.ppo_loss(policy, experience, rows, config)
        (loss / rollout.response_mask.sum()).backward()
    weights = policy.adapter_parameters().items()
    return {name: torch.zeros_like(weight) if weight.grad is None else weight.grad.clone() for name, weight in weights}


def captured_passes(device: str, dtype: str, family: str | None) -> str:
    """The gradient and the reference's log-probabilities in buffers, warmed up, captured and replayed, against the plain pass."""
    said, worst = [], 0.0
    for scope in SCOPES:
        policy = policy_of(device, dtype, family, adapter_scope=scope)
        config = settings(device, dtype, family, adapter_scope=scope)
        policy.can_replay = False
        experience = experience_of(policy, config, prompts_of(policy, 8))
        rollout, whole = experience.rollout, experience.rollout.response_mask.sum()
        expected = gradient(policy, experience, config)
        for _ in range(replays.WARM_UP + (2 if device == "cuda" else 0)):
            policy.can_replay = True
            policy.model.zero_grad(set_to_none=False)
            for rows in micro_batches(policy, rollout, torch.arange(len(rollout.responses)), config):
                replays.run(
                    policy, experience, rows, config, partial(_backward, policy, config), config.micro_batch_size, whole
                )
            found = {name: weight.grad.clone() for name, weight in policy.adapter_parameters().items()}  # type: ignore[union-attr]
            worst = max(worst, _relative(found, expected))
        if device == "cuda":
            references = [reference_logprobs(policy, rollout, config) for _ in range(replays.WARM_UP + 2)]
            assert all(made.graph is not None for made in policy.passes.values()), "not captured"
            off = max(float((one - rollout.ref_logprobs).abs().max()) for one in references)
            assert off < (1e-4 if dtype == "float32" else 0.5), f"references {off:.1e} apart"
            said.append(f"references {off:.1e}")
        said.append(f"{scope} gradient {worst:.1e}, {len(policy.passes)} passes")
    assert dtype != "float32" or worst <= RELATIVE, ", ".join(said)
    return ", ".join(said)


def _backward(
    policy: Policy, config: TrainConfig, experience: Experience, rows: Tensor, whole: Tensor
) -> dict[str, Tensor]:
    loss, parts = ppo.ppo_loss(policy, experience, rows, config)
    (loss / whole).backward()
    return parts


def algorithms(device: str) -> str:
    """Three steps of each algorithm with its own optimizer, by the fast path, a KL in the loss among them."""
    said = []
    for algorithm, module in ALGORITHMS.items():
        changes: dict[str, Any] = {"algorithm": algorithm, **({"kl_in": "loss"} if algorithm == "grpo" else {})}
        policy, config = policy_of(device, "float32", "T5", **changes), settings(device, "float32", "T5", **changes)
        optimizer, _ = optimizer_of(policy, config)
        for step in range(3):
            experience = experience_of(policy, config, prompts_of(policy, 8), seed=step)
            stats = module.update(policy, optimizer, experience, config, torch.Generator().manual_seed(step))
            assert stats.optimizer_steps, f"{algorithm}: nothing was learned"
        captured = sum(made.graph is not None for made in policy.passes.values())
        said.append(f"{algorithm} gradient {stats.grad_norm:.1e}, {captured} passes captured")
        assert device == "cpu" or algorithm == "dpo" or captured, said[-1]
    return "; ".join(said)


@torch.no_grad()
def _copy(source: Policy, target: Policy) -> None:
    for (name, weight), (other, own) in zip(source.trainable().items(), target.trainable().items(), strict=True):
        assert name == other
        own.copy_(weight)


def _relative(found: Weights, expected: Weights) -> float:
    """The largest distance of a matrix's gradients, as a share of its size; one that is next to nothing beside all of them counts
    as a hundredth of them."""
    least = 0.01 * float(torch.stack([one.norm() for one in expected.values()]).norm())
    return max(float((found[name] - one).norm()) / (float(one.norm()) + least) for name, one in expected.items())


# ---------------------------------------------------------------------------------------------------- the same seed


@contextlib.contextmanager
def asked_for(*, warn_only: bool) -> Iterator[None]:
    torch.use_deterministic_algorithms(True, warn_only=warn_only)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextlib.contextmanager
def exactly() -> Iterator[None]:
    """All that PyTorch has for the same digits each time, without an error where it has nothing."""
    with asked_for(warn_only=True), sdpa_kernel(SDPBackend.MATH):
        yield


Way = Callable[[], AbstractContextManager[Any]]
WAYS: dict[str, Way] = {
    "as it is": contextlib.nullcontext,
    "attention by its formula": lambda: sdpa_kernel(SDPBackend.MATH),
    "asked for": lambda: asked_for(warn_only=False),
    "warned, attention by its formula": exactly,
}


def same_seed(device: str) -> str:
    """How far apart the weights are after three steps of the same seed, twice, as PyTorch chooses its operations and otherwise."""
    said = {name: _twice(device, way) for name, way in WAYS.items()}
    shown = "; ".join(f"{name}: {one}" for name, one in said.items())
    assert any(one == "bit for bit" for one in said.values()), shown
    return shown


def _twice(device: str, way: Way) -> str:
    try:
        with way():
            one, other = (_three_steps(device) for _ in range(2))
    except RuntimeError as error:
        return f"refused, {_first_words(str(error))}"
    return apart(one, other)


def apart(one: Weights, other: Weights) -> str:
    """The largest difference, and that of all of them beside their size."""
    most = max(float((one[name] - other[name]).abs().max()) for name in one)
    return f"apart by {most:.1e} ({distance(one, other):.1e} of their size)" if most else "bit for bit"


def distance(one: Weights, other: Weights) -> float:
    first, second = (torch.cat([part.flatten().float() for part in weights.values()]) for weights in (one, other))
    return float((first - second).norm() / first.norm())


def _three_steps(device: str) -> Weights:
    policy, config = policy_of(device), settings(device, ppo_epochs=2)
    count = 8 if device == "cuda" else 2
    optimizer = torch.optim.AdamW(policy.trainable().values(), lr=config.learning_rate, eps=config.adam_epsilon)
    for step in range(3):
        experience = experience_of(policy, config, prompts_of(policy, count), seed=step)
        ppo.update(policy, optimizer, experience, config, torch.Generator().manual_seed(step))
    return {name: weight.detach().clone() for name, weight in policy.trainable().items()}


def warned_of(device: str) -> str:
    """What PyTorch itself says of three steps' operations that are not deterministic."""
    always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings(record=True) as caught, asked_for(warn_only=True):
            warnings.simplefilter("always")
            _three_steps(device)
    finally:
        torch.set_warn_always(always)
    texts = [str(one.message) for one in caught]
    counts = {words: sum(_first_words(text) == words for text in texts) for words in map(_first_words, texts)}
    return "; ".join(f"{count} x {words}" for words, count in counts.items()) or "nothing"


def _first_words(text: str) -> str:
    return " ".join(text.split())[:150].split(" does not have a deterministic implementation")[0]


def repeats(device: str) -> str:
    """Which part of a step gives other digits on the same inputs: sampling, teacher forcing, the gradient; and attention alone."""
    policy, config = policy_of(device), settings(device)
    experience = experience_of(policy, config, prompts_of(policy, 8))
    rollout = experience.rollout

    def sampled() -> list[Tensor]:
        again = experience_of(policy, config, prompts_of(policy, 8)).rollout
        return [again.response_ids, again.old_logprobs, again.ref_logprobs]

    def forced() -> list[Tensor]:
        return list(teacher_forced(policy, rollout, config))

    def backward() -> list[Tensor]:
        return list(gradient(policy, experience, config).values())

    said = [f"{part.__name__} {_spread(part)}" for part in (sampled, forced, backward)]
    kernels = [SDPBackend.MATH, *([SDPBackend.EFFICIENT_ATTENTION] if device == "cuda" else [])]
    for kernel in kernels:
        with sdpa_kernel(kernel):
            said.append(f"backward with {kernel.name} {_spread(backward)}")
            said.append(f"attention alone with {kernel.name} {_spread(lambda: _attention(device))}")
    return ", ".join(said)


def _spread(part: Callable[[], list[Tensor]]) -> str:
    """The largest difference between repetitions, beside the largest number."""
    first, *others = (part() for _ in range(TIMES))
    if any(a.shape != b.shape for other in others for a, b in zip(first, other, strict=True)):
        return "other tokens"
    most = max(float((a - b).abs().max()) for other in others for a, b in zip(first, other, strict=True))
    return f"{most:.1e} of {max(float(a.abs().max()) for a in first):.1e}" if most else "the same"


def _attention(device: str) -> list[Tensor]:
    """Gradients of attention on the embedded model's shapes in an update: 24 rows, 40 tokens, a prompt of 200 with padding."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(24, 5, tokens, 64, generator=generator).to(device).requires_grad_() for tokens in (40, 200, 200)
    )
    mask = torch.zeros(24, 1, 1, 200, device=device)
    mask[::2, ..., 150:] = torch.finfo(torch.float32).min
    F.scaled_dot_product_attention(query, key, value, mask.expand(24, 5, 40, 200)).square().sum().backward()
    return [one.grad for one in (query, key, value) if one.grad is not None]


# -------------------------------------------------------------------------------------------------------- resuming


def resume(device: str, *, same_digits: bool) -> str:
    """Two steps, and resumed to four, against four at once: no further apart than two runs of one seed are."""
    name = "exactly" if same_digits else "plain"
    with exactly() if same_digits else contextlib.nullcontext():
        start = _trained(_run(device, f"{name}-start", steps=1, learning_rate=1e-12))
        straight = [_trained(_run(device, f"{name}-{number}")) for number in range(2)]
        stopped = workplace() / f"{name}-stopped"
        with closing(steps(_config(device, stopped))) as running:  # type: ignore[type-var]
            for step in running:
                if step.number == 2:
                    break
        resumed = _trained(train(TrainConfig(resume=str(stopped))))
    noise, found, moved = (distance(straight[0], one) for one in (straight[1], resumed, start))
    said = f"resumed: {apart(straight[0], resumed)}; same seed: {apart(straight[0], straight[1])}; training moved {moved:.1e}"
    assert found <= 2 * noise, said
    assert moved > 10 * noise, said
    return said


def _config(device: str, output: Path, **changes: Any) -> TrainConfig:
    small = {
        "steps": 4,
        "batch_size": 4,
        "samples_per_prompt": 4,
        "max_new_tokens": 16,
        "save_every": 2,
        "eval_limit": 0,
    }
    given: dict[str, Any] = {**small, "device": device, "dtype": "float32", **changes}
    return TrainConfig(output=str(output), reward="benchmarks.gpu.pieces:letters", **given)


def _run(device: str, name: str, **changes: Any) -> Path:
    return train(_config(device, workplace() / name, **changes))


def _trained(run: Path) -> Weights:
    return load_file(run / "adapter" / "adapter_model.safetensors")
