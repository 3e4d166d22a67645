"""The names of TRL ≤ 0.11 for encoder–decoder models, over softspoken's own parts: notebooks run with one import changed.

What is computed otherwise than by TRL, why, and how to switch it back, is in docs/migrating.md.
"""

from softspoken.trl.config import UNCORRECTED, PPOConfig
from softspoken.trl.core import LengthSampler, respond_to_batch, set_seed
from softspoken.trl.models import (
    AutoModelForCausalLMWithValueHead,
    AutoModelForSeq2SeqLMWithValueHead,
    PreTrainedModelWrapper,
    ValueHead,
    create_reference_model,
)
from softspoken.trl.trainer import PPOTrainer

__all__ = [
    "UNCORRECTED",
    "AutoModelForCausalLMWithValueHead",
    "AutoModelForSeq2SeqLMWithValueHead",
    "LengthSampler",
    "PPOConfig",
    "PPOTrainer",
    "PreTrainedModelWrapper",
    "ValueHead",
    "create_reference_model",
    "respond_to_batch",
    "set_seed",
]
