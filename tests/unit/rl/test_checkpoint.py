"""What a checkpoint keeps, without a model."""

import pytest
import torch
from torch.nn import Parameter

from made_rollout import made_policy
from softspoken.rl.checkpoint import Progress, load_checkpoint, save_checkpoint, whole_checkpoints
from softspoken.run_folder import RunFolder
from softspoken.types import InputError


@pytest.fixture
def folder(tmp_path):
    with RunFolder(tmp_path / "run") as made:
        made.begin()
        yield made


def trained(value, steps=1):
    """A policy of two weights and its optimizer after some steps of gradient `value`."""
    policy = made_policy(adapter=Parameter(torch.full((2,), value)))
    optimizer = torch.optim.AdamW(policy.trainable().values(), lr=0.1)
    for _ in range(steps):
        policy.trainable()["adapter"].grad = torch.full((2,), value)
        optimizer.step()
    return policy, optimizer


def test_weights_optimizer_schedule_and_kl_weight_come_back(folder):
    policy, optimizer = trained(3.0, steps=2)
    progress = Progress(step=2, kl_coef=0.125, schedule={"last_epoch": 2, "_last_lr": [0.1]})
    save_checkpoint(folder, progress, policy, optimizer)
    other, others = trained(1.0, steps=0)
    assert load_checkpoint(folder.path, other, others) == progress
    weight = other.trainable()["adapter"]
    assert torch.equal(weight, policy.trainable()["adapter"])
    state, expected = others.state[weight], optimizer.state[policy.trainable()["adapter"]]
    assert state["step"].item() == 2
    assert torch.equal(state["exp_avg"], expected["exp_avg"])
    assert torch.equal(state["exp_avg_sq"], expected["exp_avg_sq"])


def test_weights_that_lie_by_column_are_kept_as_well(folder):
    policy = made_policy(adapter=Parameter(torch.arange(6.0).view(2, 3).t()))
    optimizer = torch.optim.AdamW(policy.trainable().values(), lr=0.1)
    policy.trainable()["adapter"].grad = torch.ones(3, 2)
    optimizer.step()
    save_checkpoint(folder, Progress(1, 0.5, {"_last_lr": [0.1]}), policy, optimizer)
    before = policy.trainable()["adapter"].detach().clone()
    with torch.no_grad():
        policy.trainable()["adapter"].zero_()
    load_checkpoint(folder.path, policy, optimizer)
    assert torch.equal(policy.trainable()["adapter"], before)


def test_the_last_two_are_kept_and_one_may_be_written_again(folder):
    policy, optimizer = trained(3.0)
    for step in (1, 2, 3, 3):
        save_checkpoint(folder, Progress(step, 0.5, {"_last_lr": [0.1]}), policy, optimizer)
    assert [one.name for one in whole_checkpoints(folder.path)] == ["step-000002", "step-000003"]
    assert not list(folder.path.rglob("*saving/*"))
    assert load_checkpoint(folder.path, policy, optimizer).step == 3


def test_none_yet_is_none_and_another_models_is_refused(folder):
    policy, optimizer = trained(3.0)
    assert load_checkpoint(folder.path, policy, optimizer) is None
    save_checkpoint(folder, Progress(1, 0.5, {"_last_lr": [0.1]}), policy, optimizer)
    with pytest.raises(InputError, match="are its model, lora_r and lora_targets the same"):
        load_checkpoint(folder.path, made_policy(another=Parameter(torch.zeros(2))), optimizer)
