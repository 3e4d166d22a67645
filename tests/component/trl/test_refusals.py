"""What PPOTrainer and its step are given: what is taken, and what is refused with its name."""

import re
from types import SimpleNamespace

import datasets
import pytest
import torch
from torch import tensor

from legacy_case import tiny_t5, tokenizer, wrapped
from softspoken import trl
from softspoken.trl.checks import check_arguments, check_step, require_gradient
from softspoken.types import InputError, RunError


@pytest.fixture(scope="module")
def model():
    return wrapped(trl, lora=True)


@pytest.fixture(scope="module")
def config():
    return trl.PPOConfig(batch_size=2, mini_batch_size=1)


def check(model, config, **changes):
    plain = {"ref_model": None, "tokenizer": tokenizer(), "dataset": None, "lr_scheduler": None}
    check_arguments(**({"config": config, "model": model} | plain | changes))


class Rows(torch.utils.data.Dataset):
    pass


def test_what_trl_takes_is_taken(model, config):
    optimizer = torch.optim.SGD(model.v_head.parameters(), lr=0.1)
    check(model, config)
    check(model, config, ref_model=model, dataset=datasets.Dataset.from_dict({"query": []}))
    check(model, config, ref_model=tiny_t5(), dataset=Rows())
    check(model, config, lr_scheduler=torch.optim.lr_scheduler.StepLR(optimizer, 1))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"config": {}}, "config is a dict; give a softspoken.trl.PPOConfig"),
        ({"model": None}, "model is missing; give AutoModelForSeq2SeqLMWithValueHead"),
        ({"model": []}, "model is an empty list; give"),
        ({"model": [3]}, "model is a list of int; give"),
        ({"model": SimpleNamespace(config=SimpleNamespace(is_encoder_decoder=False))}, "is a decoder-only model"),
        ({"model": SimpleNamespace(config=SimpleNamespace())}, "model is a SimpleNamespace; give"),
        (
            {"model": SimpleNamespace(config=SimpleNamespace(is_encoder_decoder=True))},
            "model is a SimpleNamespace; give",
        ),
        ({"ref_model": "t5"}, "ref_model is a str; give create_reference_model(model)"),
        ({"tokenizer": None}, "tokenizer is missing; give the model's"),
        ({"dataset": [1]}, "dataset is a list of int; give a datasets.Dataset"),
        ({"lr_scheduler": "linear"}, "lr_scheduler is a str; give one of torch.optim"),
    ],
)
def test_what_cannot_be_used_is_named(model, config, changes, words):
    with pytest.raises(InputError, match=re.escape(words)):
        check(**({"model": model, "config": config} | changes))


def rows(count, length=1):
    return [torch.ones(length)] * count


@pytest.mark.parametrize("batch", [rows(2), rows(1)])
def test_a_step_takes_a_batch_or_the_smaller_last_one(model, config, batch):
    check_step(model, config, batch, batch, batch, None)
    check_step(model, config, batch, batch, batch, batch)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"queries": tuple(rows(2))}, "queries must be a list of tensors, and is a tuple"),
        ({"queries": []}, "queries must be a list of tensors, and is an empty list"),
        ({"scores": [0.5, 0.5]}, "scores must be a list of tensors, and is a list of float"),
        ({"masks": [1, 1]}, "response_masks must be a list of tensors"),
        ({"responses": rows(1)}, "there are 2 queries and 1 responses; give one for each query"),
        ({"masks": rows(1)}, "there are 2 queries and 1 response_masks"),
        ({"scores": [tensor(0.5), tensor([0.5, 0.5])]}, "score 1 is [0.5, 0.5]; give one finite number"),
        ({"scores": [tensor(0.5), tensor(float("nan"))]}, "score 1 is nan; give one finite number"),
        (
            {"queries": rows(3), "responses": rows(3), "scores": rows(3)},
            "step got 3 queries, and PPOConfig.batch_size is 2",
        ),
    ],
)
def test_what_a_step_cannot_use_is_named(model, config, changes, words):
    given = {"queries": rows(2), "responses": rows(2), "scores": rows(2), "masks": None, **changes}
    with pytest.raises(InputError, match=re.escape(words)):
        check_step(model, config, **given)


def test_a_smaller_batch_is_refused_where_the_last_is_not_kept(model):
    strict = trl.PPOConfig(batch_size=2, mini_batch_size=1, keep_last_batch=False)
    check_step(model, strict, rows(2), rows(2), rows(2), None)
    with pytest.raises(InputError, match="step got 1 queries"):
        check_step(model, strict, rows(1), rows(1), rows(1), None)


def test_every_adapter_matrix_must_get_a_gradient_once_any_weight_does():
    lora, head = torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(1))
    frozen = torch.nn.Parameter(torch.zeros(1), requires_grad=False)
    model = SimpleNamespace(named_parameters=lambda: [("q.lora_B", lora), ("v_head", head), ("base", frozen)])
    assert require_gradient(model) is False
    lora.grad = torch.zeros(1)
    assert require_gradient(model) is True
    lora.grad, head.grad = None, torch.zeros(1)
    with pytest.raises(RunError, match=r"1 adapter matrices got no gradient \(the first is q\.lora_B\)"):
        require_gradient(model)
