"""The conventions of the design's section 4, on tiny random models of each family."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, TaskType, get_peft_model
from torch.backends import mkl
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BartConfig,
    BartForConditionalGeneration,
    GenerationConfig,
    MT5Config,
    MT5ForConditionalGeneration,
    PegasusConfig,
    PegasusForConditionalGeneration,
    T5GemmaConfig,
    T5GemmaForConditionalGeneration,
)

from likely_end import with_likely_end
from softspoken import mini
from softspoken.config import TrainConfig
from softspoken.data.prompts import PromptFormat, encode_prompts
from softspoken.models.cpu import FrozenProduct
from softspoken.models.generation import require_finite
from softspoken.rl import numerics
from softspoken.rl.loading import load_policy, load_value_head
from softspoken.rl.policy import Policy
from softspoken.rl.rollout import (
    LIGHTER,
    MISMATCH,
    generate_rollout,
    micro_batches,
    reference_logprobs,
    sample_rows,
    score_rows,
    within_memory,
)
from softspoken.types import InputError, RunError

SIZE = {
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
}
FFN = {"encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_position_embeddings": 128}
SPECIAL = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}


def family(name: str):
    vocab_size = len(AutoTokenizer.from_pretrained(mini.path))
    torch.manual_seed(0)
    if name == "bart":
        config = BartConfig(vocab_size=vocab_size, **SIZE, **FFN, **SPECIAL, bos_token_id=2, forced_bos_token_id=2)
        return BartForConditionalGeneration(config)
    if name == "pegasus":
        return PegasusForConditionalGeneration(PegasusConfig(vocab_size=vocab_size, **SIZE, **FFN, **SPECIAL))
    if name == "mt5":
        shape = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_heads": 2, "num_layers": 2, "num_decoder_layers": 2}
        return MT5ForConditionalGeneration(MT5Config(vocab_size=vocab_size, **shape, **SPECIAL))
    shape = {
        "vocab_size": vocab_size,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 8,
    }
    return T5GemmaForConditionalGeneration(
        T5GemmaConfig(encoder=shape, decoder=shape, vocab_size=vocab_size, **SPECIAL)
    )


@pytest.fixture(scope="session", params=["bart", "pegasus", "mt5", "t5gemma"])
def family_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    model = family(request.param)
    if request.param == "bart":
        model.generation_config = GenerationConfig(**SPECIAL, forced_bos_token_id=2)
    else:
        model.generation_config = GenerationConfig(**SPECIAL)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(mini.path).save_pretrained(folder)
    PromptFormat(template="{dialogue}", max_prompt_tokens=100).save(folder)
    return folder


def config_for(folder: Path, **changes) -> TrainConfig:
    base = TrainConfig(
        model=str(folder),
        max_new_tokens=8,
        samples_per_prompt=2,
        lora_r=2,
        adapter_scope="all",
        device="cpu",
        min_response_chars=0,
    )
    return replace(base, **changes)


def with_value_head(policy: Policy) -> Policy:
    """A head that is not 0, as after some training."""
    torch.nn.init.normal_(policy.value_head.weight, generator=torch.Generator().manual_seed(2))
    return policy


def rollout_of(folder: Path, dialogues, seed: int = 0, **changes):
    config = config_for(folder, **changes)
    policy = with_likely_end(with_value_head(load_policy(config)))
    prompts = encode_prompts(dialogues, policy.tokenizer, policy.prompt_format)
    return policy, config, generate_rollout(policy, prompts, config, torch.Generator().manual_seed(seed))


def all_rows(rollout) -> torch.Tensor:
    return torch.arange(len(rollout.responses))


def move_adapter(policy: Policy, size: float = 0.3) -> None:
    """What training does to the adapter, without training: lora_B leaves zero."""
    torch.manual_seed(1)
    for name, weight in policy.adapter_parameters().items():
        if "lora_B" in name:
            weight.data.normal_(std=size)


def check_conventions(folder: Path, dialogues) -> None:
    policy, config, rollout = rollout_of(folder, dialogues, temperature=0.7)
    mask = rollout.response_mask
    assert len(mask.sum(dim=1).unique()) > 1, "some must end early"
    # Teacher-forced log-probabilities equal the sampled ones, the first token's too (conventions 1 and 4).
    logprobs, values = score_rows(policy, rollout, all_rows(rollout), config)
    assert (logprobs - rollout.old_logprobs).abs().max() < 1e-5
    assert (values - rollout.old_values).abs().max() < 1e-5
    # With the adapter's B at zero the reference is the policy: KL is exactly 0 up to float error (convention 6).
    assert (rollout.ref_logprobs - rollout.old_logprobs).abs().max() < 1e-5
    # The mask is true through the first EOS, that EOS included (convention 2).
    for ids, row in zip(rollout.response_ids, mask, strict=True):
        ends = (ids == policy.eos_id).nonzero()
        expected = int(ends[0]) + 1 if len(ends) else len(ids)
        counted = torch.zeros_like(row)
        counted[:expected] = True
        if policy.forced_bos_id is not None:
            counted[0] = False
        assert row.tolist() == counted.tolist()
    # Once the adapter moves, policy and reference differ, and the reference stays what it was.
    move_adapter(policy)
    with torch.no_grad():
        moved, _ = score_rows(policy, rollout, all_rows(rollout), config)
        with policy.reference():
            reference, _ = score_rows(policy, rollout, all_rows(rollout), config)
    assert (moved - rollout.old_logprobs).abs().max() > 1e-3
    assert (reference - rollout.ref_logprobs).abs().max() < 1e-5


def test_conventions_hold_for_t5_tied_and_untied(tiny_t5_each, dialogues):
    check_conventions(tiny_t5_each, dialogues)


def test_conventions_hold_for_every_family(family_folder, dialogues):
    check_conventions(family_folder, dialogues)


def test_a_forced_first_token_is_in_the_ids_and_not_in_the_mask(tmp_path, dialogues):
    model = family("bart")
    model.generation_config = GenerationConfig(**SPECIAL, forced_bos_token_id=2)
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(mini.path).save_pretrained(tmp_path)
    _, _, rollout = rollout_of(tmp_path, dialogues)
    assert rollout.response_ids[:, 0].tolist() == [2] * len(rollout.responses)
    assert not rollout.response_mask[:, 0].any()
    assert rollout.response_mask[:, 1].all()


def test_every_end_that_the_generation_config_names_ends_a_response(tiny_t5, dialogues, tmp_path):
    _, _, plain = rollout_of(tiny_t5, dialogues)
    longest = int(plain.response_mask.sum(dim=1).argmax())
    end = int(plain.response_ids[longest, 2])
    folder = copied(tiny_t5, tmp_path / "two", eos_token_id=[1, end])
    _, _, rollout = rollout_of(folder, dialogues)
    first = plain.response_ids[longest].tolist().index(end)
    assert int(plain.response_mask[longest].sum()) > first + 1
    assert int(rollout.response_mask[longest].sum()) == first + 1
    assert rollout.response_ids[longest, first] == end
    assert not rollout.truncated[longest]


def test_a_summary_begins_as_generate_begins_it_or_the_file_to_mend_is_named(tiny_t5, tmp_path):
    bos = copied(tiny_t5, tmp_path / "bos", decoder_start_token_id=None, bos_token_id=5)
    assert load_policy(config_for(bos)).start_id == 5
    with pytest.raises(InputError, match=r"set decoder_start_token_id in its generation_config\.json"):
        load_policy(config_for(copied(tiny_t5, tmp_path / "none", decoder_start_token_id=None)))


def copied(source: Path, folder: Path, **generation) -> Path:
    """The same model, whose generation config alone says this."""
    shutil.copytree(source, folder)
    for name in ("config.json", "generation_config.json"):
        found = json.loads((folder / name).read_text())
        found = {key: value for key, value in found.items() if key not in generation}
        found |= generation if name.startswith("generation") else {}
        (folder / name).write_text(json.dumps(found))
    return folder


def test_ids_that_no_token_has_are_never_sampled_and_have_no_probability(tiny_t5_each, dialogues):
    policy, _, rollout = rollout_of(tiny_t5_each, dialogues, samples_per_prompt=16)
    sampled = rollout.response_ids[rollout.response_mask]
    assert sampled.max() < len(policy.tokenizer)
    assert (sampled != policy.pad_id).all()
    states = torch.randn(1, policy.value_head.in_features)
    logits = policy.logits(states, 1.0)
    assert torch.isinf(logits[0, len(policy.tokenizer) :]).all()
    assert torch.isinf(logits[0, policy.pad_id])


def transformers_logprobs(policy: Policy, text: str, temperature: float) -> torch.Tensor:
    """[V] of the first token, by the model's own forward pass: at a temperature, and without what has no token."""
    inputs = policy.tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        logits = policy.model(**inputs, decoder_input_ids=torch.tensor([[policy.start_id]])).logits[0, -1]
    logits[policy.pad_id] = logits[len(policy.tokenizer) :] = -math.inf
    return (logits / temperature).log_softmax(dim=-1)


