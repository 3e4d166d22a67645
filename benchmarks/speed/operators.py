"""Where an update's time goes, by operator, and how fast one thread multiplies by the libraries that there are.

    python -m benchmarks.speed.operators            a minute or two on a CPU; writes results/operators.json; the page has it

Products are measured beside each other in one process, by CPU time and the least of several, so that others on the machine disturb little:
MKL's (what torch takes for float32), oneDNN's in float32 with its weights packed once, and oneDNN's in bfloat16.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.provenance import commit, describe_machine
from benchmarks.speed.models import model_folder
from softspoken.config import TrainConfig
from softspoken.models.cpu import tune_cpu
from softspoken.rl.loading import load_policy
from softspoken.rl.ppo import build_experience, update
from softspoken.rl.rollout import generate_rollout
from softspoken.types import Example, PromptBatch, Scores

RESULTS = Path(__file__).parent / "results" / "operators.json"
PRODUCTS = {
    "flan-t5-small, feed-forward": (512, 1024),
    "flan-t5-base, feed-forward": (768, 2048),
    "mini's width": (256, 1024),
}
"""Inputs and outputs."""
ROWS = (8, 48, 256)
TRIES = 10
PROMPTS, TOKENS, NEW_TOKENS = 8, 128, 40


def main() -> None:
    torch.set_num_threads(1)
    tune_cpu()
    found = {"commit": commit(), "machine": describe_machine(1, "cpu"), "products": products(), "update": operators()}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


@torch.no_grad()
def products() -> list[dict[str, Any]]:
    """Microseconds of each."""
    rows = []
    for name, (inner, outer) in PRODUCTS.items():
        weight = torch.randn(outer, inner)
        for count in ROWS:
            states, halves = torch.randn(count, inner), weight.bfloat16()
            packed = torch.ops.mkldnn._reorder_linear_weight(weight, count)
            packed_halves = torch.ops.mkldnn._reorder_linear_weight(halves, count)
            ways = {
                "mkl": lambda states=states, weight=weight: torch.nn.functional.linear(states, weight),
                "onednn": lambda states=states, packed=packed: _onednn(states, packed),
                "bfloat16": lambda states=states, packed=packed_halves: _onednn(states.bfloat16(), packed).float(),
            }
            rows.append({"of": name, "rows": count, **{way: round(1e6 * least) for way, least in _least(ways).items()}})
    return rows


def _onednn(states: torch.Tensor, packed: torch.Tensor) -> torch.Tensor:
    made: torch.Tensor = torch.ops.mkldnn._linear_pointwise(states, packed, None, "none", [], "")
    return made


def _least(ways: dict[str, Any]) -> dict[str, float]:
    least = dict.fromkeys(ways, float("inf"))
    for _ in range(TRIES):
        for name, way in ways.items():  # in turn, so that what else runs here hits all alike
            began = time.process_time()
            for _ in range(5):
                way()
            least[name] = min(least[name], (time.process_time() - began) / 5)
    return least


def operators() -> dict[str, Any]:
    """Shares of an update's CPU time by operator: flan-t5-small's shape, the adapter in the decoder."""
    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig(
            model=str(model_folder(Path(folder), "flan-t5-small")),
            samples_per_prompt=3,
            max_new_tokens=NEW_TOKENS,
            device="cpu",
        )
        policy = load_policy(config)
    policy.forbid(policy.forbidden | (torch.arange(len(policy.forbidden)) == policy.eos_id))
    optimizer = torch.optim.AdamW(policy.trainable().values(), lr=1e-4)
    ids = torch.randint(10, 30_000, (PROMPTS, TOKENS), generator=torch.Generator().manual_seed(0))
    prompts = PromptBatch([Example(str(number), "synthetic") for number in range(PROMPTS)], ids, torch.ones_like(ids))
    rollout = generate_rollout(policy, prompts, config, torch.Generator().manual_seed(0))
    experience = build_experience(rollout, Scores(torch.linspace(0, 1, 24), {}), config, config.kl_coef)
    update(policy, optimizer, experience, config, torch.Generator().manual_seed(0))
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        update(policy, optimizer, experience, config, torch.Generator().manual_seed(0))
    each = sorted(profiled.key_averages(), key=lambda event: -event.self_cpu_time_total)
    whole = sum(event.self_cpu_time_total for event in each)
    shares = {event.key: round(event.self_cpu_time_total / whole, 3) for event in each[:12]}
    return {"shares": shares}


if __name__ == "__main__":
    main()
