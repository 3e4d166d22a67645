"""A rollout whose every number is given, and what an update reads of a policy, without a model: for sums done by hand."""

from types import SimpleNamespace

import torch

from softspoken.config import TrainConfig
from softspoken.types import Example, Experience, PromptBatch, Rollout, Scores


def made_rollout(lengths, *, index=None, logratio=0.0, old=-1.0, values=0.0, truncated=()):
    """`lengths`: sampled tokens of each row; `index`: each row's prompt (one each by itself). Token t of every row is id 10 + t.

    `old` and `values` are of every token, and the reference's log-probabilities lie `logratio` below `old`.
    """
    rows, width = len(lengths), max(lengths)
    index = list(range(rows)) if index is None else index
    prompts = max(index) + 1
    mask = torch.arange(width) < torch.tensor(lengths)[:, None]
    return Rollout(
        prompts=PromptBatch(
            [Example(str(place), f"Nora: {place}") for place in range(prompts)],
            torch.ones((prompts, 2), dtype=torch.long),
            torch.ones((prompts, 2), dtype=torch.long),
        ),
        prompt_index=torch.tensor(index),
        responses=[f"response {row}" for row in range(rows)],
        response_ids=(torch.arange(width) + 10).expand(rows, width) * mask,
        response_mask=mask,
        truncated=torch.tensor([row in truncated for row in range(rows)]),
        old_logprobs=old * mask,
        ref_logprobs=(old - logratio) * mask,
        old_values=values * mask,
    )


def made_config(**changes) -> TrainConfig:
    """Plain settings: nothing whitened, no penalty, one pass over all rows."""
    settings = {
        "ppo_epochs": 1,
        "mini_batch_size": 8,
        "micro_batch_size": 8,
        "target_kl": None,
        "whiten_advantages": False,
        "sibling_baseline": False,
        "gae_lambda": 1.0,
        "kl_in": "reward",
        "kl_coef": 0.0,
    }
    return TrainConfig(**(settings | changes))


def made_experience(rollout: Rollout, *, advantages=1.0, returns=0.0, kl_coef=0.0) -> Experience:
    """`advantages` and `returns` are numbers, of every token, or [N, T]."""
    mask, total = rollout.response_mask, torch.zeros(len(rollout.responses))
    return Experience(rollout, Scores(total, {}), mask * 0.0, mask * advantages, mask * returns, kl_coef)


def made_policy(**weights: torch.nn.Parameter) -> SimpleNamespace:
    """What `optimise` reads of a policy: its weights by name, and where it runs."""
    return SimpleNamespace(
        trainable=lambda: weights,
        adapter_parameters=lambda: {name: w for name, w in weights.items() if not name.startswith("value_head")},
        value_head=SimpleNamespace(
            parameters=lambda: [w for name, w in weights.items() if name.startswith("value_head")]
        ),
        device=torch.device("cpu"),
        tokens_per_microbatch=None,
        sharded=False,
        can_capture=False,
        let_go=lambda: False,
    )
