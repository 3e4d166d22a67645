"""Real steps of one setting in a process of their own, and what its memory grew by; one line of JSON."""

from __future__ import annotations

import ctypes
import gc
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSeq2SeqLM, GenerationConfig

from benchmarks.speed.models import write_tokenizer
from softspoken.config import EstimateConfig
from softspoken.estimating.architectures import config_of
from softspoken.models.cpu import tune_cpu
from softspoken.rl.loading import load_policy
from softspoken.rl.policy import Policy
from softspoken.rl.ppo import build_experience, update
from softspoken.rl.rollout import generate_rollout
from softspoken.types import Example, PromptBatch, Scores

PROMPT, RESPONSE, TEXTS, SAMPLES, ROWS = 256, 32, 4, 4, 8
"""Tokens of each prompt and response, texts a step, samples of each, responses in a micro-batch."""
STEPS = 2
"""AdamW's moments come with the first."""
MEGA = 1_000_000


@dataclass(frozen=True)
class Cell:
    model: str
    settings: dict[str, Any] = field(default_factory=dict)

    def estimating(self) -> EstimateConfig:
        return EstimateConfig(
            model=[self.model],
            device="cpu",
            max_prompt_tokens=PROMPT,
            max_new_tokens=RESPONSE,
            batch_size=TEXTS,
            samples_per_prompt=SAMPLES,
            micro_batch_size=ROWS,
            **self.settings,
        )


def main() -> None:
    cell = Cell(**json.loads(sys.argv[1]))
    with tempfile.TemporaryDirectory() as folder:
        # What libraries import and keep at their first model, step and product is not the model's.
        write_model(Path(folder, "little"), little(cell.model))
        steps(cell, f"{folder}/little")
        subprocess.run(
            [sys.executable, "-m", "benchmarks.memory.worker", "--write", cell.model, f"{folder}/whole"], check=True
        )
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # what was freed goes back, or the model would grow into it unseen
        if cell.settings.get("fast", True):
            tune_cpu()  # as `train` does
        before = kilobytes("VmRSS")
        policy = loaded(cell, f"{folder}/whole")
        after = kilobytes("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the most so far was while it was loaded
        steps(cell, f"{folder}/whole", policy)
        found = {"loaded": after - before, "measured": kilobytes("VmHWM") - before}
    print(json.dumps({name: round(1024 * size / MEGA) for name, size in found.items()}))


def little(name: str) -> Any:
    config = config_of(name)
    for setting in ("d_model", "d_ff", "encoder_ffn_dim", "decoder_ffn_dim"):
        if hasattr(config, setting):
            setattr(config, setting, 64)
    for setting in ("num_layers", "num_decoder_layers", "encoder_layers", "decoder_layers"):
        if hasattr(config, setting):
            setattr(config, setting, 1)
    for setting in ("num_heads", "encoder_attention_heads", "decoder_attention_heads"):
        if hasattr(config, setting):
            setattr(config, setting, 2)
    return config


def write_model(folder: Path, config: Any) -> None:
    """With random weights, and a tokenizer of T5's size."""
    torch.manual_seed(0)
    config.pad_token_id, config.eos_token_id, config.bos_token_id, config.decoder_start_token_id = 0, 1, 2, 0
    config.forced_eos_token_id = None
    model: Any = AutoModelForSeq2SeqLM.from_config(config)
    if getattr(config, "scale_decoder_outputs", None) is False:
        model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight) * config.d_model**-0.5)
    model.generation_config = GenerationConfig.from_model_config(config)
    model.save_pretrained(folder)
    write_tokenizer(folder)


def loaded(cell: Cell, folder: str) -> Policy:
    policy = load_policy(cell.estimating().training_of(folder))
    ends = torch.arange(len(policy.forbidden)) == policy.eos_id
    policy.forbid(policy.forbidden | ends)  # every response has its full length
    return policy


def steps(cell: Cell, folder: str, policy: Policy | None = None) -> None:
    policy = policy or loaded(cell, folder)
    config = cell.estimating().training_of(folder)
    optimizer = torch.optim.AdamW(policy.trainable().values(), lr=1e-5)
    for step in range(STEPS):
        rollout = generate_rollout(policy, prompts(), config, torch.Generator().manual_seed(step))
        scores = Scores(torch.linspace(0, 1, TEXTS * SAMPLES), {})
        experience = build_experience(rollout, scores, config, config.kl_coef)
        stats = update(policy, optimizer, experience, config, torch.Generator().manual_seed(step))
        assert stats.optimizer_steps


def prompts() -> PromptBatch:
    ids = torch.randint(10, 30_000, (TEXTS, PROMPT), generator=torch.Generator().manual_seed(0))
    return PromptBatch([Example(str(number), "synthetic") for number in range(TEXTS)], ids, torch.ones_like(ids))


def kilobytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    if sys.argv[1] == "--write":
        write_model(Path(sys.argv[3]), config_of(sys.argv[2]))
    else:
        main()
