"""What a checkpoint keeps, without a model."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import Parameter

from made_rollout import made_policy
from softspoken.rl.checkpoint import Progress, load_checkpoint, save_checkpoint, saved_config, whole_checkpoints
from softspoken.storage.run_folder import RunFolder
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


@pytest.mark.parametrize("gone", ["optimizer.safetensors", "progress.json"])
def test_what_a_stop_left_of_one_that_was_being_deleted_goes_too(gone, folder):
    policy, optimizer = trained(3.0)
    for step in (1, 2):
        save_checkpoint(folder, Progress(step, 0.5, {"_last_lr": [0.1]}), policy, optimizer)
    (folder.path / "checkpoints/step-000001" / gone).unlink()
    save_checkpoint(folder, Progress(3, 0.5, {"_last_lr": [0.1]}), policy, optimizer)
    assert sorted(one.name for one in (folder.path / "checkpoints").iterdir()) == ["step-000002", "step-000003"]


def test_none_yet_is_none_and_another_models_is_refused(folder):
    policy, optimizer = trained(3.0)
    assert load_checkpoint(folder.path, policy, optimizer) is None
    save_checkpoint(folder, Progress(1, 0.5, {"_last_lr": [0.1]}), policy, optimizer)
    with pytest.raises(InputError, match="are its model, lora_r and lora_targets the same"):
        load_checkpoint(folder.path, made_policy(another=Parameter(torch.zeros(2))), optimizer)


@pytest.mark.parametrize(
    "wrong",
    [
        {"step": 0},
        {"step": 1.5},
        {"kl_coef": float("nan")},
        {"schedule": {"_last_lr": [0.1, float("inf")]}},
        {"schedule": {}},
        {"schedule": None},
    ],
)
def test_progress_that_no_run_can_have_written_gives_way_to_the_checkpoint_before_it(folder, wrong, caplog):
    policy, optimizer = trained(3.0)
    good = {"step": 1, "kl_coef": 0.5, "schedule": {"_last_lr": [0.1]}}
    for step in (1, 2):
        save_checkpoint(folder, Progress(**(good | {"step": step})), policy, optimizer)
    newest = whole_checkpoints(folder.path)[-1] / "progress.json"
    newest.write_text(json.dumps(good | wrong))
    assert load_checkpoint(folder.path, policy, optimizer) == Progress(**good)
    assert "step-000002 cannot be read" in caplog.text
    (newest.parents[1] / "step-000001" / "progress.json").write_text("{}")
    with pytest.raises(InputError, match=r"no checkpoint in .* can be read"):
        load_checkpoint(folder.path, policy, optimizer)


def test_the_first_weight_that_is_another_is_named_with_both_shapes(folder):
    policy, optimizer = trained(3.0)
    save_checkpoint(folder, Progress(1, 0.5, {"_last_lr": [0.1]}), policy, optimizer)
    wider = made_policy(adapter=Parameter(torch.zeros(3)), value_head=Parameter(torch.zeros(1)))
    with pytest.raises(InputError, match=r"\(adapter: \[2\] for \[3\]\)"):
        load_checkpoint(folder.path, wider, optimizer)
    more = made_policy(adapter=Parameter(torch.zeros(2)), value_head=Parameter(torch.zeros(1)))
    with pytest.raises(InputError, match=r"\(value_head: nothing for \[1\]\)"):
        load_checkpoint(folder.path, more, optimizer)


def test_moments_go_where_their_weight_is_and_the_counter_stays(folder):
    policy, optimizer = trained(3.0)
    save_checkpoint(folder, Progress(1, 0.5, {"_last_lr": [0.1]}), policy, optimizer)
    elsewhere = made_policy(adapter=Parameter(torch.zeros(2, device="meta")))
    other = torch.optim.AdamW(elsewhere.trainable().values())
    load_checkpoint(folder.path, elsewhere, other)
    state = other.state[elsewhere.trainable()["adapter"]]
    assert {name: value.device.type for name, value in state.items()} == {
        "step": "cpu",
        "exp_avg": "meta",
        "exp_avg_sq": "meta",
    }


def test_what_is_not_the_optimizers_of_these_weights_is_refused(folder):
    policy, optimizer = trained(3.0)
    save_checkpoint(folder, Progress(1, 0.5, {"_last_lr": [0.1]}), policy, optimizer)
    file = whole_checkpoints(folder.path)[0] / "optimizer.safetensors"
    whole = load_file(file)
    for name, value in (("adapter|exp_avg", torch.zeros(3)), ("another|step", torch.zeros(()))):
        save_file(whole | {name: value}, file)
        with pytest.raises(InputError, match="holds other weights"):
            load_checkpoint(folder.path, policy, optimizer)


def test_a_configuration_is_read_as_one_that_neither_resumes_nor_overwrites(tmp_path):
    path = tmp_path / "config.yaml"
    for before in ("overwrite: true", "resume: runs/x"):
        path.write_text(f"config: {{seed: 3, output: o, {before}}}\n")
        found = saved_config(path)
        assert (found.seed, found.output, found.overwrite, found.resume) == (3, "o", False, None)
    for text, words in (
        ("[1, 2]", "has no settings in it"),
        ("config: 3", "has no settings in it"),
        ("config: {setps: 3}", "has a setting 'setps'"),
        ("config: {steps: -1}", "steps"),
        ("config: [", "cannot be read"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=words):
            saved_config(path)
