"""Scoring and updates in buffers of fixed shapes, as a GPU's graphs do it: here step by step and as a tape, captured where there is a GPU."""

from dataclasses import replace

import pytest
import torch

from softspoken.config import TrainConfig
from softspoken.data.prompts import encode_prompts
from softspoken.rl import chosen, graphs, groups, ppo, replays
from softspoken.rl.loading import load_policy
from softspoken.rl.rollout import generate_rollout, score_rows, teacher_forced
from softspoken.types import Example, Memory, Scores
from tests.component.rl.test_graphs import Tape, move

DIALOGUES = [
    Example(str(place), text)
    for place, text in enumerate(["Nora: where are you, I am waiting\nTom: nearly there", "a: b", "Tom: yes", "c: d?"])
]


WAITS = {"_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select"}
"""What makes the host wait for the GPU, which a capture does not allow."""


class GradientTape(Tape):
    """Recording adds nothing to gradients, and a replay leaves what it finds where the recording did."""

    def __init__(self, work, left, gradients):
        super().__init__()
        self.left = left
        before = [gradient.clone() for gradient in gradients]
        with self:
            work()
        for gradient, was in zip(gradients, before, strict=True):
            gradient.copy_(was)

    def replay(self):
        now = self.replayed()
        for tensor in self.left().values():
            if id(tensor) in now:
                tensor.copy_(now[id(tensor)])

    def pool(self):
        return None


def settings(folder, scope, **changes):
    plain = {
        "model": str(folder),
        "device": "cpu",
        "lora_r": 2,
        "adapter_scope": scope,
        "samples_per_prompt": 3,
        "max_new_tokens": 20,
        "mini_batch_size": 8,
        "micro_batch_size": 5,
        "ppo_epochs": 3,
        "target_kl": None,
    }
    return TrainConfig(**(plain | changes))


def updated(config, monkeypatch, how, loss=ppo, captured=None):
    """(where weights end, references, metrics, policy) of two steps, plainly or in buffers, on a tape or not."""
    torch.manual_seed(3)
    policy = load_policy(config)
    policy.model.double()  # in float32 the two ways' roundings grow over eighteen mini-batches at this rate
    move(policy)
    if config.trains_whole_model:
        policy.keep_start()
    torch.nn.init.normal_(policy.value_head.weight, std=0.25)
    policy.can_replay = how != "plain"
    monkeypatch.setattr(replays, "applies_to", lambda policy, config: policy.can_replay)
    monkeypatch.setattr(replays, "WARM_UP", 1 if how == "tape" else 10**9)

    def recorded(device, work, pool):
        made = work.__self__
        return GradientTape(
            work, lambda: made.left, [w.grad for w in policy.trainable().values() if w.grad is not None]
        )

    monkeypatch.setattr(graphs, "captured", captured or recorded)
    optimizer = torch.optim.SGD(policy.trainable().values(), lr=0.1)
    references, stats, kl_coef = [], [], config.kl_coef
    for step in range(2):
        policy.thin(torch.Generator().manual_seed(step))
        prompts = encode_prompts(DIALOGUES, policy.tokenizer, policy.prompt_format)
        rollout = generate_rollout(policy, prompts, config, torch.Generator().manual_seed(step))
        scores = Scores(torch.linspace(0, 1, len(rollout.responses)), {})
        experience = loss.build_experience(rollout, scores, config, kl_coef)
        stats.append(loss.update(policy, optimizer, experience, config, torch.Generator().manual_seed(step)))
        references.append(rollout.ref_logprobs)
        kl_coef = ppo.next_kl_coef(kl_coef, 1.0, len(rollout.responses), config)
    return [w.detach().clone() for w in policy.trainable().values()], references, stats, policy


def test_where_a_pass_cannot_be_captured_it_runs_as_it_is_and_says_so_once(tiny_t5, monkeypatch, caplog):
    config = settings(tiny_t5, "decoder")
    weights, *_ = updated(config, monkeypatch, "plain")

    def captured(device, work, pool):
        raise graphs.CaptureError("operation not permitted when stream is capturing\nand more")

    same, _, _, policy = updated(config, monkeypatch, "tape", captured=captured)
    for one, other in zip(weights, same, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    assert not policy.can_replay
    said = [message for message in caplog.messages if message.startswith("scoring and updates go on without captured")]
    assert len(said) == 1
    assert said[0].endswith("slower: operation not permitted when stream is capturing")
    assert not policy.passes, "what was kept for graphs is let go"


def test_a_graph_is_captured_again_where_gradients_lie_elsewhere(tiny_t5, monkeypatch):
    """It adds to those that it knows: what it was captured with may be gone."""
    *_, policy = updated(settings(tiny_t5, "decoder"), monkeypatch, "tape")
    made = next(made for (learns, *_), made in policy.passes.items() if learns and made.graph is not None)
    before = made.graph
    made.run(capture=True)
    assert made.graph is before
    policy.model.zero_grad(set_to_none=True)
    made.run(capture=True)
    assert made.graph is None, "run once as it is, which makes gradients to add to"
    made.run(capture=True)
    assert made.graph not in (None, before)


def test_those_unused_for_longest_are_let_go(tiny_t5, monkeypatch):
    monkeypatch.setattr(replays, "MOST", 2)
    *_, policy = updated(settings(tiny_t5, "decoder"), monkeypatch, "buffers")
    assert len(policy.passes) == 2
    assert policy.let_go()
    assert not policy.passes
    assert not policy.let_go()


def test_a_process_scores_in_buffers_what_it_alone_has_read(tiny_t5, monkeypatch):
    """Its memory begins with the first of its own prompts, here the third of four."""
    config = settings(tiny_t5, "decoder")
    policy = load_policy(config)
    move(policy)
    prompts = encode_prompts(DIALOGUES, policy.tokenizer, policy.prompt_format)
    rollout = generate_rollout(policy, prompts, config, torch.Generator().manual_seed(0))
    read = rollout.memory
    own = Memory(read.states[2:], read.attention_mask[2:], [(keys[2:], values[2:]) for keys, values in read.cross])
    rows = torch.tensor([8, 6, 11])
    expected = score_rows(policy, rollout, rows, config)
    monkeypatch.setattr(replays, "applies_to", lambda policy, config: True)
    found = teacher_forced(policy, replace(rollout, own=slice(2, 4), memory=own), config, rows)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one[rows, : other.shape[1]], other, atol=1e-5, rtol=1e-5)
    assert policy.passes


