"""TRL 0.11's PPOConfig, field by field, and the switches of what softspoken.trl does otherwise (docs/migrating.md)."""

from __future__ import annotations

import functools
import inspect
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from math import ceil, isfinite
from pathlib import Path
from typing import Any

from softspoken.config import TrainConfig
from softspoken.trl import newer
from softspoken.trl.newer import refuse_newer_names
from softspoken.types import InputError

UNCORRECTED: Mapping[str, bool] = {
    "train_first_token": False,
    "align_responses": False,
    "strip_query_padding": False,
    "mask_unused_ids": False,
    "padding_in_advantages": True,
    "reference_from_start": False,
    "keep_last_batch": False,
    "skip_whole_update": False,
}
"""`PPOConfig(**UNCORRECTED, ...)` computes what TRL 0.11.4 did, its mistakes with it; to compare old numbers with new."""

KL_PENALTIES = ("kl", "abs", "mse", "full")


@dataclass
class PPOConfig:
    """TRL's names and defaults. Settings of the same meaning in `softspoken.TrainConfig` are listed in docs/migrating.md."""

    exp_name: str = field(default_factory=lambda: Path(sys.argv[0]).stem)
    """name of the experiment, for tracking"""
    seed: int = 0
    """of torch, numpy and random, set when the trainer is made"""
    log_with: str | None = None
    """tracker that `log_stats` writes to: wandb, tensorboard, or another that accelerate knows"""
    task_name: str | None = None
    """for tracking only"""
    model_name: str = "gpt2"
    """for tracking only"""
    query_dataset: str = "stanfordnlp/imdb"
    """for tracking only"""
    reward_model: str = "sentiment-analysis:lvwerra/distilbert-imdb"
    """for tracking only"""
    remove_unused_columns: bool = True
    """keep only the dataset's columns input_ids, attention_mask, label, query and response"""
    tracker_kwargs: dict = field(default_factory=dict)
    """for the tracker, by its name"""
    accelerator_kwargs: dict = field(default_factory=dict)
    """for accelerate.Accelerator"""
    project_kwargs: dict = field(default_factory=dict)
    """for accelerate's ProjectConfiguration, such as logging_dir"""
    tracker_project_name: str = "trl"
    """the tracker's project"""
    push_to_hub_if_best_kwargs: dict = field(default_factory=dict)
    """where to push a model whose mean score is the best so far; needs repo_id"""
    steps: int = 20_000
    """samples in all; sets total_ppo_epochs, no more"""
    learning_rate: float = 1.41e-5
    """of the default optimizer, Adam"""
    adap_kl_ctrl: bool = True
    """steer the KL weight towards `target`; otherwise it stays at init_kl_coef"""
    init_kl_coef: float = 0.2
    """weight of the KL penalty, at first"""
    kl_penalty: str = "kl"
    """kl: log ratio; abs: its absolute value; mse: half its square; full: the exact KL over the vocabulary"""
    target: float = 6.0
    """KL that adaptive control steers towards, in nats a response"""
    horizon: float = 10_000.0
    """samples over which adaptive control acts"""
    gamma: float = 1.0
    """discount a token"""
    lam: float = 0.95
    """GAE's lambda"""
    cliprange: float = 0.2
    """the policy ratio's clipping range"""
    cliprange_value: float = 0.2
    """the value estimate's clipping range"""
    vf_coef: float = 0.1
    """weight of the value loss"""
    batch_size: int = 128
    """responses that `step` takes"""
    forward_batch_size: int | None = None
    """older name of mini_batch_size"""
    mini_batch_size: int = 128
    """responses in one forward and backward pass"""
    gradient_accumulation_steps: int = 1
    """mini-batches for each optimizer step"""
    world_size: int | None = None
    """filled in by the trainer"""
    ppo_epochs: int = 4
    """passes over the responses of a step"""
    max_grad_norm: float | None = None
    """gradients are scaled down to this norm"""
    optimize_cuda_cache: bool | None = None
    """older name of optimize_device_cache"""
    optimize_device_cache: bool = False
    """give the device's cached memory back after each step"""
    early_stopping: bool = False
    """end a step's update when the policy has moved by more than 1.5 x target_kl"""
    target_kl: float = 1.0
    """for early_stopping, in nats a token"""
    compare_steps: int = 1
    """steps between comparisons with the best mean score (push_to_hub_if_best_kwargs)"""
    ratio_threshold: float = 10.0
    """a mini-batch whose mean probability ratio is above this is skipped, counted and reported"""
    use_score_scaling: bool = False
    """divide scores by their running standard deviation"""
    use_score_norm: bool = False
    """with use_score_scaling: take off their running mean first"""
    score_clip: float | None = None
    """clip scores to plus or minus this"""
    whiten_rewards: bool = False
    """scale token rewards to variance 1 over the tokens of a step"""
    gradient_checkpointing: bool = False
    """trade time for memory in the backward pass"""
    is_encoder_decoder: bool | None = None
    """filled in by the trainer"""
    is_peft_model: bool | None = None
    """filled in by the trainer"""
    backward_batch_size: int | None = None
    """filled in: mini_batch_size x gradient_accumulation_steps"""
    global_backward_batch_size: int | None = None
    """filled in by the trainer"""
    global_batch_size: int | None = None
    """filled in by the trainer"""
    dataset_num_proc: int | None = None
    """accepted, and without effect, as in TRL's PPOTrainer"""

    train_first_token: bool = True
    """the first generated token is part of the update (TRL masks it out)"""
    align_responses: bool = True
    """responses are read from the decoder-start token, whether they hold it or not, through the first EOS"""
    strip_query_padding: bool = True
    """padding in a query, on either side, is not read as text"""
    mask_unused_ids: bool = True
    """padding and ids that no token has get no probability"""
    padding_in_advantages: bool = False
    """masked positions take part in the advantages of others, with reward and value 0 (as in TRL)"""
    reference_from_start: bool = True
    """the reference is the given ref_model, or else the model as the trainer got it; false: a PEFT model with no adapter"""
    keep_last_batch: bool = True
    """the dataloader's last batch is kept, and `step` takes it, though it is smaller than batch_size"""
    skip_whole_update: bool = True
    """an update whose mini-batches are all skipped leaves the optimizer alone (TRL lets its momentum move the weights)"""

    def __post_init__(self) -> None:
        if self.forward_batch_size is not None:
            self.mini_batch_size = self.forward_batch_size
        if self.optimize_cuda_cache is not None:
            self.optimize_device_cache = self.optimize_cuda_cache
        if "logging_dir" in self.accelerator_kwargs:  # where accelerate took it when TRL was at 0.4
            folder = {"logging_dir": self.accelerator_kwargs["logging_dir"]}
            self.project_kwargs = folder | self.project_kwargs
            self.accelerator_kwargs = {k: v for k, v in self.accelerator_kwargs.items() if k not in folder}
        for name, value in vars(self).items():
            if isinstance(value, float) and not isfinite(value):
                raise InputError(f"PPOConfig.{name} {value} cannot be used: give a finite number")
        for name in ("batch_size", "mini_batch_size", "gradient_accumulation_steps", "ppo_epochs", "compare_steps"):
            if getattr(self, name) < 1:
                raise InputError(f"PPOConfig.{name} {getattr(self, name)} cannot be used: give 1 or more")
        if self.mini_batch_size == 128 and self.batch_size % (128 * self.gradient_accumulation_steps):
            # No TRL took this with 128: the notebook leaves the size to a TRL of which the default was another.
            self.mini_batch_size = 1
            warnings.warn(
                f"mini_batch_size is 1, the default of TRL 0.4 to 0.7, as batch_size {self.batch_size} is not a multiple of 128, the "
                f"default of later ones; say PPOConfig(mini_batch_size=...): a larger one is faster",
                stacklevel=3,
            )
        self.backward_batch_size = self.mini_batch_size * self.gradient_accumulation_steps
        if self.batch_size % self.backward_batch_size:
            raise InputError(
                f"PPOConfig.batch_size {self.batch_size} is not a multiple of mini_batch_size x gradient_accumulation_steps, "
                f"{self.mini_batch_size} x {self.gradient_accumulation_steps}; change one of them"
            )
        if self.kl_penalty not in KL_PENALTIES:
            raise InputError(
                f"PPOConfig.kl_penalty {self.kl_penalty!r} is not known: give one of {', '.join(KL_PENALTIES)}"
            )
        if self.log_with == "wandb" and find_spec("wandb") is None:
            raise InputError("PPOConfig.log_with 'wandb' needs that package; pip install 'softspoken[track]'")
        if self.push_to_hub_if_best_kwargs and "repo_id" not in self.push_to_hub_if_best_kwargs:
            raise InputError("PPOConfig.push_to_hub_if_best_kwargs has no repo_id; say where to push to")
        self.total_ppo_epochs = ceil(self.steps / self.batch_size)

    def to_dict(self) -> dict[str, Any]:
        """Every setting by name; those of a nested one joined by "/"."""
        return _flat(vars(self))


def _explaining(init: Callable[..., None]) -> Callable[..., None]:
    """PPOConfig's own __init__, which says what has become of a keyword that it does not know."""
    known = inspect.signature(init).parameters

    @functools.wraps(init)
    def explained(self: PPOConfig, *given: Any, **named: Any) -> None:
        refuse_newer_names("PPOConfig", {name: named[name] for name in named if name not in known}, newer.CONFIG)
        init(self, *given, **named)

    return explained


PPOConfig.__init__ = _explaining(PPOConfig.__init__)  # type: ignore[method-assign]


def native_config(config: PPOConfig) -> TrainConfig:
    """What softspoken's own parts read of it, in their names. TRL scores at temperature 1 and trains all by the value loss."""
    return TrainConfig(
        micro_batch_size=config.mini_batch_size,
        temperature=1.0,
        value_head_detached=False,
        kl_controller="adaptive" if config.adap_kl_ctrl else "fixed",
        kl_target=config.target,
        kl_horizon=round(config.horizon),
    )


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}/") if isinstance(value, Mapping) else {prefix + name: value}
    return flat
