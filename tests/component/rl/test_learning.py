"""Each algorithm and each form of the loss, in a loop on a tiny T5: what it is rewarded for comes to pass."""

import pytest
import torch

from one_rollout import optimizer_for, prepared
from softspoken.rl.rollout import generate_rollout
from softspoken.train import ALGORITHMS
from softspoken.types import Scores

LEARNING = {
    "best_of_n": {"algorithm": "best_of_n"},
    "dpo": {"algorithm": "dpo", "kl_coef": 0.1, "kl_in": "loss"},
    "cispo": {"algorithm": "rloo", "surrogate": "cispo", "clip_range_high": 4.0, "ppo_epochs": 2},
    "gspo": {"algorithm": "grpo", "importance_ratio": "sequence", "clip_range": 0.05, "loss_normalization": "sequence", "ppo_epochs": 2},
    "dr_grpo": {"algorithm": "rloo", "loss_normalization": "constant"},
    "dapo": {"algorithm": "grpo", "clip_range_high": 0.28, "dual_clip": 3.0, "ppo_epochs": 2},
}  # fmt: skip


WORDS = range(20, 26)
"""The ids that there are, beside the end."""


@pytest.mark.parametrize("settings", LEARNING.values(), ids=LEARNING)
def test_a_policy_that_is_rewarded_for_a_word_says_it_more_often(tiny_t5, dialogues, settings):
    """Of six words the first is what is wanted, which is seldom said at first."""
    changes = {"samples_per_prompt": 6, "mini_batch_size": 24, "micro_batch_size": 24, "adapter_scope": "decoder"}
    policy, config, rollout, _ = prepared(tiny_t5, dialogues, **(changes | settings))
    allowed = torch.zeros_like(policy.forbidden)
    allowed[[*WORDS, policy.eos_id]] = True
    policy.forbid(~allowed)
    algorithm, optimizer = ALGORITHMS[config.algorithm], optimizer_for(policy, 5e-2)
    shares = []
    for step in range(8):
        rollout = generate_rollout(policy, rollout.prompts, config, torch.Generator().manual_seed(step))
        wanted = ((rollout.response_ids == WORDS[0]) & rollout.response_mask).sum(dim=1)
        scores = wanted / rollout.response_mask.sum(dim=1)
        shares.append(scores.mean().item())
        experience = algorithm.build_experience(rollout, Scores(scores, {}), config, config.kl_coef)
        algorithm.update(policy, optimizer, experience, config, torch.Generator().manual_seed(step))
    assert shares[0] < 0.1
    assert shares[-1] > 0.35
