"""Sampling in fixed buffers, as a GPU's graph does it: here step by step, and captured where there is a GPU."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from transformers import AutoTokenizer, BartConfig, BartForConditionalGeneration, MT5Config, MT5ForConditionalGeneration

from softspoken import mini
from softspoken.config import TrainConfig
from softspoken.data.prompts import PromptFormat, encode_prompts
from softspoken.rl import graphs, rollout
from softspoken.rl.loading import load_policy
from softspoken.rl.policy import Policy
from softspoken.types import Example

LIMIT = 20
SAMPLES = 3
SPECIAL = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}


def policy_of(folder: Path, device: str = "cpu", *, double: bool = True, **changes) -> Policy:
    """In float64, where the two ways differ by next to nothing; in float32 a draw may fall between two roundings."""
    policy = load_policy(TrainConfig(model=str(folder), lora_r=2, device=device, **changes))
    if double:
        policy.model.double()
    torch.nn.init.normal_(policy.value_head.weight, std=0.25)  # of 16 weights: values of about 1
    move(policy)
    return policy


def move(policy: Policy) -> None:
    """In place, as an optimizer does it."""
    with torch.no_grad():
        for name, weight in policy.adapter_parameters().items():
            if "lora_B" in name:
                weight.normal_(std=0.3)


def both_ways(policy: Policy, dialogues, *, seed=0, temperature=1.0, limit=LIMIT, eos=0.0, capture=False):
    """(plain, in buffers), each ids, mask, logprobs and values, of the same prompts and uniforms.

    `eos` makes ends likelier: a row ends where its uniform is 0, and at token 1 is the end, the first that can come out.
    """
    prompts = encode_prompts(dialogues, policy.tokenizer, policy.prompt_format)
    index = torch.arange(len(dialogues), device=policy.device).repeat_interleave(SAMPLES)
    generator = torch.Generator().manual_seed(seed)
    uniforms = torch.rand((len(index), limit), generator=generator)
    uniforms[torch.rand(uniforms.shape, generator=generator) < eos] = 0.0
    uniforms = uniforms.to(policy.device)
    with torch.no_grad():
        memory = policy.read(prompts.input_ids.to(policy.device), prompts.attention_mask.to(policy.device), 2)
        plain = rollout.sample_rows(policy, memory, index, uniforms, temperature)
        return plain, graphs.sample(policy, memory, index, uniforms, temperature, capture=capture)


def check_equal(plain, buffered, tolerance: float = 1e-6) -> None:
    assert torch.equal(plain[0], buffered[0])
    assert torch.equal(plain[1], buffered[1])
    for one, other in zip(plain[2:], buffered[2:], strict=True):
        assert one.shape == other.shape
        assert (one - other).abs().max() < tolerance


@pytest.fixture
def others() -> list[Example]:
    """As many as `dialogues`, of other lengths, the longest shorter than theirs."""
    return [
        Example(str(place), text) for place, text in enumerate(["a: b", "Tom: yes\nAnn: no", "Zoe: ok then", "c: d?"])
    ]


class Tape(TorchDispatchMode):
    """A CPU's stand-in for a CUDA graph: the operations of one step with all numbers as they were then, run again and again."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        self.calls.append((operation, args, kwargs or {}, result))
        return result

    def replay(self) -> None:
        self.replayed()

    def replayed(self) -> dict[int, torch.Tensor]:
        """By the identity of what an operation gave when it was recorded: what it gives now."""
        now = {}
        for operation, args, kwargs, before in self.calls:
            args, kwargs = tree_map_only(torch.Tensor, lambda tensor: now.get(id(tensor), tensor), (args, kwargs))
            result = operation(*args, **kwargs)
            for old, new in zip(tensors(before), tensors(result), strict=True):
                now[id(old)] = new
        return now


def tensors(result) -> list[torch.Tensor]:
    parts = result if isinstance(result, (tuple, list)) else [result]
    return [part for part in parts if isinstance(part, torch.Tensor)]


def record(self: graphs._Buffers) -> None:
    with Tape() as self.graph:
        self.step()
    self._rewind()