def test_sampling_follows_the_distribution_that_is_scored(tiny_t5, dialogues):
    """The first tokens of many samples of one prompt come out as often as the model says at that temperature."""
    config = config_for(tiny_t5, samples_per_prompt=4000, temperature=0.15, max_new_tokens=1, micro_batch_size=4000)
    policy = load_policy(config)
    prompts = encode_prompts(dialogues[:1], policy.tokenizer, policy.prompt_format)
    rollout = generate_rollout(policy, prompts, config, torch.Generator().manual_seed(0))
    expected = transformers_logprobs(policy, dialogues[0].text, 0.15)
    assert torch.allclose(rollout.old_logprobs[:, 0], expected[rollout.response_ids[:, 0]], atol=1e-4)
    counts = rollout.response_ids[:, 0].bincount(minlength=len(expected)) / 4000
    likeliest = expected.topk(3).indices
    assert counts[likeliest] == pytest.approx(expected[likeliest].exp(), abs=0.03)
    # At temperature 1 every token is as rare as any other: were the logits multiplied, this one would not stand out.
    assert 0.1 < expected.max().exp() < 0.9


def test_a_temperature_divides_the_logits(tiny_t5):
    policy = load_policy(config_for(tiny_t5))
    states = torch.randn(3, policy.value_head.in_features)
    allowed = ~policy.forbidden
    plain, cold = (policy.logits(states, temperature)[:, allowed] for temperature in (1.0, 0.25))
    assert torch.allclose(cold, 4 * plain)


