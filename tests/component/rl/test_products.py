"""`dtype auto`: where frozen layers multiply in bfloat16, what stays in float32, and what it is worth checking first."""

import logging
from dataclasses import replace

import pytest
import torch

from likely_end import with_likely_end
from softspoken.config import TrainConfig
from softspoken.data.prompts import encode_prompts
from softspoken.models.cpu import FrozenProduct, rounds_natively
from softspoken.models.trained import frozen_layers
from softspoken.rl import products
from softspoken.rl.loading import load_policy
from softspoken.rl.optimise import unmoved_adapters
from softspoken.rl.ppo import build_experience, update
from softspoken.rl.rollout import generate_rollout, teacher_forced
from softspoken.types import Scores

native = pytest.mark.skipif(not rounds_natively(), reason="this processor does not multiply bfloat16 by itself")


@pytest.fixture
def large(monkeypatch):
    """What counts as large begins with one weight."""
    monkeypatch.setattr(products, "WORTH_IT", 1)


def config_for(folder, **changes) -> TrainConfig:
    settings = {"samples_per_prompt": 2, "max_new_tokens": 8, "ppo_epochs": 1, "mini_batch_size": 16, "device": "cpu"}
    return TrainConfig(model=str(folder), **{**settings, **changes})


def taken(policy) -> set[torch.dtype]:
    found = [vars(layer).get("forward") for layer in frozen_layers(policy.seq2seq)]
    return {product.weight.dtype for product in found if product}


def sampled(folder, dialogues, **changes):
    config = config_for(folder, batch_size=len(dialogues), learning_rate=1e-3, **changes)
    policy = with_likely_end(load_policy(config))
    prompts = encode_prompts(dialogues, policy.tokenizer, policy.prompt_format)
    return policy, config, generate_rollout(policy, prompts, config, torch.Generator().manual_seed(0))


def moved_by(policy, config, rollout) -> torch.Tensor:
    """By how much an update with a step size of 1 moves the adapter: its gradients."""
    scores = Scores(torch.linspace(0, 1, len(rollout.responses)), {})
    experience = build_experience(replace(rollout, memory=None), scores, config, config.kl_coef)
    optimizer = torch.optim.SGD(list(policy.trainable().values()), lr=1.0)
    before = [weight.detach().clone() for weight in policy.adapter_parameters().values()]
    update(policy, optimizer, experience, config, torch.Generator().manual_seed(0))
    after = policy.adapter_parameters().values()
    return torch.cat([(old - weight.detach()).flatten() for old, weight in zip(before, after, strict=True)])


@native
@pytest.mark.parametrize("scope", ["decoder", "all"])
def test_in_bfloat16_a_step_is_that_in_float32_but_for_rounding(tiny_t5, dialogues, large, scope):
    plain, config, expected = sampled(tiny_t5, dialogues, adapter_scope=scope, dtype="float32")
    policy, _, rollout = sampled(tiny_t5, dialogues, adapter_scope=scope, dtype="auto")
    assert taken(policy) == {torch.bfloat16}
    assert policy.vocabulary_product.weight.dtype == torch.bfloat16
    assert {weight.dtype for weight in policy.model.parameters()} == {torch.float32}
    assert rollout.mismatch is not None, "below float32 it is measured in each step"
    logprobs, _ = teacher_forced(policy, replace(expected, memory=None), config)
    assert 0 < (logprobs - expected.old_logprobs).abs().max() < 0.1
    with policy.reference():
        reference, _ = teacher_forced(policy, replace(expected, memory=None), config)
    assert torch.equal(reference, logprobs), "the KL is exactly 0 before the first step"
    found, wanted = moved_by(policy, config, expected), moved_by(plain, config, expected)
    assert torch.cosine_similarity(found, wanted, dim=0) > 0.99
    assert found.norm().item() == pytest.approx(wanted.norm().item(), rel=0.02)
    assert not unmoved_adapters(policy)


@native
def test_float32_where_it_is_asked_for_where_the_model_is_small_and_where_rounding_moves_too_much(
    tiny_t5, monkeypatch, caplog
):
    assert bfloat16_taken(tiny_t5) is False, "too small for it"
    monkeypatch.setattr(products, "WORTH_IT", 1)
    with caplog.at_level(logging.INFO):
        assert bfloat16_taken(tiny_t5)
        assert bfloat16_taken(tiny_t5, dtype="float32") is False
        assert bfloat16_taken(tiny_t5, fast=False) is False
        monkeypatch.setattr(products, "LARGEST", 0.0)
        assert bfloat16_taken(tiny_t5) is False
    said = [line.getMessage() for line in caplog.records if line.name == products.__name__]
    assert [line.split(",")[0].split(":")[0] for line in said] == ["frozen layers multiply in bfloat16", "float32"]


def bfloat16_taken(folder, **changes) -> bool:
    policy = load_policy(config_for(folder, **changes))
    own = isinstance(policy.vocabulary_product, FrozenProduct) and policy.vocabulary_product.weight.dtype
    assert (own == torch.bfloat16) == (torch.bfloat16 in taken(policy))
    return own == torch.bfloat16


def test_without_native_bfloat16_nothing_is_rounded(tiny_t5, large, monkeypatch):
    monkeypatch.setattr(products, "rounds_natively", lambda: False)
    monkeypatch.setattr(products, "outruns_mkl", lambda: False)
    policy = load_policy(config_for(tiny_t5))
    assert not taken(policy)
    assert policy.exact is None


def test_float32_by_onednn_is_float32(tiny_t5, dialogues, large, monkeypatch):
    monkeypatch.setattr(products, "outruns_mkl", lambda: False)
    plain, config, expected = sampled(tiny_t5, dialogues, dtype="float32", adapter_scope="all")
    monkeypatch.setattr(products, "outruns_mkl", lambda: True)
    policy, _, rollout = sampled(tiny_t5, dialogues, dtype="float32", adapter_scope="all")
    assert taken(policy) == {torch.float32}
    assert torch.equal(rollout.response_ids, expected.response_ids)
    assert torch.allclose(rollout.old_logprobs, expected.old_logprobs, atol=1e-5)
    assert policy.exact
    assert torch.allclose(moved_by(policy, config, rollout), moved_by(plain, config, expected), atol=1e-5)


def test_an_adapter_and_what_it_trains_whole_keep_their_own_product(tiny_t5):
    policy = load_policy(config_for(tiny_t5, adapter_scope="all"))
    layers = {id(layer) for layer in frozen_layers(policy.seq2seq)}
    names = {name for name, module in policy.model.named_modules() if id(module) in layers}
    assert any(name.endswith("q.base_layer") for name in names)
    assert not any("lora_" in name for name in names)
    policy = load_policy(
        config_for(tiny_t5, peft_config={"peft_type": "LORA", "target_modules": ["q"], "modules_to_save": ["wo"]})
    )
    layers = {id(layer) for layer in frozen_layers(policy.seq2seq)}
    names = {name for name, module in policy.model.named_modules() if id(module) in layers}
    assert names
    assert not any(".wo." in name for name in names)
