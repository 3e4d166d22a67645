"""softspoken's side: the steps of its training loop, timed one by one. Run by rounds.py."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

import softspoken.rl.rollout
from benchmarks.speed.cells import LEARNING_RATE, LORA_RANK, MICRO_BATCH_TOKENS, Cell, prompt_ids
from benchmarks.speed.timing import EncoderCount, Laps, Step, measured
from benchmarks.workers import serve
from softspoken.config import TrainConfig
from softspoken.models.cpu import tune_cpu
from softspoken.rl.loading import load_policy
from softspoken.rl.policy import Policy
from softspoken.rl.ppo import build_experience, update
from softspoken.rl.rollout import generate_rollout
from softspoken.training.start import optimizer_of
from softspoken.types import Example, PromptBatch, Scores


def config_of(cell: Cell, folder: str) -> TrainConfig:
    return TrainConfig(
        model=folder,
        batch_size=cell.batch,
        samples_per_prompt=1,
        max_new_tokens=cell.new_tokens,
        ppo_epochs=cell.epochs,
        mini_batch_size=cell.mini_batch,
        micro_batch_size=cell.micro_batch,
        tokens_per_microbatch=MICRO_BATCH_TOKENS if cell.device == "cpu" and cell.scope == "all" else None,
        target_kl=None,  # every epoch is run
        learning_rate=LEARNING_RATE,
        lora_r=LORA_RANK,
        lora_alpha=2 * LORA_RANK,
        adapter_scope=cell.scope,
        device=cell.device,
        dtype=cell.dtype,
    )


def prompts_of(cell: Cell) -> PromptBatch:
    rows = prompt_ids(cell)
    width = max(len(row) for row in rows)
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return PromptBatch([Example(str(number), "synthetic") for number in range(cell.batch)], ids, mask)


def prepare(cell: Cell, folder: str) -> Step:
    config, prompts = config_of(cell, folder), prompts_of(cell)
    tune_cpu()  # as `train` does
    policy = load_policy(config)
    ends = torch.arange(len(policy.forbidden), device=policy.device) == policy.eos_id
    policy.forbid(policy.forbidden | ends)  # every summary has its full length: the work is the same each time
    count = EncoderCount(policy.seq2seq.get_encoder())
    if cell.side == "transformers":
        return lambda number, brief: _generate(policy, prompts, cell, brief) | count.take()
    optimizer, _ = optimizer_of(policy, config)
    reference = _timed_reference(cell.device)

    def step(number: int, brief: bool) -> dict[str, Any]:
        settings = replace(config, ppo_epochs=1, max_new_tokens=4) if brief else config
        draws, order = (torch.Generator().manual_seed(2 * number + purpose) for purpose in (0, 1))
        clock = Laps(cell.device)
        rollout = generate_rollout(policy, prompts, settings, draws)
        clock.lap("sample")
        scores = Scores(torch.linspace(0, 1, cell.batch, device=policy.device), {})
        experience = build_experience(rollout, scores, settings, settings.kl_coef)
        clock.lap("score")
        stats = update(policy, optimizer, experience, settings, order)
        clock.lap("update")
        tokens = int(rollout.response_mask.sum())
        assert stats.skipped == 0, "a skipped update is less work"
        assert tokens == cell.batch * settings.max_new_tokens, "a shorter summary is less work"
        phases = clock.laps | {"sample": clock.laps["sample"] - reference["seconds"], "reference": reference["seconds"]}
        return {"seconds": clock.seconds(), "phases": phases, "generated_tokens": tokens, **count.take()}

    return step


def _timed_reference(device: str) -> dict[str, float]:
    """Time the reference pass, which is part of generate_rollout, by itself: the last one's seconds."""
    plain, last = softspoken.rl.rollout.reference_logprobs, {"seconds": 0.0}

    def timed(*args: Any) -> torch.Tensor:
        clock = Laps(device)
        result = plain(*args)
        clock.lap("reference")
        last["seconds"] = clock.seconds()
        return result

    softspoken.rl.rollout.reference_logprobs = timed  # type: ignore[assignment]
    return last


@torch.no_grad()
def _generate(policy: Policy, prompts: PromptBatch, cell: Cell, brief: bool) -> dict[str, Any]:
    """transformers' own eager generate, on the same model with the same adapter."""
    new_tokens = 4 if brief else cell.new_tokens
    clock = Laps(cell.device)
    ids = policy.seq2seq.generate(
        input_ids=prompts.input_ids.to(policy.device),
        attention_mask=prompts.attention_mask.to(policy.device),
        do_sample=True,
        top_k=0,
        max_new_tokens=new_tokens,
        suppress_tokens=[policy.pad_id, policy.eos_id],
    )
    clock.lap("sample")
    assert ids.shape == (cell.batch, new_tokens + 1)
    return {"seconds": clock.seconds(), "phases": clock.laps, "generated_tokens": cell.batch * new_tokens}


if __name__ == "__main__":
    serve(measured(prepare), "softspoken")