def test_what_is_forbidden_from_now_on_has_no_probability_and_no_graph_goes_on_with_it(tiny_t5):
    policy = load_policy(config_for(tiny_t5))
    policy.sampling_buffers["captured"] = "when 7 could come out"
    forbidden = policy.forbidden.clone()
    forbidden[7] = True
    policy.forbid(forbidden)
    assert policy.sampling_buffers == {}
    logits = policy.logits(torch.randn(1, policy.value_head.in_features), 1.0)[0]
    assert torch.isinf(logits).nonzero().flatten().tolist() == [policy.pad_id, 7]


def test_of_a_model_in_bfloat16_what_is_trained_is_float32(tiny_t5):
    policy = load_policy(config_for(tiny_t5, dtype="bfloat16"))
    assert policy.seq2seq.dtype == torch.bfloat16
    assert {weight.dtype for weight in policy.trainable().values()} == {torch.float32}
    frozen = {weight.dtype for weight in policy.model.parameters() if not weight.requires_grad}
    assert torch.bfloat16 in frozen


def test_padding_changes_nothing(tiny_t5_each, dialogues):
    """A row's log-probabilities and values are the same alone and beside longer prompts and responses."""
    policy, config, rollout = rollout_of(tiny_t5_each, dialogues)
    together, values = score_rows(policy, rollout, all_rows(rollout), config)
    for row in range(len(rollout.responses)):
        alone, value = score_rows(policy, rollout, torch.tensor([row]), config)
        assert (together[row, : alone.shape[1]] - alone[0]).abs().max() < 1e-5
        assert (values[row, : alone.shape[1]] - value[0]).abs().max() < 1e-5


def test_a_value_is_fixed_before_its_token_is_known(tiny_t5, dialogues):
    policy, config, rollout = rollout_of(tiny_t5, dialogues)
    _, before = score_rows(policy, rollout, all_rows(rollout), config)
    changed = rollout.response_ids.clone()
    changed[:, 3] = (changed[:, 3] + 7) % 8000 + 4
    _, after = score_rows(policy, replace(rollout, response_ids=changed), all_rows(rollout), config)
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.equal(before[:, 4:], after[:, 4:])


@pytest.mark.parametrize("detached", [True, False])
def test_the_configuration_says_whether_the_value_loss_reaches_the_adapter(tiny_t5, dialogues, detached):
    policy, config, rollout = rollout_of(tiny_t5, dialogues, value_head_detached=detached)
    move_adapter(policy)
    _, values = score_rows(policy, rollout, all_rows(rollout), config)
    values.sum().backward()
    reached = any(weight.grad is not None and weight.grad.any() for weight in policy.adapter_parameters().values())
    assert reached is not detached
    assert policy.value_head.weight.grad.any()


