"""A tiny policy, one rollout of it with scores made up for the purpose, and an optimizer: what an update starts from."""

import torch

from likely_end import with_likely_end
from softspoken.config import TrainConfig
from softspoken.data.prompts import encode_prompts
from softspoken.rl.loading import load_policy
from softspoken.rl.rollout import generate_rollout
from softspoken.types import Scores


def prepared(folder, dialogues, **changes):
    settings = {
        "max_new_tokens": 8,
        "samples_per_prompt": 2,
        "lora_r": 2,
        "adapter_scope": "all",
        "device": "cpu",
        "mini_batch_size": 8,
        "micro_batch_size": 8,
        "ppo_epochs": 1,
        "target_kl": None,
        "whiten_advantages": True,
        "kl_in": "reward",
    }
    config = TrainConfig(model=str(folder), **(settings | changes))
    policy = with_likely_end(load_policy(config))
    prompts = encode_prompts(dialogues, policy.tokenizer, policy.prompt_format)
    rollout = generate_rollout(policy, prompts, config, torch.Generator().manual_seed(0))
    total = torch.linspace(0, 1, len(rollout.responses))
    return policy, config, rollout, Scores(total, {"reward": total})


def optimizer_for(policy, learning_rate=1e-2):
    return torch.optim.AdamW(policy.trainable().values(), lr=learning_rate, weight_decay=0.0)