@pytest.mark.parametrize("scope", ["all", "decoder"])
def test_a_recorded_step_run_again_samples_what_plain_sampling_does(
    tiny_t5_each, dialogues, others, scope, monkeypatch
):
    monkeypatch.setattr(graphs._Buffers, "capture", record)
    policy = policy_of(tiny_t5_each, adapter_scope=scope)
    check_equal(*both_ways(policy, dialogues, temperature=0.7, capture=True))
    (kept,) = policy.sampling_buffers.values()
    move(policy)
    check_equal(*both_ways(policy, others, seed=1, temperature=0.7, eos=0.2, capture=True))
    assert list(policy.sampling_buffers.values()) == [kept]
    names = {operation.overloadpacket.__name__ for operation, *_ in kept.graph.calls}
    # What makes the host wait for the GPU, or copies a number to it, cannot be captured.
    assert not names & {"_local_scalar_dense", "nonzero", "scalar_tensor", "lift_fresh", "is_nonzero", "equal"}


@pytest.mark.parametrize("scope", ["all", "decoder"])
def test_buffers_give_what_plain_sampling_gives_and_are_used_again(tiny_t5_each, dialogues, others, scope):
    policy = policy_of(tiny_t5_each, adapter_scope=scope)
    check_equal(*both_ways(policy, dialogues, temperature=0.7))
    (kept,) = policy.sampling_buffers.values()
    first_keys = kept.cache.cross_attention_cache.layers[0].keys.data_ptr()
    move(policy)
    check_equal(*both_ways(policy, others, seed=1, temperature=0.7, eos=0.2))
    check_equal(*both_ways(policy, dialogues, seed=2, temperature=0.7))
    assert list(policy.sampling_buffers.values()) == [kept]
    assert kept.cache.cross_attention_cache.layers[0].keys.data_ptr() == first_keys


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_what_buffers_record_is_what_transformers_own_forward_pass_makes_of_it(tiny_t5_each, dialogues, temperature):
    """Nothing of the policy's own: its model's logits, the temperature, an inverse cumulative sum of NumPy's."""
    policy = policy_of(tiny_t5_each)
    _, (ids, mask, logprobs, values) = both_ways(policy, dialogues, temperature=temperature, eos=0.2)
    generator = torch.Generator().manual_seed(0)
    uniforms = torch.rand((len(ids), LIMIT), generator=generator)
    uniforms[torch.rand(uniforms.shape, generator=generator) < 0.2] = 0.0
    inputs = policy.tokenizer([one.text for one in dialogues], padding=True, return_tensors="pt")
    inputs = {name: part.repeat_interleave(SAMPLES, dim=0) for name, part in inputs.items()}
    read = torch.cat([torch.zeros_like(ids[:, :1]), ids[:, :-1]], dim=1)
    with torch.no_grad():
        given = policy.model(**inputs, decoder_input_ids=read, output_hidden_states=True)
        expected_values = policy.value_head(given.decoder_hidden_states[-1].float()).squeeze(-1)
    logits = given.logits.double().numpy() / temperature
    logits[..., 0] = logits[..., len(policy.tokenizer) :] = -np.inf
    shares = np.exp(logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True))
    ended = np.zeros(len(ids), dtype=bool)
    for token in range(ids.shape[1]):
        cumulative = shares[:, token].cumsum(axis=-1)
        drawn = (cumulative > uniforms[:, token : token + 1].numpy()).argmax(axis=-1)
        assert mask[:, token].tolist() == (~ended).tolist()
        assert ids[~ended, token].tolist() == drawn[~ended].tolist()
        found = logprobs[~ended, token].numpy(), values[~ended, token].numpy()
        assert found[0] == pytest.approx(np.log(shares[~ended, token, drawn[~ended]]), abs=1e-4)
        assert found[1] == pytest.approx(expected_values[~ended, token].numpy(), abs=1e-4)
        ended |= drawn == 1
    assert ended.sum() > 0


def test_what_is_forbidden_later_does_not_come_out_of_a_recorded_step(tiny_t5, dialogues, monkeypatch):
    monkeypatch.setattr(graphs._Buffers, "capture", record)
    policy = policy_of(tiny_t5)
    _, (ids, *_) = both_ways(policy, dialogues, capture=True)
    forbidden = policy.forbidden.clone()
    forbidden[ids[:, 0]] = True
    policy.forbid(forbidden)
    plain, again = both_ways(policy, dialogues, capture=True)
    check_equal(plain, again)
    assert not set(again[0].flatten().tolist()) & set(ids[:, 0].tolist())


def test_what_was_returned_stays_when_the_buffers_are_used_again(tiny_t5, dialogues, others):
    policy = policy_of(tiny_t5)
    _, first = both_ways(policy, dialogues)
    copies = [part.clone() for part in first]
    both_ways(policy, others, seed=1)
    assert all(torch.equal(one, other) for one, other in zip(first, copies, strict=True))