def test_the_same_seed_samples_the_same(tiny_t5, dialogues):
    first, second, other = (rollout_of(tiny_t5, dialogues, seed=seed)[2] for seed in (0, 0, 1))
    assert torch.equal(first.response_ids, second.response_ids)
    assert first.response_ids.tolist() != other.response_ids.tolist()


def test_dropout_is_off(tiny_t5, dialogues):
    policy, config, rollout = rollout_of(tiny_t5, dialogues)
    first, _ = score_rows(policy, rollout, all_rows(rollout), config)
    second, _ = score_rows(policy, rollout, all_rows(rollout), config)
    assert torch.equal(first, second)


def test_a_run_from_an_sft_adapter_has_that_adapter_as_its_reference(tiny_t5, dialogues, tmp_path):
    policy, _, _ = rollout_of(tiny_t5, dialogues)
    move_adapter(policy)
    policy.save(tmp_path / "sft", 8)
    started, config, rollout = rollout_of(tiny_t5, dialogues, adapter=str(tmp_path / "sft"))
    assert (rollout.ref_logprobs - rollout.old_logprobs).abs().max() < 1e-5
    bare = rollout_of(tiny_t5, dialogues)[2]
    assert bare.response_ids.tolist() != rollout.response_ids.tolist(), "the SFT adapter must matter"
    trained = set(started.adapter_parameters())
    assert trained
    assert not any("reference" in name for name in trained)
    with torch.no_grad():
        for weight in started.adapter_parameters().values():
            weight.add_(0.5)
        with started.reference():
            reference, _ = score_rows(started, rollout, all_rows(rollout), config)
    assert (reference - rollout.ref_logprobs).abs().max() < 1e-5
    assert set(started.adapter_parameters()) == trained


def test_the_saved_adapter_and_value_head_load_back(tiny_t5, dialogues, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForSeq2SeqLM

    policy, _, _ = rollout_of(tiny_t5, dialogues)
    move_adapter(policy)
    policy.save(tmp_path / "adapter", 8)
    base = AutoModelForSeq2SeqLM.from_pretrained(tiny_t5)
    plain = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "adapter")
    inputs = tokenizer([dialogue.text for dialogue in dialogues], padding=True, return_tensors="pt")
    start = torch.zeros(len(dialogues), 1, dtype=torch.long)
    expected = policy.model(**inputs, decoder_input_ids=start).logits
    assert torch.allclose(plain(**inputs, decoder_input_ids=start).logits, expected, atol=1e-5)
    other = load_policy(config_for(tiny_t5, seed=5))
    assert not torch.equal(other.value_head.weight, policy.value_head.weight)
    load_value_head(other, tmp_path / "adapter")
    assert torch.equal(other.value_head.weight, policy.value_head.weight)
    assert not list((tmp_path / "adapter").glob("*.bin"))


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_said_and_not_an_index_out_of_range(tiny_t5, dialogues, broken):
    policy, config, _ = rollout_of(tiny_t5, dialogues)
    with torch.no_grad():
        policy.seq2seq.get_decoder().final_layer_norm.weight[0] = broken
    prompts = encode_prompts(dialogues, policy.tokenizer, policy.prompt_format)
    rollout = generate_rollout(policy, prompts, config, torch.Generator().manual_seed(0))
    with pytest.raises(RunError, match=r"^step 7: the model's logits are not finite"):
        require_finite(rollout.old_logprobs, "step 7")


def check_reading_once_changes_nothing(folder: Path, dialogues) -> None:
    """Decoder-only scope: the memory of sampling gives the log-probabilities, and every adapter gradient, of plain passes."""
    policy, config, rollout = rollout_of(folder, dialogues, adapter_scope="decoder", micro_batch_size=3)
    assert rollout.memory is not None
    assert policy.cross_projections, "keys and values are to come from the memory"
    assert not any("encoder." in name for name in policy.adapter_parameters())
    move_adapter(policy)
    plain = replace(rollout, memory=None)
    gradients = []
    for one, settings in ((rollout, config), (plain, config), (plain, replace(config, fast=False))):
        logprobs, values = score_rows(policy, one, all_rows(one), settings)
        policy.model.zero_grad()
        (logprobs * torch.linspace(-1, 1, logprobs.numel()).view_as(logprobs)).sum().backward()
        gradients.append({name: weight.grad.clone() for name, weight in policy.adapter_parameters().items()})
        with torch.no_grad(), policy.reference():
            reference, _ = score_rows(policy, one, all_rows(one), config)
        assert (reference - rollout.ref_logprobs).abs().max() < 1e-5
        if one is rollout:
            expected = logprobs, values
        assert torch.allclose(logprobs, expected[0], rtol=1e-5, atol=1e-5)
        assert (values - expected[1]).abs().max() < 1e-5
    assert (logprobs - rollout.old_logprobs).abs().max() > 1e-3, "the adapter must matter"
    for name, gradient in gradients[2].items():
        assert all((other[name] - gradient).norm() <= 1e-4 * gradient.norm() for other in gradients[:2]), name
        assert gradient.any(), name


