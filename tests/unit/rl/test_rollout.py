"""What becomes of a rollout's rows and their scores, each told from all others."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from made_rollout import made_config, made_rollout
from softspoken.models.generation import require_finite
from softspoken.rl import rollout as rollout_module
from softspoken.rl.rollout import sibling_mean
from softspoken.types import RunError


def test_the_mean_of_the_siblings_by_hand():
    rollout = made_rollout([1] * 6, index=[0, 1, 1, 2, 2, 2])
    means, siblings = sibling_mean(torch.tensor([9.0, 1.0, 3.0, 1.0, 2.0, 6.0]), rollout)
    assert means.tolist() == [0.0, 3.0, 1.0, 4.0, 3.5, 1.5]
    assert siblings.tolist() == [0, 1, 1, 2, 2, 2]


@pytest.mark.parametrize(
    ("same", "values"),
    [
        (True, [0.5, 0.5]),
        (True, [0.5, 0.5 + 0.9e-6]),  # to a millionth, of 1 or of the larger
        (False, [0.5, 0.5 + 1.1e-6]),
        (True, [-3.0, -3.0 - 2.9e-6]),
        (False, [-3.0, -3.0 - 3.1e-6]),
        (True, [3.0, 3.0 + 2.9e-6]),
        (False, [-0.5, 0.5]),
        (True, [7.0]),
    ],
)
def test_prompts_whose_samples_are_all_alike(same, values):
    rollout = made_rollout([1] * (len(values) + 2), index=[0] * len(values) + [1, 1])
    values = torch.tensor([*values, 1.0, 2.0], dtype=torch.float64)
    assert rollout_module.alike(values, rollout).tolist() == [same, False]


def test_the_widest_is_the_longest_prompt_among_the_rows_and_their_longest_response():
    rollout = made_rollout([4, 1, 2], index=[0, 1, 2])
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0]])
    rollout = replace(rollout, prompts=replace(rollout.prompts, attention_mask=mask))
    for rows, widest in (([0, 1, 2], 6 + 4), ([1, 2], 3 + 2), ([1], 3 + 1)):
        assert rollout_module.widest(rollout, torch.tensor(rows)) == widest
    nothing = replace(rollout, response_mask=torch.zeros_like(rollout.response_mask))
    assert rollout_module.widest(nothing, torch.tensor([2])) == 2 + 1


def test_parts_are_joined_and_padded_to_the_longest():
    def part(rows, length):
        ones = torch.ones(rows, length)
        return ones.long() * 5, ones.bool(), -ones, ones / 2

    ids, mask, logprobs, values = rollout_module._joined([part(1, 3), part(2, 1)], pad_id=9)
    assert ids.tolist() == [[5, 5, 5], [5, 9, 9], [5, 9, 9]]
    assert mask.tolist() == [[True] * 3, [True, False, False], [True, False, False]]
    assert logprobs.tolist() == [[-1.0] * 3, [-1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]]
    assert values.tolist() == [[0.5] * 3, [0.5, 0.0, 0.0], [0.5, 0.0, 0.0]]


@pytest.mark.parametrize(
    ("budget", "width", "rows", "fit"), [(None, 16, 7, 7), (10, 16, 7, 5), (10, 16, 3, 3), (1, 16, 7, 1)]
)
def test_eight_times_a_micro_batchs_tokens_are_sampled_at_once(budget, width, rows, fit):
    assert (
        rollout_module._rows_that_fit(SimpleNamespace(sharded=False, tokens_per_microbatch=budget), width, rows) == fit
    )


@pytest.mark.parametrize(
    ("budget", "kept", "sizes"),
    [
        (None, 10_000, [7]),
        (None, 400, [4, 4]),  # four fit: two pieces, as even as can be
        (None, 300, [3, 3, 3]),
        (None, 50, [1] * 7),
        (23, 10_000, [2] * 4),  # 8 · 23 tokens of 64 + 3 a row
    ],
)
def test_graphs_take_pieces_of_one_size_and_what_fills_the_last_is_thrown_away(budget, kept, sizes, monkeypatch):
    asked = []

    def sample(policy, memory, index, draws, temperature):
        asked.append((len(index), draws.shape, temperature))
        ids = index.unsqueeze(1).expand(-1, 2)
        return ids, ids > 0, draws[:, :2], draws[:, :2] * 2

    monkeypatch.setattr(rollout_module.graphs, "sample", sample)
    monkeypatch.setattr(rollout_module.graphs, "width_of", lambda memory: 64)
    monkeypatch.setattr(rollout_module.graphs, "kept_bytes", lambda device: kept)
    monkeypatch.setattr(rollout_module.graphs, "row_bytes", lambda policy, memory, limit: 100 if limit == 3 else 1)
    policy = SimpleNamespace(sharded=False, tokens_per_microbatch=budget, device=None)
    index, uniforms = torch.arange(7), torch.arange(21.0).view(7, 3)
    parts = rollout_module._graph_pieces(policy, None, index, uniforms, 0.7)
    assert asked == [(size, (size, 3), 0.7) for size in sizes]
    ids, mask, logprobs, values = (torch.cat(column) for column in zip(*parts, strict=True))
    assert ids[:, 0].tolist() == list(range(7))
    assert torch.equal(logprobs, uniforms[:, :2])
    assert torch.equal(values, uniforms[:, :2] * 2)
    assert len(mask) == 7


@pytest.mark.parametrize(
    ("exact", "off", "found"),
    [
        (None, 0.01, (True, None, 0.0, 0.5)),  # exact, from now on
        (None, -0.02, (None, 0.02, -0.02, 7.0)),
        (False, -0.01, (False, 0.01, 0.0, 0.5)),
        (False, 0.02, (False, 0.02, 0.02, 7.0)),
    ],
)
def test_what_sampling_recorded_gives_way_where_it_is_off_by_more_than_a_hundredth(exact, off, found, monkeypatch):
    """In the first token of the two; both are computed anew, and the values with them."""
    rollout = made_rollout([2], old=torch.zeros(1, 2, dtype=torch.float64), values=0.5)
    again = rollout.old_logprobs + torch.tensor([[off, 0.0]], dtype=torch.float64)
    monkeypatch.setattr(rollout_module, "teacher_forced", lambda *_: (again, torch.full((1, 2), 7.0)))
    policy = SimpleNamespace(exact=exact)
    result = rollout_module._rescored(policy, rollout, made_config())
    mismatch = None if result.mismatch is None else pytest.approx(result.mismatch)
    assert (policy.exact, mismatch, result.old_logprobs[0, 0].item(), result.old_values[0, 0].item()) == (
        found[0],
        found[1],
        pytest.approx(found[2]),
        found[3],
    )
    without = rollout_module._rescored(policy, replace(rollout, old_values=None), made_config())
    assert without.old_values is None


@pytest.mark.parametrize(
    ("lighter", "kept", "budgets"), [(1, {}, [20, 10]), (8, {}, [2, 1]), (1, {"graph": 1}, [None, 20, 10])]
)
def test_where_memory_runs_out_the_tokens_are_halved_down_to_a_row(lighter, kept, budgets, monkeypatch):
    """Four rows of ten tokens; what sampling keeps goes first."""
    emptied, tried = [], []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(True))
    policy = SimpleNamespace(sharded=False, tokens_per_microbatch=None, can_replay=True, passes={})
    policy.let_go = lambda: bool(kept) and not kept.clear()
    kept = dict(kept)

    def run():
        tried.append(policy.tokens_per_microbatch)
        assert not kept or len(tried) == 1
        raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):
        rollout_module.within_memory(policy, 4, 10, run, lighter)
    assert tried == [None, *budgets]
    assert len(emptied) == len(budgets)
    assert rollout_module.within_memory(policy, 4, 10, lambda: "done") == "done"


def test_numbers_that_are_none_are_said_with_when():
    require_finite(torch.tensor([0.0, -1.0]), "step 3")
    with pytest.raises(RunError, match=r"^step 3: the model's logits are not finite"):
        require_finite(torch.tensor([0.0, float("nan")]), "step 3")


@pytest.mark.parametrize(("fast", "pieces"), [(True, [[2, 0], [1], [3]]), (False, [[0, 1], [2], [3]])])
def test_micro_batches_keep_to_their_tokens_with_padding_and_responses(fast, pieces):
    """Prompts of 2, 4, 1 and 6 tokens, responses of at most 2: side by side, 2 · (2 + 2) or 2 · (4 + 2) tokens, of 12."""
    rollout = made_rollout([1, 2, 1, 2])
    mask = (torch.arange(6) < torch.tensor([2, 4, 1, 6])[:, None]).long()
    rollout = replace(rollout, prompts=replace(rollout.prompts, attention_mask=mask))
    policy = SimpleNamespace(sharded=False, tokens_per_microbatch=12)
    config = made_config(fast=fast, micro_batch_size=2)
    found = rollout_module.micro_batches(policy, rollout, torch.arange(4), config)
    assert [piece.tolist() for piece in found] == pieces


def test_where_memory_runs_out_passes_are_no_longer_captured(monkeypatch):
    """Their graphs take memory of their own: without them first, and the same number of tokens."""
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    policy = SimpleNamespace(sharded=False, tokens_per_microbatch=None, can_replay=True, passes={"graph": 1})
    policy.let_go = lambda: bool(policy.passes) and not policy.passes.clear()
    tried = []

    def run():
        tried.append((policy.can_replay, policy.tokens_per_microbatch))
        if len(tried) == 1:
            raise torch.OutOfMemoryError
        return "done"

    assert rollout_module.within_memory(policy, 4, 10, run) == "done"
    assert tried == [(True, None), (False, None)]
