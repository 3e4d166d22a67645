"""Where a run's numbers and weights go: trackers, folders, the hub."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from softspoken.trl.config import PPOConfig
from softspoken.types import InputError

CARD = """---
library_name: transformers
tags: [softspoken, ppo]
---

# {name}

Fine-tuned with PPO by `softspoken.trl`. To go on training, value head included:

```python
from softspoken.trl import AutoModelForSeq2SeqLMWithValueHead

model = AutoModelForSeq2SeqLMWithValueHead.from_pretrained("THIS FOLDER", is_trainable=True)
```
"""


def start_trackers(accelerator: Accelerator, config: PPOConfig) -> None:
    settings = config.to_dict()
    if config.log_with == "tensorboard":  # it takes nothing else
        settings = {name: value for name, value in settings.items() if isinstance(value, (int, float, str))}
    else:
        settings = {"trl_ppo_trainer_config": settings}
    accelerator.init_trackers(config.tracker_project_name, config=settings, init_kwargs=config.tracker_kwargs)


def step_logs(
    stats: dict[str, Any],
    batch: dict[str, Any],
    rewards: list[Tensor] | Tensor,
    columns: Iterable[str],
    tracker: str | None,
) -> dict[str, Any]:
    """A step's statistics with its rewards' and, for wandb, a table of its texts."""
    if not isinstance(rewards, Tensor):
        rewards = torch.tensor([float(reward) for reward in rewards])
    rewards = rewards.detach().float().cpu().flatten()
    logs = dict(stats)
    if tracker == "wandb":
        names = list(columns)
        missing = [name for name in names if name not in batch]
        if missing:
            raise InputError(f"columns_to_log names {missing[0]!r}, and the batch has {', '.join(batch)}")
        import wandb

        rows = [list(row) for row in zip(*(batch[name] for name in names), rewards.tolist(), strict=True)]
        logs["game_log"] = wandb.Table(columns=[*names, "reward"], rows=rows)
    logs["env/reward_mean"] = rewards.mean().item()
    logs["env/reward_std"] = rewards.std().item() if len(rewards) > 1 else 0.0
    logs["env/reward_dist"] = rewards.numpy()
    return logs


def write_card(folder: Path, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text(CARD.format(name=name), encoding="utf-8")


def push(thing: Any, repo_id: str, **options: Any) -> Any:
    """What `thing.save_pretrained` writes, as a commit to a hub repository, which is made if it is not there.

    `options` are those of push_to_hub in transformers and huggingface_hub.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=options.get("token"))
    repo = api.create_repo(repo_id, private=options.get("private"), exist_ok=True).repo_id
    with tempfile.TemporaryDirectory() as folder:
        thing.save_pretrained(folder)
        return api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            commit_message=options.get("commit_message") or "Upload a model trained with softspoken",
            revision=options.get("branch") or options.get("revision"),
            create_pr=options.get("create_pr"),
            allow_patterns=options.get("allow_patterns"),
            ignore_patterns=options.get("ignore_patterns"),
            delete_patterns=options.get("delete_patterns"),
        )
