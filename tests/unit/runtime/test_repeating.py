"""The same digits each time, where they are asked for."""

import os

import pytest
import torch

from softspoken.runtime.repeating import WORKSPACE, repeatable
from softspoken.types import RunError


def test_inside_torch_takes_what_is_deterministic_and_afterwards_what_it_did(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    with repeatable(True):
        assert torch.are_deterministic_algorithms_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == WORKSPACE
    assert not torch.are_deterministic_algorithms_enabled()
    with repeatable(False):
        assert not torch.are_deterministic_algorithms_enabled()


def test_what_has_no_deterministic_kind_ends_in_a_sentence():
    said = "kthvalue CUDA does not have a deterministic implementation, but you set 'torch.use_deterministic_algorithms(True)'."
    with (
        pytest.raises(
            RunError, match=r"^deterministic true cannot be had here .kthvalue CUDA does not have .*; leave it out$"
        ),
        repeatable(True),
    ):
        raise RuntimeError(said)
    assert not torch.are_deterministic_algorithms_enabled()
    with pytest.raises(RuntimeError, match="something else"), repeatable(True):
        raise RuntimeError("something else")