def test_no_more_is_kept_than_there_is_room_for(tiny_t5, monkeypatch):
    *_, policy = updated(settings(tiny_t5, "decoder"), monkeypatch, "buffers")
    bytes_of = [made.bytes for made in policy.passes.values()]
    made = next(made for made in policy.passes.values() if made.shape.remembered)
    cross = sum(part.nbytes for pair in made.own.rollout.memory.cross for part in pair)
    assert cross < made.bytes < 2 * cross + 10_000
    monkeypatch.setattr(graphs, "ELSEWHERE", sum(bytes_of[-2:]))
    replays._keep_within(policy.passes, graphs.kept_bytes(policy.device))
    assert [made.bytes for made in policy.passes.values()] == bytes_of[-2:]
    replays._keep_within(policy.passes, 0)
    assert len(policy.passes) == 1, "the one that runs"


def test_nothing_is_captured_anew_where_the_kls_weight_moves_in_the_reward(tiny_t5, monkeypatch):
    made, begin = [], replays.Pass.__init__
    monkeypatch.setattr(replays.Pass, "__init__", lambda self, *given: (made.append(self), begin(self, *given))[1])
    config = settings(tiny_t5, "decoder", kl_controller="adaptive", kl_in="reward", kl_coef=0.1)
    *_, policy = updated(config, monkeypatch, "buffers")
    assert len(made) == len(policy.passes)


@pytest.mark.parametrize("how", ["buffers", "tape"])
@pytest.mark.parametrize(
    ("scope", "loss", "changes"),
    [
        ("decoder", ppo, {}),
        ("all", ppo, {"value_head_detached": False}),
        ("all", groups, {"algorithm": "grpo", "loss_normalization": "sequence", "kl_in": "loss"}),
    ],
)
def test_two_steps_in_buffers_end_where_two_plain_ones_do(tiny_t5, scope, loss, changes, how, monkeypatch):
    require_the_same(tiny_t5, scope, loss, changes, how, monkeypatch)


@pytest.mark.parametrize(
    ("loss", "changes"),
    [
        (groups, {"algorithm": "rloo", "importance_ratio": "sequence", "loss_normalization": "constant"}),
        (groups, {"algorithm": "grpo", "surrogate": "cispo", "kl_in": "loss", "kl_estimator": "k1"}),
        (ppo, {"dual_clip": 3.0, "temperature": 0.7, "tokens_per_microbatch": 120}),
        (ppo, {"lora_dropout": 0.3}),
        (ppo, {"trained": "full"}),
        (chosen, {"algorithm": "best_of_n"}),
    ],
)
def test_so_do_those_of_other_losses_and_kinds_of_training(tiny_t5, loss, changes, monkeypatch):
    require_the_same(tiny_t5, "decoder", loss, {**changes, "ppo_epochs": 1, "max_new_tokens": 9}, "tape", monkeypatch)


def require_the_same(tiny_t5, scope, loss, changes, how, monkeypatch):
    config = settings(tiny_t5, scope, **changes)
    weights, references, stats, _ = updated(config, monkeypatch, "plain", loss)
    same, same_references, same_stats, policy = updated(config, monkeypatch, how, loss)
    assert policy.passes, "nothing went through buffers"
    captured = [made for made in policy.passes.values() if made.graph is not None]
    assert bool(captured) == (how == "tape")
    for one, other in zip(references, same_references, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    for one, other in zip(weights, same, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    assert stats[1].policy_loss == pytest.approx(same_stats[1].policy_loss, abs=1e-5)
    assert stats[1].approx_kl == pytest.approx(same_stats[1].approx_kl, abs=1e-5)
    for made in captured:
        assert {call[0].overloadpacket.__name__ for call in made.graph.calls} & WAITS == set()
        from_the_host = [
            given[0] for call, given, *_ in made.graph.calls if call.overloadpacket.__name__ == "lift_fresh"
        ]
        assert all(tensor.numel() == 0 for tensor in from_the_host), "a number would be copied to the GPU"
