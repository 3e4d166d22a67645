"""What captured sampling keeps in the card's memory, and what happens when that runs out. For a GPU alone."""

from __future__ import annotations

import gc
from itertools import product
from unittest.mock import patch

import torch

from benchmarks.gpu.pieces import captured, inputs, policy_of, prompts_of, settings
from softspoken.rl import graphs
from softspoken.rl.policy import Policy
from softspoken.rl.rollout import generate_rollout

BUCKETS = list(product(range(2, 12), range(10, 20, 2)))
"""Fifty shapes: prompts and new tokens."""
MORE = 1.2e9
"""Bytes that may be taken beyond what is held when memory is to run out."""


def memory_kept(device: str) -> str:
    """Buffers of fifty shapes take no more the second time, and what is cleared comes back."""
    policy = policy_of(device)
    before, seen = _reserved_at_rest(), []
    for _ in range(2):
        _sample_all(policy)
        seen.append(torch.cuda.memory_reserved() - before)
    count, counted = len(policy.sampling_buffers), _counted(policy)
    policy.sampling_buffers.clear()
    left = _reserved_at_rest() - before
    said = f"{count} buckets, reserved {_mib(*seen)}, counted {_mib(counted)}, left {_mib(left)}"
    assert count == len(BUCKETS), said
    assert seen[1] <= seen[0] * 1.05, said
    assert left < 300e6, said
    assert seen[1] < 3 * counted + 500e6, said
    return said


def memory_of_few(device: str) -> str:
    """Where only a fifth of fifty buckets may be kept, the others go, and with them their memory."""
    policy = policy_of(device)
    before, seen = _reserved_at_rest(), []
    allowed = 0
    with patch.object(graphs, "kept_bytes", lambda _: allowed):
        for first in range(0, len(BUCKETS), 10):
            if not first:
                allowed = 1 << 40
            _sample_all(policy, first, first + 10)
            if not first:
                allowed = _counted(policy)  # as much as these ten take
            seen.append(torch.cuda.memory_reserved() - before)
    said = (
        f"{len(policy.sampling_buffers)} buckets kept, reserved after each ten {_mib(*seen)}, allowed {_mib(allowed)}"
    )
    assert _counted(policy) <= allowed, said
    assert seen[-1] < 3 * allowed + 500e6, said
    return said


def memory_runs_out(device: str) -> str:
    """What does not fit is halved until it does, inside a capture too."""
    policy, total = policy_of(device), torch.cuda.get_device_properties(0).total_memory
    config = settings(device, samples_per_prompt=64, max_new_tokens=60)
    torch.cuda.set_per_process_memory_fraction((_reserved_at_rest() + MORE) / total)
    try:
        rollout = generate_rollout(policy, prompts_of(policy, 64), config, torch.Generator().manual_seed(0))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert torch.cuda.current_stream() == torch.cuda.default_stream(), "the side stream is still current"
    how = "by graphs" if policy.can_capture else "plainly"
    return f"{len(rollout.responses)} rows {how} with tokens_per_microbatch {policy.tokens_per_microbatch}"


def _sample_all(policy: Policy, first: int = 0, end: int | None = None) -> None:
    for count, limit in BUCKETS[first:end]:
        captured(policy, *inputs(policy, prompts_of(policy, count), limit))


def _counted(policy: Policy) -> int:
    return sum(buffers.bytes for buffers in policy.sampling_buffers.values())


def _reserved_at_rest() -> int:
    gc.collect()
    torch.cuda.empty_cache()
    return torch.cuda.memory_reserved()


def _mib(*sizes: float) -> str:
    return f"{', '.join(str(round(size / 2**20)) for size in sizes)} MiB"