def test_an_early_end_is_noticed(tiny_t5, dialogues, monkeypatch):
    policy = policy_of(tiny_t5)
    steps = []
    step = graphs._Buffers.step
    monkeypatch.setattr(graphs._Buffers, "step", lambda self: (steps.append(1), step(self)))
    plain, buffered = both_ways(policy, dialogues, limit=60, eos=0.9)
    check_equal(plain, buffered)
    assert 1 < plain[0].shape[1] < 60 - graphs.CHECK_EVERY
    assert not plain[1].all(), "some end before others"
    assert len(steps) == -(-plain[0].shape[1] // graphs.CHECK_EVERY) * graphs.CHECK_EVERY


def test_in_single_precision_the_two_ways_differ_by_rounding(tiny_t5, dialogues):
    check_equal(*both_ways(policy_of(tiny_t5, double=False), dialogues), tolerance=1e-5)


def test_a_multilingual_t5_samples_the_same(tmp_path, dialogues):
    vocab_size = len(AutoTokenizer.from_pretrained(mini.path))
    shape = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_heads": 2, "num_layers": 1, "num_decoder_layers": 3}
    torch.manual_seed(0)
    save(MT5ForConditionalGeneration(MT5Config(vocab_size=vocab_size, **shape, **SPECIAL)), tmp_path)
    policy = policy_of(tmp_path)
    assert graphs.applies_to(policy)
    check_equal(*both_ways(policy, dialogues))


def test_other_families_are_left_to_plain_sampling(tmp_path):
    size = {f"{side}_{what}": 2 for side in ("encoder", "decoder") for what in ("layers", "attention_heads", "ffn_dim")}
    vocab_size = len(AutoTokenizer.from_pretrained(mini.path))
    config = BartConfig(
        vocab_size=vocab_size, d_model=16, max_position_embeddings=64, bos_token_id=2, **size, **SPECIAL
    )
    save(BartForConditionalGeneration(config), tmp_path)
    assert not graphs.applies_to(policy_of(tmp_path))


def save(model, folder: Path) -> None:
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(mini.path).save_pretrained(folder)
    PromptFormat(template="{dialogue}", max_prompt_tokens=100).save(folder)


def test_eager_attention_samples_the_same(tiny_t5, dialogues):
    policy = policy_of(tiny_t5)
    policy.seq2seq.set_attn_implementation("eager")
    check_equal(*both_ways(policy, dialogues))


def test_little_is_kept(tiny_t5, dialogues, monkeypatch):
    policy = policy_of(tiny_t5)
    for limit in (3, 4, 5, 3):
        check_equal(*both_ways(policy, dialogues, limit=limit))
    assert [key[1] for key in policy.sampling_buffers] == [4, 5, 3], "the last used comes last"
    sizes = [kept.bytes for kept in policy.sampling_buffers.values()]
    monkeypatch.setattr(graphs, "ELSEWHERE", sum(sizes[1:]) + sizes[-1] * 2)
    check_equal(*both_ways(policy, dialogues, limit=6))
    assert [key[1] for key in policy.sampling_buffers] == [5, 3, 6]


def test_the_optimizer_moves_weights_in_place_and_a_replaced_one_makes_new_buffers(tiny_t5, dialogues):
    policy = policy_of(tiny_t5)
    both_ways(policy, dialogues)
    (kept,) = policy.sampling_buffers.values()
    weights = list(policy.trainable().values())
    places, before = [weight.data_ptr() for weight in weights], [weight.detach().clone() for weight in weights]
    optimizer = torch.optim.AdamW(weights, lr=0.1)
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    with policy.reference():
        pass
    assert all(not torch.equal(weight, old) for weight, old in zip(weights, before, strict=True))
    assert [weight.data_ptr() for weight in policy.trainable().values()] == places
    check_equal(*both_ways(policy, dialogues))
    assert list(policy.sampling_buffers.values()) == [kept]
    weights[0].data = weights[0].data.clone()
    check_equal(*both_ways(policy, dialogues))
    (renewed,) = policy.sampling_buffers.values()
    assert renewed is not kept


def sampled(policy: Policy, dialogues, *, seed: int = 3, **changes) -> rollout.Sampled:
    """What a training step samples of these prompts."""
    settings = {"max_new_tokens": LIMIT, "samples_per_prompt": SAMPLES, "device": "cpu"}
    config = TrainConfig(**settings | changes)
    prompts = encode_prompts(dialogues, policy.tokenizer, policy.prompt_format)
    return rollout.sample(policy, prompts, config, torch.Generator().manual_seed(seed))[2]


def test_under_a_token_budget_a_graph_serves_all_pieces_of_all_batches(tiny_t5, dialogues, others, monkeypatch):
    monkeypatch.setattr(graphs._Buffers, "capture", lambda self: None)
    policy = policy_of(tiny_t5)
    plain = [sampled(policy, some, seed=seed) for seed, some in enumerate((dialogues, others, dialogues[::-1]))]
    policy.can_capture = True
    policy.tokens_per_microbatch = (graphs.WIDTH + LIMIT) * 5 // rollout.LIGHTER + 1  # five rows of the rounded width
    pieces = [sampled(policy, some, seed=seed) for seed, some in enumerate((dialogues, others, dialogues[::-1]))]
    for one, other in zip(plain, pieces, strict=True):
        check_equal(one, other)
    assert [key[:2] for key in policy.sampling_buffers] == [(4, LIMIT)], "12 rows in three pieces, one graph"


def test_pieces_keep_within_what_may_be_kept(tiny_t5, dialogues, monkeypatch):
    monkeypatch.setattr(graphs._Buffers, "capture", lambda self: None)
    policy = policy_of(tiny_t5)
    whole = sampled(policy, dialogues)
    policy.can_capture = True
    monkeypatch.setattr(graphs, "row_bytes", lambda policy, memory, limit: 10)
    monkeypatch.setattr(graphs, "ELSEWHERE", 70)
    check_equal(whole, sampled(policy, dialogues))
    assert [(key[0], kept.bytes) for key, kept in policy.sampling_buffers.items()] == [(6, 60)], (
        "two pieces, not 7 and 5"
    )


def fail_to_capture(error: Exception):
    def captured(device, work):
        raise error

    return captured


def test_where_a_step_cannot_be_captured_sampling_goes_on_plainly_and_says_so_once(
    tiny_t5, dialogues, monkeypatch, caplog
):
    policy = policy_of(tiny_t5)
    plain = sampled(policy, dialogues)
    policy.can_capture = True
    error = graphs.CaptureError("operation not permitted when stream is capturing")
    monkeypatch.setattr(graphs, "captured", fail_to_capture(error))
    for _ in range(2):
        check_equal(plain, sampled(policy, dialogues))
    said = [message for message in caplog.messages if message.startswith("sampling goes on without captured graphs")]
    assert len(said) == 1
    assert said[0].endswith("slower: operation not permitted when stream is capturing")


def test_a_rollout_takes_this_way_on_a_gpu_alone(tiny_t5, dialogues, monkeypatch):
    def refuse(*args, **settings):
        raise AssertionError

    monkeypatch.setattr(graphs, "sample", refuse)
    policy = policy_of(tiny_t5)
    config = TrainConfig(model=str(tiny_t5), max_new_tokens=4, device="cpu")
    prompts = encode_prompts(dialogues, policy.tokenizer, policy.prompt_format)
    rollout.generate_rollout(policy, prompts, config, torch.Generator())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("scope", ["all", "decoder"])
def test_a_captured_step_samples_what_plain_sampling_does(tiny_t5_each, dialogues, others, scope):
    policy = policy_of(tiny_t5_each, "cuda", adapter_scope=scope)
    check_equal(*both_ways(policy, dialogues, temperature=0.7, capture=True))
    (kept,) = policy.sampling_buffers.values()
    assert kept.graph is not None
    move(policy)
    check_equal(*both_ways(policy, others, seed=1, temperature=0.7, eos=0.2, capture=True))
    assert list(policy.sampling_buffers.values()) == [kept]
    check_equal(*both_ways(policy, dialogues, limit=60, eos=0.9, capture=True))
    config = TrainConfig(model=str(tiny_t5_each), max_new_tokens=LIMIT, samples_per_prompt=SAMPLES, device="cuda")
    prompts = encode_prompts(dialogues, policy.tokenizer, policy.prompt_format)
    fast, plain = (
        rollout.generate_rollout(policy, prompts, replace(config, fast=fast), torch.Generator().manual_seed(3))
        for fast in (True, False)
    )
    assert len(policy.sampling_buffers) == 3, "the fast one is sampled in buffers of its own"
    assert torch.equal(fast.response_ids, plain.response_ids)
    assert (fast.ref_logprobs - plain.ref_logprobs).abs().max() < 1e-4
