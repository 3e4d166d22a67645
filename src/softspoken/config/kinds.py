"""Kinds of settings that several commands share, and the check they all use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from softspoken.types import InputError

if TYPE_CHECKING:  # in Python, rows can be given as they are; flags and YAML name them
    from collections.abc import Mapping, Sequence

    from datasets import Dataset, DatasetDict

    Data: TypeAlias = str | Sequence[Mapping[str, Any]] | Dataset | DatasetDict
else:
    Data = str
OnBadRow = Literal["error", "skip"]
Side = Literal["left", "right"]
Device = Literal["auto", "cpu", "cuda", "mps"]
Quantization = Literal["8bit", "4bit"]
TRACKERS = {"tensorboard": "tensorboard", "wandb": "wandb", "trackio": "trackio", "mlflow": "mlflow-skinny"}
"""What a run can report to, and the package that brings it."""
Engine = Literal["auto", "ctranslate2", "torch"]
KlEstimator = Literal["k1", "k2", "k3", "k3_unweighted"]


def require_config(config: Any, kind: type, function: str) -> None:
    """Raises InputError where a function that takes a configuration was given something else."""
    if not isinstance(config, kind):
        raise InputError(
            f"{function} takes a {kind.__name__}, not a {type(config).__name__}; make one with softspoken.{kind.__name__}(…)"
        )


def check(condition: bool, config: Any, field: str, remedy: str) -> None:
    """Raise InputError that names the field, its value and the remedy, unless the condition holds."""
    if not condition:
        raise InputError(f"{field} {getattr(config, field)!r} cannot be used: {remedy}")
