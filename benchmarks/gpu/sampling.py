"""Captured sampling against plain sampling, and the families that are sampled plainly."""

from __future__ import annotations

import threading
from typing import Any

import torch

from benchmarks.gpu.pieces import (
    OFF,
    Compared,
    both_ways,
    experience_of,
    inputs,
    move,
    policy_of,
    prompts_of,
    settings,
)
from softspoken.rl import graphs, numerics, ppo
from softspoken.rl.loading import load_policy
from softspoken.rl.optimise import require_moved
from softspoken.rl.policy import Policy
from softspoken.rl.rollout import generate_rollout, teacher_forced

SHAPES = ((2, 12, 0, None), (5, 20, 56, None), (8, 12, 20, 1), (3, 12, 30, 2), (2, 12, 62, None), (2, 12, 8, 1))
"""How many prompts, new tokens, the first of the prompts and how many lines of them: widths of 64 and 128, and one shape twice."""


def captured_sampling(device: str, dtype: str) -> str:
    """A captured step samples what plain sampling does, and its record is what teacher forcing finds: the embedded model."""
    policy, compared = policy_of(device, dtype), Compared(dtype)
    for count, limit, lines in ((8, 40, None), (3, 20, 1)):
        compared.add(*both_ways(policy, *inputs(policy, prompts_of(policy, count, lines=lines), limit)))
    return f"{compared.said()}, {_record(policy, device, dtype)}"


def tiny_sampling(device: str, dtype: str, family: str, **changes: Any) -> str:
    """The same of a tiny model, over widths and batch sizes, and again once its weights have moved, when nothing is captured anew."""
    policy, compared = policy_of(device, dtype, family, **changes), Compared(dtype)
    assert graphs.applies_to(policy)
    kept: set[int] = set()
    for again in range(2):
        for seed, (count, limit, first, lines) in enumerate(SHAPES):
            prompts = prompts_of(policy, count, first=first, lines=lines)
            compared.add(*both_ways(policy, *inputs(policy, prompts, limit, seed, ends=0.05)))
        now = {id(buffers) for buffers in policy.sampling_buffers.values()}
        assert now == kept or not again, "captured anew"
        kept = now
        move(policy)
        policy.thin(torch.Generator().manual_seed(again))
        with policy.reference():
            pass
    rest = "" if dtype == "float64" else f", {_record(policy, device, dtype, family, **changes)}"
    return f"{compared.said()}, {len(kept)} graphs{rest}"


def _record(policy: Policy, device: str, dtype: str, family: str | None = None, **changes: Any) -> str:
    """How far from teacher forcing the record is, and, below float32, was before it was computed again."""
    config = settings(device, dtype, family, **changes)
    policy.exact = False  # measured, whatever it comes to
    rollout = generate_rollout(policy, prompts_of(policy, 8), config, torch.Generator().manual_seed(1))
    assert device == "cpu" or policy.can_capture or not graphs.applies_to(policy), "a capture failed"
    apart = (teacher_forced(policy, rollout, config)[0] - rollout.old_logprobs).abs().max().item()
    assert apart <= OFF[dtype], f"teacher forcing apart {apart:.1e}"
    return f"mismatch {rollout.mismatch:.1e}, teacher forcing apart {apart:.1e}"


def other_family(device: str, dtype: str, family: str, **changes: Any) -> str:
    """One that graphs are not for: sampled plainly, its record is what teacher forcing finds, and a step moves all its adapter."""
    changes = {"adapter_scope": "all", **changes}
    config = settings(device, dtype, family, **changes)
    policy = load_policy(config)
    assert not graphs.applies_to(policy)
    before = _record(policy, device, dtype, family, **changes)
    optimizer = torch.optim.AdamW(policy.trainable().values(), lr=1e-2)
    experience = experience_of(policy, config, prompts_of(policy, 8))
    stats = ppo.update(policy, optimizer, experience, config, torch.Generator().manual_seed(0))
    require_moved(policy, optimizer)
    assert not policy.sampling_buffers
    after = _record(policy, device, dtype, family, **changes)
    return f"{before}; after {stats.optimizer_steps} updates {after}"


def replay_after_changes(device: str, dtype: str) -> str:
    """A replay reads the weights as an optimizer step and a reference pass left them, and nothing is captured anew."""
    policy, compared = policy_of(device, dtype), Compared(dtype)
    given = inputs(policy, prompts_of(policy, 8))
    both_ways(policy, *given)
    kept = list(policy.sampling_buffers.values())
    optimizer = torch.optim.AdamW(policy.trainable().values(), lr=1e-2)
    for weight in policy.trainable().values():
        weight.grad = torch.randn_like(weight)
    optimizer.step()
    with policy.reference():
        pass
    compared.add(*both_ways(policy, *given))
    assert list(policy.sampling_buffers.values()) == kept, "captured anew"
    return compared.said()


@torch.no_grad()
def hidden_waits(device: str) -> str:
    """Nothing in a step waits for the device."""
    policy = policy_of(device)
    memory, index, uniforms = inputs(policy, prompts_of(policy, 4))
    buffers = graphs._Buffers(policy, memory, uniforms.shape, 512, 1.0)
    buffers.begin(memory, index, uniforms)
    buffers.step()
    if device == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        buffers.step()
    finally:
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    return "none"


def beside_another_thread(device: str) -> str:
    """Captures while another thread copies to the card, as prefetching does."""
    policy, stop, copies = policy_of(device), threading.Event(), 0

    def copy() -> None:
        nonlocal copies
        while not stop.is_set():
            torch.ones(8, 512, dtype=torch.long).to(device)
            copies += 1

    thread = threading.Thread(target=copy)
    thread.start()
    try:
        for limit in range(20, 25):
            both_ways(policy, *inputs(policy, prompts_of(policy, 4), limit))
    finally:
        stop.set()
        thread.join()
    return f"{len(policy.sampling_buffers)} graphs, {copies} copies"


def impossible_ids(device: str) -> str:
    """An id of probability 0 is never drawn from T5's vocabulary."""
    logits = torch.randn(4096 if device == "cuda" else 64, 32_128, device=device)
    logits[:, ::3] = float("-inf")
    uniforms = torch.rand(len(logits), device=device)
    uniforms[0], uniforms[1] = 1 - 2**-24, 0.0
    ids, logprobs = numerics.sample(logits, uniforms)
    assert torch.isfinite(logprobs).all()
    assert not (ids % 3 == 0).any()
    return f"none of {len(logits)}"


def not_a_number(device: str) -> str:
    """Logits that are no numbers are sampled from without an assert on the device, in a captured step too; the update leaves them out."""
    ids, _ = numerics.sample(torch.full((2, 50), float("nan"), device=device), torch.tensor([0.2, 0.7], device=device))
    said = f"ids {ids.tolist()}"
    config, policy = settings(device), policy_of(device)
    for name, weight in policy.adapter_parameters().items():
        if "lora_B" in name:
            weight.data.fill_(float("nan"))
    optimizer = torch.optim.AdamW(policy.trainable().values(), lr=1e-2)
    experience = experience_of(policy, config, prompts_of(policy, 2))
    stats = ppo.update(policy, optimizer, experience, config, torch.Generator().manual_seed(0))
    if device == "cuda":
        torch.cuda.synchronize()
    assert stats.optimizer_steps == 0, stats
    return f"{said}; with a policy that is none, {stats.skipped} mini-batches skipped"
