"""What only a GPU can show: captured sampling, its memory, what happens when that runs out, and the same seed twice.

.venv/bin/python -m benchmarks.gpu          on a GPU: about a minute; one line a check, and exit status 1 if one failed
.venv/bin/python -m benchmarks.gpu --cpu    the same without captures and memory, to see that this script itself runs

The most important comes first, so that a run cut short has shown the most. Speed on a GPU is benchmarks.speed's.
"""

from __future__ import annotations

import argparse
import gc
import threading
import time
import traceback
from collections.abc import Callable

import torch
from torch import Tensor

from softspoken.config import TrainConfig
from softspoken.data.prompts import encode_prompts
from softspoken.data.reading import load_examples
from softspoken.rl import graphs, numerics, ppo
from softspoken.rl.loading import load_policy
from softspoken.rl.policy import Policy
from softspoken.rl.rollout import generate_rollout, sample_rows, teacher_forced
from softspoken.types import Memory, PromptBatch, Sampled, Scores

EXAMPLES = load_examples("mini", "train")[:64]
SAMPLES = 6
OFF = {"float32": 1e-3, "bfloat16": 0.3}
"""The most that log-probabilities may be apart, in nats."""
ALIKE = {"float32": 0.97, "bfloat16": 0.1}
"""The share of rows of which both ways sample the same tokens; the rest had a draw within rounding of two tokens' border."""
MORE = 1.2e9
"""Bytes that may be taken beyond what is held when memory is to run out."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", action="store_true", help="rehearse without a GPU")
    device = "cpu" if parser.parse_args().cpu else "cuda"
    checks = [(check, dtype) for dtype in OFF for check in (captured_sampling, replay_after_changes)]
    checks += [(check, "float32") for check in (hidden_waits, beside_another_thread, impossible_ids, same_seed)]
    if device == "cuda":
        checks += [(memory_kept, "float32"), (memory_runs_out, "float32")]
    checks.append((not_a_number, "float32"))  # last: a device-side assert would end CUDA for the process
    failed = [f"{check.__name__} {dtype}" for check, dtype in checks if not passes(check, device, dtype)]
    raise SystemExit(f"failed: {', '.join(failed)}" if failed else 0)


def passes(check: Callable[[str, str], str], device: str, dtype: str) -> bool:
    began = time.perf_counter()
    try:
        said, good = check(device, dtype), True
    except Exception as error:  # the checks after it may still show something
        traceback.print_exc()
        said, good = f"{type(error).__name__}: {str(error).splitlines()[0]}", False
    seconds = time.perf_counter() - began
    print("ok  " if good else "FAIL", f"{seconds:5.1f} s", check.__name__, dtype, "·", said, flush=True)
    return good


def captured_sampling(device: str, dtype: str) -> str:
    """A captured step samples what plain sampling does, and its record is what teacher forcing finds."""
    policy, config = policy_of(device, dtype), TrainConfig(device=device, dtype=dtype)
    same = share_alike(*both_ways(policy, *inputs(policy, 8)), dtype)
    rollout = generate_rollout(policy, prompts_of(policy, 8), config, torch.Generator().manual_seed(1))
    assert policy.sampling_buffers or device == "cpu", "generate_rollout did not go through graphs"
    apart = (teacher_forced(policy, rollout, config)[0] - rollout.old_logprobs).abs().max().item()
    assert apart < OFF[dtype], apart
    return f"rows alike {same:.2f}, teacher forcing apart {apart:.1e}, mismatch {rollout.mismatch}"


def replay_after_changes(device: str, dtype: str) -> str:
    """A replay reads the weights as an optimizer step and a reference pass left them, and nothing is captured anew."""
    policy = policy_of(device, dtype)
    given = inputs(policy, 8)
    both_ways(policy, *given)
    kept = list(policy.sampling_buffers.values())
    optimizer = torch.optim.AdamW(policy.trainable().values(), lr=1e-2)
    for weight in policy.trainable().values():
        weight.grad = torch.randn_like(weight)
    optimizer.step()
    with policy.reference():
        pass
    same = share_alike(*both_ways(policy, *given), dtype)
    assert list(policy.sampling_buffers.values()) == kept, "captured anew"
    return f"rows alike {same:.2f}"


@torch.no_grad()
def hidden_waits(device: str, dtype: str) -> str:
    """Nothing in a step waits for the device."""
    policy = policy_of(device)
    memory, index, uniforms = inputs(policy, 4)
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


def beside_another_thread(device: str, dtype: str) -> str:
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
        for limit in range(20, 30):
            both_ways(policy, *inputs(policy, 4, limit=limit))
    finally:
        stop.set()
        thread.join()
    return f"{len(policy.sampling_buffers)} graphs, {copies} copies"


def impossible_ids(device: str, dtype: str) -> str:
    """An id of probability 0 is never drawn from T5's vocabulary."""
    logits = torch.randn(4096 if device == "cuda" else 64, 32_128, device=device)
    logits[:, ::3] = float("-inf")
    uniforms = torch.rand(len(logits), device=device)
    uniforms[0], uniforms[1] = 1 - 2**-24, 0.0
    ids, logprobs = numerics.sample(logits, uniforms)
    assert torch.isfinite(logprobs).all()
    assert not (ids % 3 == 0).any()
    return f"none of {len(logits)}"


