"""A training that goes on from what another one made has its value head as well, where it has a critic."""

import pytest
import torch
from safetensors.torch import save_file

from softspoken.rl.loading import load_policy
from softspoken.types import InputError
from tiny_run import config_for


def saved(tiny_t5, folder, **changes):
    """What a run left, whose critic has learned something."""
    policy = load_policy(config_for(tiny_t5, "-", "-", **changes))
    torch.nn.init.normal_(policy.value_head.weight)
    policy.save(folder, 6)
    return policy.value_head.weight


@pytest.mark.parametrize("trained", ["lora", "full"])
def test_the_value_head_is_gone_on_with(tiny_t5, tmp_path, trained):
    head = saved(tiny_t5, tmp_path / "made", trained=trained)
    source = (
        {"adapter": str(tmp_path / "made")}
        if trained == "lora"
        else {"model": str(tmp_path / "made"), "trained": "full"}
    )
    again = load_policy(config_for(tiny_t5, "-", "-", **source))
    assert torch.equal(again.value_head.weight, head)
    without = load_policy(config_for(tiny_t5, "-", "-", algorithm="rloo", **source))
    assert not without.value_head.weight.any()


def test_one_that_does_not_fit_is_said(tiny_t5, tmp_path):
    saved(tiny_t5, tmp_path / "made")
    file = tmp_path / "made" / "value_head.safetensors"
    for damaged in (b"x", None):
        file.write_bytes(damaged) if damaged else save_file({"weight": torch.zeros(1, 3), "bias": torch.zeros(1)}, file)
        with pytest.raises(
            InputError, match=r"value_head.safetensors is not the value head of this model .*take it away"
        ):
            load_policy(config_for(tiny_t5, "-", "-", adapter=str(tmp_path / "made")))
