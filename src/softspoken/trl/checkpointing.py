"""Gradient checkpointing with dropout off: a layer's activations are computed again in the backward pass, not kept."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer


def checkpoint_layers(model: nn.Module) -> None:
    """transformers' own switch works in training mode alone, where dropout is on, and `step` scores without dropout."""
    for layer in _layers(model):
        if "forward" not in vars(layer):
            layer.forward = partial(_again, layer.forward)


def keep_activations(model: nn.Module) -> None:
    """Undo checkpoint_layers."""
    for layer in _layers(model):
        vars(layer).pop("forward", None)


def is_checkpointed(model: nn.Module) -> bool:
    """By checkpoint_layers, or as transformers has it."""
    return any("forward" in vars(layer) or layer.gradient_checkpointing for layer in _layers(model))


def _layers(model: nn.Module) -> list[GradientCheckpointingLayer]:
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


def _again(forward: Callable[..., Any], *given: Any, **named: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*given, **named)
    return checkpoint(forward, *given, use_reentrant=False, **named)