def same_seed(device: str, dtype: str) -> str:
    """How far apart the weights are after three steps of the same seed, twice."""
    ends = [_three_steps(device) for _ in range(2)]
    apart = (ends[0] - ends[1]).abs().max().item()
    assert apart == 0, f"weights apart by {apart:.1e}"
    return "bit for bit"


def _three_steps(device: str) -> Tensor:
    policy, config = policy_of(device), TrainConfig(device=device, ppo_epochs=2)
    optimizer = torch.optim.AdamW(policy.trainable().values(), lr=config.learning_rate, eps=config.adam_epsilon)
    for step in range(3):
        rollout = generate_rollout(policy, prompts_of(policy, 8), config, torch.Generator().manual_seed(step))
        scores = Scores(torch.tensor([len(text) / 100 for text in rollout.responses]), {})
        experience = ppo.build_experience(rollout, scores, config, config.kl_coef)
        ppo.update(policy, optimizer, experience, config, torch.Generator().manual_seed(step))
    return torch.cat([weight.detach().flatten() for weight in policy.trainable().values()])


def memory_kept(device: str, dtype: str) -> str:
    """Buffers of many shapes reach a plateau, and what is cleared comes back."""
    policy = policy_of(device)
    torch.cuda.empty_cache()
    before, seen = torch.cuda.memory_reserved(), []
    for _ in range(3):
        for count in range(2, 10):
            for limit in (20, 40):
                both_ways(policy, *inputs(policy, count, limit=limit))
        seen.append(torch.cuda.memory_reserved() - before)
    counted = sum(buffers.bytes for buffers in policy.sampling_buffers.values())
    policy.sampling_buffers.clear()
    gc.collect()
    torch.cuda.empty_cache()
    left = torch.cuda.memory_reserved() - before
    assert seen[2] <= seen[1] * 1.05, seen
    assert left < 300e6, left
    assert seen[2] < 3 * counted + 500e6, (seen, counted)
    return f"reserved {[size >> 20 for size in seen]} MiB, counted {counted >> 20} MiB, left {left >> 20} MiB"


def memory_runs_out(device: str, dtype: str) -> str:
    """What does not fit is halved until it does, inside a capture too."""
    policy, total = policy_of(device), torch.cuda.get_device_properties(0).total_memory
    config = TrainConfig(device=device, samples_per_prompt=64, max_new_tokens=60)
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + MORE) / total)
    try:
        rollout = generate_rollout(policy, prompts_of(policy, 64), config, torch.Generator().manual_seed(0))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert torch.cuda.current_stream() == torch.cuda.default_stream(), "the side stream is still current"
    return f"{len(rollout.responses)} rows with tokens_per_microbatch {policy.tokens_per_microbatch}"


def not_a_number(device: str, dtype: str) -> str:
    """Logits that are no numbers are sampled from without an assert on the device: the step that follows says what is wrong."""
    ids, _ = numerics.sample(torch.full((2, 50), float("nan"), device=device), torch.tensor([0.2, 0.7], device=device))
    return f"ids {ids.tolist()}"


# ------------------------------------------------------------------------------------------------------------ pieces


def policy_of(device: str, dtype: str = "float32") -> Policy:
    """The embedded model with an adapter that does something."""
    policy = load_policy(TrainConfig(device=device, dtype=dtype))  # type: ignore[arg-type]
    for name, weight in policy.adapter_parameters().items():
        if "lora_B" in name:
            weight.data.normal_(std=0.02)
    return policy


def prompts_of(policy: Policy, count: int) -> PromptBatch:
    return encode_prompts(EXAMPLES[:count], policy.tokenizer, policy.prompt_format)


@torch.no_grad()
def inputs(policy: Policy, count: int, limit: int = 40) -> tuple[Memory, Tensor, Tensor]:
    prompts = prompts_of(policy, count)
    memory = policy.read(prompts.input_ids.to(policy.device), prompts.attention_mask.to(policy.device), 8)
    index = torch.arange(count, device=policy.device).repeat_interleave(SAMPLES)
    uniforms = torch.rand((len(index), limit), generator=torch.Generator().manual_seed(0))
    return memory, index, uniforms.to(policy.device)


@torch.no_grad()
def both_ways(policy: Policy, memory: Memory, index: Tensor, uniforms: Tensor) -> tuple[Sampled, Sampled]:
    captured = graphs.sample(policy, memory, index, uniforms, 1.0, capture=policy.device.type == "cuda")
    return sample_rows(policy, memory, index, uniforms, 1.0), captured


def share_alike(plain: Sampled, captured: Sampled, dtype: str) -> float:
    same = plain[0].shape == captured[0].shape and (plain[0] == captured[0]).all(dim=1).float().mean().item()
    assert same > ALIKE[dtype], f"only {same:.2f} of the rows are the same"
    return same


if __name__ == "__main__":
    main()
