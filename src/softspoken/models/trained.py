"""What is trained of a model: a fresh adapter (LoRA, IA³, whatever PEFT has), the last layers, or all weights."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import Tensor, nn

from softspoken.config.trained import WhatTrains
from softspoken.models.adapters import quiet_peft
from softspoken.models.cpu import can_multiply
from softspoken.models.families import text_parts
from softspoken.types import InputError, first_line

log = logging.getLogger(__name__)

QUERY_VALUE = [["q", "v"], ["q_proj", "v_proj"], ["query", "value"]]
KEY_VALUE = [["k", "v"], ["k_proj", "v_proj"], ["key", "value"]]
FEED_FORWARD = ("wo", "fc2", "down_proj")
"""What leaves a feed-forward layer, of which IA³ scales what goes in: T5's, BART's and kin, T5Gemma's."""
ALL_LINEAR = ["all-linear"]
LORA = "LORA"
AT_THE_BASE = (True, "gaussian", "orthogonal", "mica")
"""Initializations of LoRA that change nothing before the first step and leave the base as it is. PiSSA, OLoRA, LoftQ and CorDA move weights
from the base into the adapter; EVA and LoRA-GA look at data first and, where PEFT has none, are others in silence."""


def prepared(model: Any, config: WhatTrains) -> Any:
    """`model` with what is to train of it requiring a gradient, and nothing else; with an adapter a PeftModel."""
    if config.trained == "full":
        train_all(model)
        return model
    if config.trained == "last_layers":
        train_last_layers(model, config.last_layers, scope=config.adapter_scope)
        return model
    if isinstance(config.peft_config, dict):
        return add_from(model, config.peft_config, scope=config.adapter_scope)
    if config.trained == "ia3":
        return add_ia3(model, targets=config.lora_targets, scope=config.adapter_scope)
    return add_lora(
        model,
        r=config.lora_r,
        alpha=config.lora_alpha,
        targets=config.lora_targets,
        scope=config.adapter_scope,
        dropout=config.lora_dropout,
        rank_stabilized=config.use_rslora,
        dora=config.use_dora,
    )


def add_lora(
    model: Any,
    *,
    r: int,
    alpha: int,
    targets: list[str] | None,
    scope: str = "all",
    dropout: float = 0.0,
    rank_stabilized: bool = False,
    dora: bool = False,
) -> Any:
    """A fresh LoRA adapter on the named modules (by default the family's query and value projections) of the `scope`.

    `rank_stabilized` (Kalajdzievski 2023) scales by alpha / √r in place of alpha / r; `dora` (Liu et al. 2024) learns each
    weight's length and direction apart.
    """
    from peft import LoraConfig

    where = _places(model, _targets(model, targets, QUERY_VALUE), scope)
    return add_adapter(
        model,
        LoraConfig(
            r=r, lora_alpha=alpha, target_modules=where, lora_dropout=dropout, use_rslora=rank_stabilized, use_dora=dora
        ),
    )


def add_ia3(model: Any, *, targets: list[str] | None, scope: str) -> Any:
    """Fresh IA³ factors (Liu et al. 2022), by default on keys, values and what goes into the feed-forward layers' output."""
    from peft import IA3Config

    chosen = _targets(model, targets, KEY_VALUE)
    if not targets:
        chosen = [*chosen, *(name for name in FEED_FORWARD if name in _linear_names(model))]
    inward = [name for name in chosen if name in FEED_FORWARD]
    return add_adapter(model, IA3Config(target_modules=_places(model, chosen, scope), feedforward_modules=inward))


