"""On what a model's own logits are compared with the policy's, and how far apart they may be."""

from types import SimpleNamespace

import pytest
import torch
from torch import tensor

from softspoken.rl.agreement import _same, _tried


def test_it_is_tried_on_prompts_of_two_lengths_and_ids_from_most_of_the_vocabulary():
    """Nineteen ids are allowed, 1 to 19: every one from the second to nine tenths of them."""
    forbidden = torch.arange(20) == 0
    prompts, mask, ids = _tried(SimpleNamespace(forbidden=forbidden, device=torch.device("cpu"), pad_id=0))
    assert prompts.tolist() == [[2, 3, 4, 5, 6, 7], [8, 9, 10, 0, 0, 0]]
    assert mask.tolist() == [[1] * 6, [1, 1, 1, 0, 0, 0]]
    assert ids.tolist() == [[11, 12, 13, 14], [15, 16, 17, 18]]


@pytest.mark.parametrize(
    ("same", "found", "coarser"),
    [
        (True, [-5.0, 0.009, 5.0], 1),  # a thousandth of what lies between the largest and the smallest
        (False, [-5.0, 0.011, 5.0], 1),
        (True, [-5.0, 0.49, 5.0], 50),
        (False, [-5.0, 0.51, 5.0], 50),
        (True, [-5.0, 0.0, 5.055], 1),  # and a hundredth of itself
        (False, [-5.0, 0.0, 5.065], 1),
        (False, [[-5.0, 0.0, 5.0]], 1),
    ],
)
def test_logits_are_the_same_up_to_rounding(same, found, coarser):
    assert _same(tensor(found), tensor([-5.0, 0.0, 5.0]), coarser) == same