def test_reading_once_changes_nothing_for_t5(tiny_t5_each, dialogues):
    check_reading_once_changes_nothing(tiny_t5_each, dialogues)


def test_reading_once_changes_nothing_for_every_family(family_folder, dialogues):
    check_reading_once_changes_nothing(family_folder, dialogues)


def test_reading_once_with_an_adapter_on_the_keys_and_a_start_adapter(tiny_t5, dialogues, tmp_path):
    changes = {"adapter_scope": "decoder", "lora_targets": ["k", "v"]}
    policy, _, _ = rollout_of(tiny_t5, dialogues, **changes)
    move_adapter(policy)
    policy.save(tmp_path / "sft", 8)
    started, config, rollout = rollout_of(tiny_t5, dialogues, adapter=str(tmp_path / "sft"))
    assert rollout.memory is not None
    assert (rollout.ref_logprobs - rollout.old_logprobs).abs().max() < 1e-5
    with torch.no_grad():
        for weight in started.adapter_parameters().values():
            weight.mul_(1.5)
        moved = score_rows(started, rollout, all_rows(rollout), config)[0]
        plain = score_rows(started, replace(rollout, memory=None), all_rows(rollout), config)[0]
    assert (moved - plain).abs().max() < 1e-5
    assert (moved - rollout.old_logprobs).abs().max() > 1e-3


def test_an_adapter_in_the_encoder_leaves_nothing_to_reuse(tiny_t5, dialogues):
    assert rollout_of(tiny_t5, dialogues)[2].memory is None
    assert rollout_of(tiny_t5, dialogues, adapter_scope="decoder", fast=False)[2].memory is None


@pytest.mark.parametrize("scope", ["all", "decoder"])
def test_the_fast_way_samples_and_scores_the_same(tiny_t5_each, dialogues, monkeypatch, scope):
    monkeypatch.setattr("softspoken.rl.policy.READ_TOKENS", 40)  # the encoder in pieces of one and two prompts
    fast, plain = (
        rollout_of(tiny_t5_each, dialogues, seed=1, adapter_scope=scope, fast=fast, micro_batch_size=2)[2]
        for fast in (True, False)
    )
    assert torch.equal(fast.response_ids, plain.response_ids)
    for name in ("old_logprobs", "ref_logprobs", "old_values"):
        assert (getattr(fast, name) - getattr(plain, name)).abs().max() < 1e-5


def check_letting_go_of_ended_rows_changes_nothing(folder: Path, dialogues) -> None:
    policy, _, _ = rollout_of(folder, dialogues)
    move_adapter(policy)
    prompts = encode_prompts(dialogues, policy.tokenizer, policy.prompt_format)
    memory = policy.read(prompts.input_ids, prompts.attention_mask, 2)
    index = torch.arange(len(dialogues)).repeat_interleave(4)
    uniforms = torch.rand((len(index), 12), generator=torch.Generator().manual_seed(3))
    likely_end, widths = policy.logits, []
    policy.logits = lambda states, temperature: widths.append(len(states)) or likely_end(states, temperature)
    whole = sample_rows(policy, memory, index, uniforms, 1.0, fast=False)
    assert set(widths) == {len(index)}
    widths.clear()
    fewer = sample_rows(policy, memory, index, uniforms, 1.0)
    assert widths[-1] < len(index) / 2
    assert len(widths) > 4
    assert torch.equal(whole[0], fewer[0])
    assert torch.equal(whole[1], fewer[1])
    for expected, found in zip(whole[2:], fewer[2:], strict=True):
        assert torch.allclose(expected, found, rtol=1e-5, atol=1e-5)


def test_letting_go_of_ended_rows_changes_nothing_for_t5(tiny_t5_each, dialogues):
    check_letting_go_of_ended_rows_changes_nothing(tiny_t5_each, dialogues)


