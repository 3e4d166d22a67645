"""How a run begins: the rates of its steps by hand."""

import pytest
import torch

from made_rollout import made_config, made_policy
from softspoken.training.start import optimizer_of


@pytest.mark.parametrize(
    ("schedule", "shares"), [("linear", [1, 5 / 6, 4 / 6, 3 / 6, 2 / 6]), ("constant", [1, 1, 1, 1, 1])]
)
def test_the_rate_of_every_step_and_the_critics_own(schedule, shares):
    """Five steps: a line that would be 0 only after one more, so that the first and the last train."""
    policy = made_policy(adapter=torch.nn.Parameter(torch.zeros(1)))
    policy.value_head = torch.nn.Linear(1, 1)
    config = made_config(steps=5, learning_rate=1e-3, value_learning_rate=4e-2, schedule=schedule, warmup_steps=0)
    optimizer, scheduler = optimizer_of(policy, config)
    adapter, critic = optimizer.param_groups
    assert len(adapter["params"]) == 1
    assert len(critic["params"]) == 2
    rates = []
    for _ in range(5):
        rates.append((adapter["lr"], critic["lr"]))
        optimizer.step()
        scheduler.step()
    assert [rate for rate, _ in rates] == pytest.approx([1e-3 * share for share in shares])
    assert [rate for _, rate in rates] == pytest.approx([4e-2 * share for share in shares])
