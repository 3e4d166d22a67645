"""The parts of a training's memory, in bytes, and which of a step's passes takes the most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from softspoken.config import TrainConfig
from softspoken.config.estimating import EstimateConfig
from softspoken.estimating.architectures import config_of
from softspoken.estimating.passes import Skeleton, reading, update
from softspoken.models.families import head_of
from softspoken.rl.graphs import KEPT_SHARE, wide_enough
from softspoken.rl.products import products_for
from softspoken.rl.rollout import WIDER

GIGA = 1e9
FLOAT = 4
"""Bytes of a float32: what trains, its gradient and each of AdamW's two moments."""
QUANTIZED = {"8bit": 1 + 0.004, "4bit": 0.5 + FLOAT / 64}
"""Bytes a weight: with a float32 for each row (of about 1,000), and for each 64 weights."""


@dataclass(frozen=True)
class Estimate:
    """`held` lies there all the time; of `passes`, which come one after the other, the largest counts or, on a CPU, where a
    process keeps what it has freed, all of them: what the next one makes seldom fits into the holes that the last one left."""

    model: str
    parameters: int
    trained: int
    held: dict[str, float]
    passes: dict[str, float]
    keeps_freed: bool

    @property
    def total(self) -> float:
        return sum(self.held.values()) + (sum if self.keeps_freed else max)(self.passes.values())


