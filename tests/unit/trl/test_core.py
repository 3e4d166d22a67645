"""trl.core's helpers by hand, at TRL 0.11's edges as well: what is off the mask, what is empty, what is padded where."""

import math
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import tensor

from softspoken.trl import core


def test_log_probabilities_and_entropy_of_a_known_distribution():
    logits = torch.log(tensor([[[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]]])) + 3.0
    found = core.logprobs_from_logits(logits, tensor([[1, 2]]))
    assert found.tolist() == [pytest.approx([math.log(0.25), math.log(0.6)])]
    assert core.logprobs_from_logits(logits, tensor([[1, 2]]), gather=False).exp().sum().item() == pytest.approx(2.0)
    assert core.entropy_from_logits(logits)[0, 0].item() == pytest.approx(1.5 * math.log(2))


def test_masked_statistics():
    values, mask = tensor([[1.0, 2.0, 9.0], [3.0, 9.0, 9.0]]), tensor([[1, 1, 0], [1, 0, 0]])
    assert core.masked_mean(values, mask).item() == 2.0
    assert core.masked_mean(values, mask, axis=1).tolist() == [1.5, 3.0]
    assert core.masked_var(values, mask).item() == pytest.approx(1.0)
    assert core.masked_var(values, mask, unbiased=False).item() == pytest.approx(2 / 3)
    assert core.masked_mean(values, mask * 0).isnan()
    with pytest.raises(ValueError, match="mini_batch_size"):
        core.masked_var(values, mask * 0)


def test_whitening_scales_what_is_off_the_mask_too():
    values, mask = tensor([1.0, 2.0, 3.0, 5.0]), tensor([1, 1, 1, 0])
    assert core.masked_whiten(values, mask).tolist() == pytest.approx([-1.0, 0.0, 1.0, 3.0], abs=1e-6)
    assert core.masked_whiten(values, mask, shift_mean=False).tolist() == pytest.approx([1.0, 2.0, 3.0, 5.0], abs=1e-6)
    assert core.whiten(tensor([2.0, 4.0, 6.0])).tolist() == pytest.approx([-1.0, 0.0, 1.0])  # variance 4
    assert core.whiten(tensor([2.0, 4.0, 6.0]), shift_mean=False).tolist() == pytest.approx([3.0, 4.0, 5.0])
    assert core.whiten(tensor([2.0, 2.0])).tolist() == [0.0, 0.0]


def test_dictionaries():
    assert core.flatten_dict({"a": {"b": 1, "c": {"d": 2}}, "e": 3}) == {"a/b": 1, "a/c/d": 2, "e": 3}
    with pytest.raises(ValueError, match="separator '/'"):
        core.flatten_dict({"a/b": 1})
    stacked = core.stack_dicts([{"x": tensor([1.0, 2.0])}, {"x": tensor([3.0]), "not in the first": tensor(0.0)}])
    assert {name: rows.tolist() for name, rows in stacked.items()} == {"x": [[1.0, 2.0], [3.0, -1.0]]}
    assert core.add_suffix({"a": 1}, "_x") == {"a_x": 1}
    averaged = core.average_torch_dicts([{"x": tensor([1.0, 2.0])}, {"x": tensor([3.0, 6.0]), "y": tensor(0.0)}])
    assert {name: mean.tolist() for name, mean in averaged.items()} == {"x": [2.0, 4.0]}
    scalars = core.convert_to_scalar({"a": tensor(2.0), "b": np.array([3.0]), "c": tensor([1.0, 2.0]), "d": "text"})
    assert (scalars["a"], scalars["b"], scalars["d"]) == (2.0, 3.0, "text")
    assert scalars["c"].tolist() == [1.0, 2.0]
    arrays = core.stats_to_np({"a": tensor([1.5], dtype=torch.bfloat16), "b": 2})
    assert arrays["a"].tolist() == [1.5]
    assert (arrays["b"], type(arrays["b"])) == (2.0, float)


def test_tensors():
    assert core.clip_by_value(tensor([-2.0, 0.5, 2.0]), tensor(-1.0), tensor(1.0)).tolist() == [-1.0, 0.5, 1.0]
    assert core.pad_to_size(tensor([[1, 2]]), 4, padding=7).tolist() == [[1, 2, 7, 7]]
    assert core.pad_to_size(tensor([[1, 2]]), 3).tolist() == [[1, 2, 50256]]


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({}, 4),
        ({"top_k": 1}, 1),
        ({"top_k": 1, "min_tokens_to_keep": 2}, 2),
        ({"top_k": 3, "top_p": 0.7}, 2),  # of .526, .316, .158: the first two reach 0.7
        ({"top_p": 0.0}, 1),
        ({"top_p": 1.5}, 4),  # TRL's examples mean "all" by whatever is above 1
    ],
)
def test_top_k_and_top_p_leave_the_likeliest(settings, kept):
    logits = torch.log(tensor([[0.5, 0.3, 0.15, 0.05]]))
    found = core.top_k_top_p_filtering(logits, **settings)
    assert found.isfinite().tolist() == [[place < kept for place in range(4)]]
    assert (core.top_k_top_p_filtering(logits, top_k=1, filter_value=-9.0)[0, 1:] == -9.0).all()


class Counting:
    """An encoder–decoder whose next token is one more than the last (or, of each pair, either as likely); 9 + 1 is 0."""

    config = SimpleNamespace(pad_token_id=0, decoder_start_token_id=5)

    def __init__(self, start=None, either=False):
        self.pretrained_model = SimpleNamespace(generation_config=SimpleNamespace(decoder_start_token_id=start))
        self.either, self.records = either, []
        self.drawn = SimpleNamespace(add=lambda *given: self.records.append(given))

    def __call__(self, *, input_ids, attention_mask, decoder_input_ids):
        self.mask = attention_mask.tolist()
        logits = torch.full((*decoder_input_ids.shape, 10), -torch.inf)
        logits.scatter_(-1, ((decoder_input_ids + 1) % 10).unsqueeze(-1), 0.0)
        if self.either:
            logits.scatter_(-1, ((decoder_input_ids + 2) % 10).unsqueeze(-1), -0.1)
        return logits, None, None


def test_respond_to_batch_draws_on_from_the_start_token():
    model, queries = Counting(), tensor([[3, 4, 0], [3, 0, 0]])
    assert core.respond_to_batch(model, queries, txt_len=3).tolist() == [[6, 7, 8]] * 2
    assert model.mask == [[1, 1, 0], [1, 0, 0]]
    ((inner, ids, settings),) = model.records
    assert inner is model.pretrained_model
    assert ids.tolist() == [[5, 6, 7, 8]] * 2
    assert settings == {"do_sample": True, "top_k": 0, "top_p": 1.0}
    found = core.respond_to_batch(Counting(start=1), queries)
    assert found.shape == (2, 20)
    assert found[0, :3].tolist() == [2, 3, 4]
    torch.manual_seed(0)
    drawn = core.respond_to_batch(Counting(either=True), queries)
    assert {int(step) for step in drawn.diff(dim=1).flatten() % 10} == {1, 2}
    assert core.respond_to_batch(Counting(either=True), queries, top_k=1)[0, :3].tolist() == [6, 7, 8]


def test_the_seed_is_everybody_s_and_lengths_leave_the_last_out():
    draws = []
    for _ in range(2):
        core.set_seed(3)
        draws.append((torch.rand(1).item(), np.random.rand(), random.random()))
    assert draws[0] == draws[1]
    assert {core.LengthSampler(2, 4)() for _ in range(50)} == {2, 3}