def test_letting_go_of_ended_rows_changes_nothing_for_every_family(family_folder, dialogues):
    check_letting_go_of_ended_rows_changes_nothing(family_folder, dialogues)


def test_a_policy_loaded_fast_is_the_one_loaded_plainly(tiny_t5, dialogues):
    """Its GELU is one operation, its weights lie otherwise: the same log-probabilities, and the same gradient."""
    (fast, _, rollout), (plain, config, _) = (rollout_of(tiny_t5, dialogues, fast=fast) for fast in (True, False))
    kinds = [{type(module).__name__ for module in policy.seq2seq.modules()} for policy in (fast, plain)]
    assert "GELU" in kinds[0] - kinds[1]
    assert "NewGELUActivation" in kinds[1] - kinds[0]
    assert not fast.vocabulary_adapted
    assert fast.exact, "float32 is measured once, and then known"
    found, expected = (score_rows(policy, rollout, all_rows(rollout), config)[0] for policy in (fast, plain))
    assert (found - expected).abs().max() < 1e-5
    for logprobs in (found, expected):
        logprobs.sum().backward()
    for one, other in zip(fast.adapter_parameters().values(), plain.adapter_parameters().values(), strict=True):
        assert (one.grad - other.grad).norm() <= 1e-4 * other.grad.norm()


def test_weights_lie_as_the_processor_reads_them_when_fast(tiny_t5_each, dialogues):
    """That the results are the same, the tests of `fast` say."""
    (fast, *_), (plain, *_) = (rollout_of(tiny_t5_each, dialogues, fast=fast) for fast in (True, False))
    for policy, by_column in ((fast, True), (plain, False)):
        query = policy.cross_attention[0].q
        assert (getattr(query, "base_layer", query).weight.stride()[0] == 1) == by_column
        assert isinstance(policy.vocabulary_product, FrozenProduct) == (by_column and mkl.is_available())
    assert plain.vocabulary_product is plain.seq2seq.lm_head


def test_micro_batches_hold_prompts_of_similar_length(tiny_t5, dialogues):
    policy, config, rollout = rollout_of(tiny_t5, dialogues, micro_batch_size=4)
    shuffled = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    lengths = rollout.prompts.attention_mask.sum(dim=1)[rollout.prompt_index]
    batches = micro_batches(policy, rollout, shuffled, config)
    assert sorted(torch.cat(batches).tolist()) == list(range(8))
    assert lengths[batches[0]].max() <= lengths[batches[1]].min()
    assert all(rollout.prompt_index[batch].unique().numel() == 2 for batch in batches)


def test_when_memory_runs_out_the_pieces_are_halved_with_the_same_result(tiny_t5, dialogues, monkeypatch, caplog):
    policy, config, rollout = rollout_of(tiny_t5, dialogues, micro_batch_size=8)
    sizes = []

    def tight(policy, rollout, rows, config):
        sizes.append(len(rows))
        if len(rows) > 3:
            raise torch.OutOfMemoryError("as CUDA says it")
        return score_rows(policy, rollout, rows, config)

    monkeypatch.setattr("softspoken.rl.rollout.score_rows", tight)
    policy.sampling_buffers["kept"] = "since sampling"
    again = reference_logprobs(policy, rollout, config)
    assert not policy.sampling_buffers
    assert sizes[:2] == [8, 8], "what is kept goes first, before anything is halved"
    assert (again - rollout.ref_logprobs).abs().max() < 1e-5
    assert max(sizes) == 8
    assert max(sizes[-3:]) <= 3
    assert caplog.messages[-1].endswith(f"with tokens_per_microbatch {policy.tokens_per_microbatch}")
    monkeypatch.setattr(
        "softspoken.rl.rollout.score_rows", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("x"))
    )
    with pytest.raises(torch.OutOfMemoryError):
        reference_logprobs(policy, rollout, config)


def test_what_a_failed_try_leaves_behind_does_not_make_it_try_the_same_for_ever(tiny_t5, dialogues):
    policy, tried = rollout_of(tiny_t5, dialogues)[0], []

    def run() -> int:
        tried.append(policy.tokens_per_microbatch)
        policy.sampling_buffers["of the first piece"] = "kept"
        if len(tried) < 5:
            raise torch.OutOfMemoryError("as CUDA says it")
        return len(tried)

    policy.sampling_buffers["of the step before"] = "kept"
    assert within_memory(policy, 64, 10, run) == 5
    assert tried == [None, None, 320, 160, 80], "once without what was kept, then half each time"