def add_from(model: Any, settings: Mapping[str, Any], *, scope: str) -> Any:
    """A fresh adapter by PEFT's own settings, of which one is `peft_type`; where they do not say which modules, the family's query
    and value projections of the `scope`. Raises InputError for what PEFT does not take or cannot be trained here."""
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
    from peft.utils import PeftType

    named = str(settings.get("peft_type", LORA)).upper()
    if named == "ADALORA":
        raise InputError(
            "peft_config: AdaLoRA shares its ranks out by the gradients of a loss that stays the same, which a reward's does not; "
            "give peft_type LORA, with the rank you can afford"
        )
    kind = getattr(PeftType, named, None)
    if kind not in PEFT_TYPE_TO_CONFIG_MAPPING:
        known = ", ".join(sorted(member.value for member in PEFT_TYPE_TO_CONFIG_MAPPING))
        raise InputError(f"peft_config: there is no peft_type {settings.get('peft_type')!r}; PEFT has {known}")
    if settings.get("bias", "none") != "none":
        raise InputError("peft_config: bias trains the base's own biases, so that no reference is left; give none")
    if (init := settings.get("init_lora_weights", True)) not in AT_THE_BASE:
        raise InputError(
            f"peft_config: init_lora_weights {init!r} takes its start out of the base's weights, or out of data, so that the base is no "
            "reference to it; give gaussian, orthogonal or mica, or leave it out"
        )
    given = {name: value for name, value in settings.items() if name != "peft_type"}
    known_fields = PEFT_TYPE_TO_CONFIG_MAPPING[kind].__dataclass_fields__
    if "target_modules" in known_fields:
        targets = given.get("target_modules")
        if targets in (None, "all-linear", ALL_LINEAR):
            given["target_modules"] = _places(model, _targets(model, targets and ALL_LINEAR, QUERY_VALUE), scope)
    for name in given:
        if name not in known_fields:
            raise InputError(f"peft_config: {named} has no setting {name!r}; PEFT's documentation lists those it has")
    try:
        config = PEFT_TYPE_TO_CONFIG_MAPPING[kind](**given)
        if config.is_prompt_learning or config.is_adaption_prompt:
            raise ValueError("it learns a prompt or prefix, which cannot be sampled from")
        return add_adapter(model, config)
    except (InputError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # each of PEFT's forty kinds has its own ways of saying no
        raise InputError(
            f"peft_config: PEFT cannot put {named} on this model ({first_line(error)[:200]}); change the settings, or give LORA"
        ) from error


def add_adapter(model: Any, config: Any) -> Any:
    from peft import TaskType, get_peft_model

    config.task_type = TaskType.SEQ_2_SEQ_LM
    parts = text_parts(model)
    with quiet_peft():
        adapted = get_peft_model(model, config)
    if hasattr(adapted.base_model, "update_and_allocate"):
        raise InputError(
            f"peft_config: {config.peft_type.value} changes its own shape while it trains, which is not done here; give peft_type LORA"
        )
    if not any(weight.requires_grad for weight in adapted.parameters()):
        raise InputError(f"peft_config: {config.peft_type.value} has no weights to train; give another peft_type")
    _say_where(adapted, parts, "LoRA" if config.peft_type.value == LORA else config.peft_type.value)
    return adapted


def read_peft_config(given: str | dict[str, Any] | None) -> dict[str, Any] | None:
    """The settings in a YAML file. Raises InputError for one that cannot be read or holds something else."""
    if not isinstance(given, str):
        return given
    try:
        settings = yaml.safe_load(Path(given).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise InputError(
            f"peft_config {given} cannot be read ({first_line(error)[:200]}); give a YAML file of PEFT's settings"
        ) from error
    if not isinstance(settings, dict) or not all(isinstance(name, str) for name in settings):
        raise InputError(f"peft_config {given} has no settings in it; write 'peft_type: LOHA' and one setting a line")
    return settings


# ------------------------------------------------------------------------------------------------- where it lies


def _linear_names(model: Any) -> set[str]:
    return {name.rsplit(".", 1)[-1] for name in _linear_of_texts(model)}


def _linear(model: Any) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]


def _linear_of_texts(model: Any) -> list[str]:
    within = tuple(f"{part}." for part in text_parts(model).values())
    return [name for name in _linear(model) if name.startswith(within)]


def _targets(model: Any, targets: list[str] | None, pairs: list[list[str]]) -> list[str]:
    names = _linear_names(model)
    if targets == ALL_LINEAR:
        return sorted(names)
    # All that match: LED's and BigBird's encoders have one pair, their decoders the other.
    targets = targets or [name for pair in pairs if set(pair) <= names for name in pair]
    if not targets or not set(targets) <= names:
        raise InputError(
            f"lora_targets {targets or None} are not modules of this model; it has {', '.join(sorted(names))}, or all-linear"
        )
    return targets


def _places(model: Any, targets: list[str], scope: str) -> list[str] | str:
    """What PEFT is told: names where those say it all, else a pattern of whole names."""
    parts, texts = text_parts(model), _linear_of_texts(model)
    chosen = [parts["decoder"]] if scope == "decoder" else list(parts.values())
    if all(name in texts for name in _linear(model) if name.rsplit(".", 1)[-1] in targets) and scope == "all":
        return list(targets)
    return rf"({'|'.join(map(re.escape, chosen))})\..*\.({'|'.join(targets)})"


def _say_where(adapted: Any, parts: dict[str, str], kind: str) -> None:
    """How many projections were adapted, by encoder and decoder: a name that matches in one alone would go unseen."""
    names = [name for name, module in adapted.get_base_model().named_modules() if isinstance(module, BaseTunerLayer)]
    counts = {part: [name for name in names if name.startswith(f"{prefix}.")] for part, prefix in parts.items()}
    said = [f"{len(found)} in the {part}" for part, found in counts.items()]
    kinds = sorted({name.rsplit(".", 1)[-1] for name in names})
    log.info("%s on %d projections (%s): %s", kind, len(names), ", ".join(kinds), ", ".join(said))


# ------------------------------------------------------------------------------------------------- the model's own weights


def train_all(model: Any) -> None:
    """All weights that texts go through; what sees pictures stays, and so do positions that are computed, not learned."""
    encoder = model.get_encoder()
    other = {id(weight) for weight in encoder.parameters()}
    other -= {id(weight) for weight in getattr(encoder, "text_model", encoder).parameters()}
    for module in model.modules():
        computed = "Sinusoidal" in type(module).__name__
        for weight in module.parameters(recurse=False):
            if computed or id(weight) in other:
                other.add(id(weight))
                weight.requires_grad_(False)
    _say_how_many(model, "all weights")


def train_last_layers(model: Any, count: int, *, scope: str) -> None:
    """The last `count` layers of the decoder and, with the scope `all`, of the encoder. Raises InputError where there are fewer."""
    model.requires_grad_(False)
    names = text_parts(model)
    for part in ["decoder"] if scope == "decoder" else list(names):
        layers = layers_of(model.get_submodule(names[part]))
        if count > len(layers):
            raise InputError(
                f"last_layers {count} is more than the {len(layers)} layers of the {part}; give at most those"
            )
        layers[-count:].requires_grad_(True)
    _say_how_many(model, f"the last {count} layers" if count > 1 else "the last layer")


def layers_of(part: nn.Module) -> nn.ModuleList:
    """T5 calls them `block`, others `layers` or `layer`: the first list of modules, which holds them."""
    found = next((module for module in part.modules() if isinstance(module, nn.ModuleList)), None)
    if found is None:
        raise InputError("last_layers: the layers of this model are not found; give trained full or lora")
    return found


def _say_how_many(model: Any, what: str) -> None:
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    log.info("%s: %s of %s weights train", what, f"{trained:,}", f"{sum(w.numel() for w in model.parameters()):,}")


def frozen_layers(model: nn.Module) -> list[nn.Linear]:
    """The linear layers whose product FrozenProduct may take: not those of an adapter, the reference's own among them, and not what an
    adapter trains a whole copy of, which is computed as the copy is."""
    own: set[int] = set()
    for part in model.modules():
        if isinstance(part, BaseTunerLayer | AuxiliaryTrainingWrapper):
            own |= {id(module) for module in part.modules()}
        if isinstance(part, BaseTunerLayer) and not isinstance(part, AuxiliaryTrainingWrapper):
            own -= {id(part.get_base_layer())}
    return [
        part for part in model.modules() if isinstance(part, nn.Linear) and id(part) not in own and can_multiply(part)
    ]


def recompute_layers(model: Any) -> None:
    """Have each layer keep its input alone for the backward pass and compute itself again there (gradient checkpointing).

    transformers' own switch needs the layers in training mode, which in some families is their dropout's too.
    """
    names = text_parts(model)
    for name in names.values():
        for layer in layers_of(model.get_submodule(name)):
            layer.forward = _Recomputed(layer.forward)


@contextlib.contextmanager
def without_cache(model: Any) -> Iterator[None]:
    """Inside, a forward pass keeps no keys and values, to which a layer that computes itself again would add its own twice."""
    found: list[Any] = [getattr(module, "config", None) for module in model.modules()]
    configs = [config for config in found if hasattr(config, "use_cache")]
    before = [(config, config.use_cache) for config in configs]  # each stack of T5 has a copy of its own
    try:
        for config in configs:
            config.use_cache = False
        yield
    finally:
        for config, used in before:
            config.use_cache = used


class _Recomputed:
    def __init__(self, forward: Any) -> None:
        self.forward = forward

    def __call__(self, *given: Any, **named: Any) -> Any:
        from torch.utils.checkpoint import checkpoint

        if not torch.is_grad_enabled():
            return self.forward(*given, **named)
        return checkpoint(self.forward, *given, use_reentrant=False, **named)


def is_trained(module: nn.Module) -> bool:
    """Whether its own weights train, an adapter lies in it, or a whole copy that an adapter trains (PEFT's modules_to_save)."""
    if any(weight.requires_grad for weight in module.parameters()):
        return True
    return any(isinstance(part, (BaseTunerLayer, AuxiliaryTrainingWrapper)) for part in module.modules())


# ------------------------------------------------------------------------------------------------- dropout


class StepDropout(nn.Module):
    """LoRA's dropout with one mask for all of a step, so that what samples, is scored and is updated is one and the same
    distribution: each step trains a thinner adapter. Between `draw` and `rest` a share of the inputs is left out and the others
    scaled up by as much; else nothing is."""

    mask: Tensor

    def __init__(self, share: float, features: int, device: torch.device) -> None:
        super().__init__()
        self.share = share
        self.register_buffer("mask", torch.ones(features, device=device), persistent=False)

    def draw(self, generator: torch.Generator) -> None:
        kept = torch.rand(len(self.mask), generator=generator) >= self.share
        self.mask.copy_(kept / (1 - self.share))  # in place: a captured graph reads it

    def rest(self) -> None:
        self.mask.fill_(1.0)

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs * self.mask.to(inputs.dtype)


def step_dropouts(adapted: Any) -> list[StepDropout]:
    """Put a StepDropout in the place of each LoRA dropout, and return them, in a fixed order."""
    found = []
    for layer in adapted.modules():
        if not isinstance(layer, LoraLayer):
            continue
        for name, dropout in layer.lora_dropout.items():
            if isinstance(dropout, nn.Dropout) and dropout.p > 0 and name in layer.lora_A:
                weight = layer.lora_A[name].weight
                layer.lora_dropout[name] = StepDropout(dropout.p, weight.shape[1], weight.device)
                found.append(layer.lora_dropout[name])
    return found