def estimate(config: EstimateConfig, model: str) -> Estimate:
    """Raises InputError for a model that cannot be had, or cannot be trained as `config` says."""
    training = config.training_of(model)
    skeleton = Skeleton(config_of(model), training, config.max_prompt_tokens)
    trains = [weight for weight in skeleton.model.parameters() if weight.requires_grad]
    trained = sum(weight.numel() for weight in trains) + skeleton.width + 1  # and the value head
    own = {id(weight) for weight in trains}
    frozen = {name: weight for name, weight in skeleton.base.items() if id(weight) not in own}
    own_of_base = sum(weight.numel() for weight in skeleton.base.values()) - sum(w.numel() for w in frozen.values())
    prompts = -(-training.batch_size // config.processes)
    held = {
        **_weights_that_stay(skeleton, frozen, training, config),
        "weights that train": FLOAT * trained,
        "their gradients": FLOAT * trained,
        "AdamW's moments": 2 * FLOAT * trained,
    }
    if training.trains_whole_model and training.has_reference:
        held["copy for the reference"] = FLOAT * own_of_base
    if config.device == "cpu" and training.fast and not config.shard:
        held["second copies, for speed"] = _second_copies(skeleton)
    kept = _read(skeleton, prompts)
    if skeleton.reads_once:
        held["prompts, read once a step"] = kept
    passes = {
        "reading": kept
        + skeleton.most_without_gradient(
            lambda: reading(skeleton, _at_once(training, prompts, config.device), config.device)
        ),
        "sampling": _sampling(skeleton, config, training, prompts) + (0 if skeleton.reads_once else kept),
    }
    if _wider(training, config.device) > 1:  # elsewhere it takes less than an update, of as many rows
        passes["scoring"] = _micro_batch(skeleton, config, training, prompts, learns=False)
    passes["update"] = _micro_batch(skeleton, config, training, prompts)
    parameters = sum(weight.numel() for weight in skeleton.base.values())
    return Estimate(model, parameters, trained, held, passes, keeps_freed=config.device == "cpu")


def _weights_that_stay(
    skeleton: Skeleton, frozen: dict[str, nn.Parameter], training: TrainConfig, config: EstimateConfig
) -> dict[str, float]:
    whole = _weights(skeleton, frozen, training)
    if not config.shard:
        return {"weights that stay": whole}
    layers = [
        sum(weight.numel() * weight.element_size() for weight in layer.parameters() if id(weight) in skeleton.of_base)
        for part in skeleton.layers()
        for layer in part
    ]
    # The layer that computes, and the one after it, which is gathered meanwhile.
    return {
        "weights that stay": whole - sum(layers) * (1 - 1 / config.processes),
        "layers gathered": 2.0 * max(layers),
    }


def _weights(skeleton: Skeleton, frozen: dict[str, nn.Parameter], training: TrainConfig) -> float:
    """Bytes of the weights that do not train, rounded to bits where they are those of linear layers that are rounded."""
    rounded = set()
    if training.quantization:
        kept = [*(skeleton.seq2seq._keep_in_fp32_modules or []), "lm_head"]
        rounded = {
            id(module.weight)
            for name, module in skeleton.seq2seq.named_modules()
            if isinstance(module, nn.Linear) and not any(part in name.split(".") for part in kept)
        }
    return sum(
        weight.numel()
        * (QUANTIZED[training.quantization or "8bit"] if id(weight) in rounded else weight.element_size())
        for weight in frozen.values()
    )


def _second_copies(skeleton: Skeleton) -> float:
    """Of the decoder's linear layers, laid out by columns, while their file stays mapped, and of the vocabulary as oneDNN reads it."""
    head: Any = head_of(skeleton.seq2seq)
    layers = [
        layer
        for layer in skeleton.decoder.modules()
        if isinstance(layer, nn.Linear) and id(layer.weight) in skeleton.of_base
    ]
    copies = (
        0.0
        if skeleton.config.quantization
        else sum(layer.weight.numel() * layer.weight.element_size() for layer in layers)
    )
    plain = isinstance(head, nn.Linear) and head.bias is None and not head.weight.requires_grad
    packed = FLOAT * head.weight.numel() if plain and skeleton.config.dtype != "bfloat16" else 0.0
    return copies + packed + _of_products(skeleton, sum(layer.weight.numel() for layer in layers))


def _of_products(skeleton: Skeleton, of_decoder: int) -> float:
    """What frozen layers are multiplied from on a CPU, beside their weights (rl/products.py): in bfloat16 all once, the decoder's once more as
    oneDNN reads them; in float32 the latter alone."""
    linear = [layer for layer in skeleton.seq2seq.modules() if isinstance(layer, nn.Linear)]
    weights = sum(layer.weight.numel() for layer in linear if id(layer.weight) in skeleton.of_base)
    match products_for(skeleton.config, skeleton.model, weights):
        case torch.bfloat16:
            return 2 * (weights + of_decoder)
        case torch.float32:
            return FLOAT * of_decoder
    return 0.0


def _wider(training: TrainConfig, device: str) -> int:
    return WIDER if device == "cuda" and training.fast else 1


def _at_once(training: TrainConfig, prompts: int, device: str) -> int:
    return min(prompts, training.micro_batch_size * _wider(training, device)) if training.fast else prompts


def _element(training: TrainConfig) -> int:
    return 2 if training.dtype == "bfloat16" else FLOAT


def _read(skeleton: Skeleton, prompts: int) -> float:
    """Of the prompts: the encoder's states, and each layer's keys and values."""
    tokens = prompts * skeleton.prompt_tokens
    return tokens * (skeleton.width + skeleton.cross_width) * _element(skeleton.config)


def _sampling(skeleton: Skeleton, config: EstimateConfig, training: TrainConfig, prompts: int) -> float:
    """The cache of all rows at once, and a few tensors of logits. Rows of one prompt read one copy of it, but for a captured graph's."""
    rows, response = prompts * training.samples_per_prompt, training.max_new_tokens
    each = skeleton.cross_width * _element(training)
    logits = 3 * FLOAT * skeleton.vocabulary
    if config.device == "cpu" or not training.fast:
        return prompts * skeleton.prompt_tokens * each + rows * (response * each + logits)
    taken = rows * ((wide_enough(skeleton.prompt_tokens) + response) * each + 4 * FLOAT * skeleton.vocabulary)
    return min(taken, config.memory * GIGA / KEPT_SHARE) if config.memory else taken


def _micro_batch(
    skeleton: Skeleton, config: EstimateConfig, training: TrainConfig, prompts: int, *, learns: bool = True
) -> float:
    times = 1 if learns else _wider(training, config.device)
    rows = min(prompts * training.samples_per_prompt, times * training.micro_batch_size)
    if training.tokens_per_microbatch:
        width = skeleton.prompt_tokens + training.max_new_tokens
        rows = max(1, min(rows, times * training.tokens_per_microbatch // width))
    distinct = -(-rows // training.samples_per_prompt)
    return skeleton.most(lambda: update(skeleton, rows, distinct, config.device, learns=learns))