@pytest.mark.parametrize("scope", ["all", "decoder"])
def test_sampling_keeps_to_the_token_budget_with_the_same_result(tiny_t5, dialogues, monkeypatch, scope):
    whole = rollout_of(tiny_t5, dialogues, adapter_scope=scope)[2]
    sizes = []

    def counting(policy, memory, index, *given, **options):
        sizes.append(len(index))
        return sample_rows(policy, memory, index, *given, **options)

    monkeypatch.setattr("softspoken.rl.rollout.sample_rows", counting)
    budget = math.ceil(3 * (whole.prompts.input_ids.shape[1] + 8) / LIGHTER)
    pieces = rollout_of(tiny_t5, dialogues, adapter_scope=scope, tokens_per_microbatch=budget)[2]
    assert sizes == [3, 3, 2]
    assert torch.equal(whole.response_ids, pieces.response_ids)
    assert torch.equal(whole.response_mask, pieces.response_mask)
    for name in ("old_logprobs", "ref_logprobs", "old_values"):
        assert (getattr(whole, name) - getattr(pieces, name)).abs().max() < 1e-5


def test_sampling_that_runs_out_of_memory_goes_on_in_pieces(tiny_t5, dialogues, monkeypatch):
    whole = rollout_of(tiny_t5, dialogues)[2]

    def tight(policy, memory, index, *given, **options):
        if len(index) > 3:
            raise torch.OutOfMemoryError("as CUDA says it")
        return sample_rows(policy, memory, index, *given, **options)

    monkeypatch.setattr("softspoken.rl.rollout.sample_rows", tight)
    assert torch.equal(rollout_of(tiny_t5, dialogues)[2].response_ids, whole.response_ids)


def test_below_float32_the_mismatch_is_known_and_the_update_compares_with_what_it_computes(
    tiny_t5, dialogues, monkeypatch
):
    assert rollout_of(tiny_t5, dialogues)[2].mismatch is None
    sample = numerics.sample

    def inexact(*given):  # how far off bfloat16 is depends on the processor: with AMX, hardly at all
        ids, logprobs = sample(*given)
        return ids, logprobs + 2 * MISMATCH

    monkeypatch.setattr(numerics, "sample", inexact)
    policy, config, rollout = rollout_of(tiny_t5, dialogues, dtype="bfloat16")
    assert rollout.mismatch > MISMATCH
    with torch.no_grad():
        logprobs, values = score_rows(policy, rollout, all_rows(rollout), config)
    assert torch.equal(logprobs, rollout.old_logprobs)
    assert torch.equal(values, rollout.old_values)
    assert torch.equal(rollout.ref_logprobs, rollout.old_logprobs)


def test_a_module_that_is_trained_whole_is_no_frozen_one(tiny_t5, dialogues, tmp_path):
    """PEFT's modules_to_save: were it taken for frozen, the fast way would leave it without its gradient."""
    base = AutoModelForSeq2SeqLM.from_pretrained(tiny_t5)
    lora = LoraConfig(task_type=TaskType.SEQ_2_SEQ_LM, r=2, target_modules=["q"], modules_to_save=["lm_head"])
    get_peft_model(base, lora).save_pretrained(tmp_path / "start")
    gradients = []
    for fast in (True, False):
        policy, config, rollout = rollout_of(tiny_t5, dialogues, adapter=str(tmp_path / "start"), fast=fast)
        assert policy.vocabulary_adapted
        score_rows(policy, rollout, all_rows(rollout), config)[0].sum().backward()
        gradients.append(next(w.grad for name, w in policy.adapter_parameters().items() if "lm_head" in name))
    assert gradients[0].any()
    assert torch.allclose(gradients[0], gradients[1], rtol=1e-4, atol=1e-5)


def test_a_cross_attention_that_is_trained_whole_has_no_frozen_keys_and_values(tiny_t5, dialogues, tmp_path):
    base = AutoModelForSeq2SeqLM.from_pretrained(tiny_t5)
    decoder = r".*\bdecoder\..*SelfAttention\.q"
    lora = LoraConfig(task_type=TaskType.SEQ_2_SEQ_LM, r=2, target_modules=decoder, modules_to_save=["EncDecAttention"])
    start = get_peft_model(base, lora)
    with torch.no_grad():
        for name, weight in start.named_parameters():
            if weight.requires_grad and "EncDecAttention" in name:
                weight.mul_(2)
    start.save_pretrained(tmp_path / "start")
    found = []
    for fast in (True, False):
        policy, config, rollout = rollout_of(tiny_t5, dialogues, adapter=str(tmp_path / "start"), fast=fast)
        assert (rollout.memory is not None) == fast, "the encoder is read once all the same"
        again, _ = score_rows(policy, rollout, all_rows(rollout), config)
        again.sum().backward()
        gradient = next(w.grad for name, w in policy.adapter_parameters().items() if name.endswith("v.weight"))
        found.append((rollout.response_ids, rollout.old_logprobs, gradient))
        assert (again - rollout.old_logprobs).abs().max() < 1e-5
    assert torch.equal(found[0][0], found[1][0])
    assert (found[0][1] - found[1][1]).abs().max() < 1e-5
    assert found[0][2].any()
    assert torch.allclose(found[0][2], found[1][2], rtol=1e-4, atol=1e-5)


def test_an_adapter_that_trains_the_biases_is_refused(tiny_t5, tmp_path):
    lora = LoraConfig(task_type=TaskType.SEQ_2_SEQ_LM, r=2, target_modules=["q"], bias="all")
    get_peft_model(AutoModelForSeq2SeqLM.from_pretrained(tiny_t5), lora).save_pretrained(tmp_path / "start")
    with pytest.raises(InputError, match="biases too, so that no reference is left"):
        load_policy(config_for(tiny_t5, adapter=str(tmp_path / "start")))


def test_plain_sampling_leaves_keys_and_values_to_the_model(tiny_t5, dialogues, monkeypatch):
    policy = load_policy(config_for(tiny_t5))
    prompts = encode_prompts(dialogues, policy.tokenizer, policy.prompt_format)
    memory = policy.read(prompts.input_ids, prompts.attention_mask, 2)
    uniforms = torch.rand((len(dialogues), 4), generator=torch.Generator().manual_seed(3))
    monkeypatch.setattr(policy, "cross_of", None)
    sample_rows(policy, memory, torch.arange(len(dialogues)), uniforms, 1.0, fast=False)
    with pytest.raises(TypeError):
        sample_rows(policy, memory, torch.arange(len(dialogues)), uniforms, 1.0)


def test_unknown_lora_targets_name_the_modules_there_are(tiny_t5):
    with pytest.raises(InputError, match=r"lora_targets \['nope'\].*\bq\b"):
        load_policy(config_for(tiny_t5, lora_targets=["nope"]))


def test_a_pad_token_that_is_the_end_s_changes_nothing(tiny_t5, dialogues, tmp_path):
    """Padding is told from the mask, never from the id: the end keeps its probability, and prompts and responses theirs."""
    other = tmp_path / "pad-is-eos"
    shutil.copytree(tiny_t5, other)
    tokenizer = AutoTokenizer.from_pretrained(other)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(other)
    policy, _, found = rollout_of(other, dialogues, max_new_tokens=8)
    _, _, expected = rollout_of(tiny_t5, dialogues, max_new_tokens=8)
    assert policy.pad_id == policy.eos_id
    assert not expected.truncated.all()
    assert found.responses == expected.responses
    for name in ("truncated", "response_mask", "old_logprobs", "ref_logprobs", "old_values"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    assert torch.equal(found.prompts.attention_mask, expected.prompts.attention_mask)
    assert torch.equal(found.response_ids[found.response_mask], expected.response_ids[expected.response_mask])
    policy, _, plain = rollout_of(other, dialogues, max_new_tokens=8, fast=False)
    assert torch.equal(plain.response_mask, found.response_mask)


def test_a_generation_config_that_transformers_would_not_save_is_put_right_before_the_first_step(tiny_t5, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_t5, folder)
    path = folder / "generation_config.json"
    saved = json.loads(path.read_text())
    path.write_text(json.dumps({**saved, "temperature": 0.7, "early_stopping": True, "no_repeat_ngram_size": 3}))
    load_policy(config_for(folder)).save(tmp_path / "adapter", 9)
    kept = json.loads((tmp_path / "adapter" / "generation_config.json").read_text())
    assert (kept["no_repeat_ngram_size"], kept["max_new_tokens"]) == (3, 9)
    assert "temperature" not in kept
    path.write_text(json.dumps({**saved, "num_beams": 4, "num_return_sequences": 9}))
    with pytest.raises(InputError, match=r"mend its generation_config\.json|num_return_sequences"):
        load_policy(config_for(folder))
