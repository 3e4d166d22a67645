"""What differs from family to family, on tiny random models of each; docs/families.md has the whole table."""

import json
import logging
import shutil
from copy import deepcopy

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, T5Config, T5ForConditionalGeneration

from benchmarks.families.models import FAMILIES, build
from softspoken import mini
from softspoken.config import TrainConfig
from softspoken.data.prompts import encode_prompts
from softspoken.inference.generator import Generator
from softspoken.models.pretrained import load_seq2seq, load_tokenizer
from softspoken.models.trained import add_lora
from softspoken.rl.loading import load_policy
from softspoken.rl.rollout import MISMATCH, generate_rollout, score_rows
from softspoken.types import InputError


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory):
    """A family's folder, made when it is first asked for."""
    made = {}

    def folder(family, **generation):
        key = family, json.dumps(generation)
        if key not in made:
            made[key] = build(family, tmp_path_factory.mktemp("family"), **generation)
        return made[key]

    return folder


def config_for(folder, **changes):
    settings = {"max_new_tokens": 8, "samples_per_prompt": 8, "lora_r": 2, "adapter_scope": "all", "device": "cpu"}
    return TrainConfig(model=str(folder), **(settings | changes))


def rollout_of(folder, dialogues, **changes):
    config = config_for(folder, **changes)
    policy = load_policy(config)
    prompts = encode_prompts(dialogues, policy.tokenizer, policy.prompt_format)
    return policy, config, generate_rollout(policy, prompts, config, torch.Generator().manual_seed(0))


def own_logprobs(policy, rollout):
    """By the model's own forward pass over each prompt and response alone, without padding, [N, T]."""
    prompts, found = rollout.prompts, []
    for ids, prompt in zip(rollout.response_ids.unsqueeze(1), rollout.prompt_index, strict=True):
        read = prompts.input_ids[prompt][prompts.attention_mask[prompt] == 1].unsqueeze(0)
        given = torch.cat([torch.full_like(ids[:, :1], policy.start_id), ids[:, :-1]], dim=1)
        own = policy.seq2seq(
            input_ids=read,
            attention_mask=torch.ones_like(read),
            decoder_input_ids=given,
            decoder_attention_mask=torch.ones_like(given),
        )
        logits = own.logits.float().masked_fill(policy.forbidden, -torch.inf)
        found.append(logits.log_softmax(-1).gather(-1, ids.unsqueeze(-1)).squeeze(-1))
    return torch.cat(found)


@pytest.mark.parametrize(
    "family", ["SwitchTransformers", "EncoderDecoder (BERT, BERT)", "T5Gemma 2", "SeamlessM4T", "BigBird-Pegasus"]
)
def test_log_probabilities_are_those_of_the_models_own_pass(folder_of, dialogues, family):
    policy, _, rollout = rollout_of(folder_of(family), dialogues, samples_per_prompt=2)
    with torch.no_grad():
        own = own_logprobs(policy, rollout)
    off = (rollout.old_logprobs - own)[rollout.response_mask].abs().max()
    assert off < 2e-5
    assert own[rollout.response_mask].std() > 0.3, "the model must tell tokens apart"


@pytest.mark.parametrize("family", ["ProphetNet", "FSMT"])
def test_a_way_to_logits_that_is_not_known_is_refused(folder_of, family):
    targets = {"ProphetNet": ["query_proj", "value_proj"], "FSMT": None}[family]
    with pytest.raises(
        InputError, match=r"models of type '\w+' compute their logits in a way softspoken does not know"
    ):
        load_policy(config_for(folder_of(family), lora_targets=targets))


def test_a_cached_step_that_differs_from_the_whole_pass_is_refused(folder_of):
    """M2M100 counts positions from padding: with padding as the first id its steps and its whole pass are two models."""
    with pytest.raises(InputError, match="compute their logits in a way"):
        load_policy(config_for(folder_of("M2M100, NLLB", decoder_start_token_id=0)))


def test_looking_at_bigbird_leaves_it_as_it_was(folder_of, dialogues):
    policy, _, rollout = rollout_of(folder_of("BigBird-Pegasus"), dialogues)
    encoder = policy.seq2seq.get_encoder()
    assert encoder.attention_type == "block_sparse"
    fresh = AutoModelForSeq2SeqLM.from_pretrained(folder_of("BigBird-Pegasus")).eval()
    ids, mask = rollout.prompts.input_ids, rollout.prompts.attention_mask
    longest = int(mask.sum(dim=1).argmax())
    assert mask[longest].sum() > 14, "beyond what it attends to in full"
    with torch.no_grad():
        expected = fresh.get_encoder()(input_ids=ids[longest:][:1], attention_mask=mask[longest:][:1])
        for _ in range(2):
            assert (policy.encode(ids, mask)[longest] - expected.last_hidden_state[0]).abs().max() < 1e-5
            policy.encode(ids[:, :4], mask[:, :4])


def test_what_experts_with_a_capacity_make_of_one_token_at_a_time_is_measured_and_recomputed(folder_of, dialogues):
    policy, config, rollout = rollout_of(folder_of("SwitchTransformers"), dialogues)
    assert rollout.mismatch > MISMATCH
    with torch.no_grad():
        again, _ = score_rows(policy, rollout, torch.arange(len(rollout.responses)), config)
    assert (again - rollout.old_logprobs).abs().max() < 1e-5


def test_in_float32_the_mismatch_is_measured_until_it_is_seen_to_be_rounding(folder_of, dialogues):
    policy, config, rollout = rollout_of(folder_of("T5"), dialogues[:1])
    assert rollout.mismatch is None
    assert policy.exact
    prompts = rollout.prompts
    policy.exact = None
    plain = policy.decode_step
    policy.decode_step = lambda *given: plain(*given) * 1.5  # one at a time as no pass has it
    for _ in range(2):
        assert generate_rollout(policy, prompts, config, torch.Generator().manual_seed(0)).mismatch > MISMATCH


# ------------------------------------------------------------------------------------------------------- adapters


@pytest.mark.parametrize(
    ("family", "scope", "said"),
    [
        ("T5", "all", "LoRA on 12 projections (q, v): 4 in the encoder, 8 in the decoder"),
        ("LED", "all", "LoRA on 12 projections (q_proj, query, v_proj, value): 4 in the encoder, 8 in the decoder"),
        ("BigBird-Pegasus", "all", "4 in the encoder, 8 in the decoder"),
        ("T5Gemma 2", "all", "LoRA on 8 projections (q_proj, v_proj): 4 in the encoder, 4 in the decoder"),
        ("SeamlessM4T", "decoder", "LoRA on 8 projections (q_proj, v_proj): 0 in the encoder, 8 in the decoder"),
        ("EncoderDecoder (BERT, BERT)", "all", "LoRA on 12 projections (query, value): 4 in the encoder, 8 in"),
    ],
)
def test_an_adapter_lies_in_the_text_parts_of_its_scope_and_that_is_said(folder_of, caplog, family, scope, said):
    model = AutoModelForSeq2SeqLM.from_pretrained(folder_of(family))
    with caplog.at_level(logging.INFO, logger="softspoken"):
        adapted = add_lora(model, r=2, alpha=4, targets=None, scope=scope)
    assert said in caplog.messages[-1]
    assert not [name for name, _ in adapted.named_modules() if "vision" in name and "lora" in name]


# --------------------------------------------------------------------------------------------------- forbidden ids


def test_ids_that_the_generation_config_suppresses_have_no_probability_in_any_pass(folder_of, dialogues):
    _, _, free = rollout_of(folder_of("T5"), dialogues, temperature=0.2)
    often = free.response_ids[free.response_mask].bincount().topk(4).indices.tolist()
    folder = folder_of(
        "T5", suppress_tokens=often[:2], bad_words_ids=[[often[2]], [1]], begin_suppress_tokens=[often[3]]
    )
    policy, config, rollout = rollout_of(folder, dialogues, temperature=0.2)
    ids, mask = rollout.response_ids, rollout.response_mask
    assert not torch.isin(ids[mask], torch.tensor(often[:3])).any()
    assert (ids[:, 0] != often[3]).all()
    assert (ids[:, 1:][mask[:, 1:]] == often[3]).any()
    assert not policy.forbidden[policy.eos_id], "an end is no bad word: so says transformers' generate"
    # each pass is of the distribution without them, the first position's without one more
    with torch.no_grad():
        again, _ = score_rows(policy, rollout, torch.arange(len(ids)), config)
        states = policy.decode(
            ids, *policy.encode_for(rollout.prompts.input_ids, rollout.prompts.attention_mask, rollout.prompt_index)
        )
        logits = policy.project(states).float() / 0.2
    logits[..., [policy.pad_id, *often[:3]]] = -torch.inf
    logits[:, 0, often[3]] = -torch.inf
    expected = logits.log_softmax(-1).gather(-1, ids.unsqueeze(-1)).squeeze(-1) * mask
    for found in (again, rollout.old_logprobs, rollout.ref_logprobs):
        assert (found - expected).abs().max() < 5e-5


@pytest.mark.parametrize("fast", [True, False])
def test_the_gradient_knows_what_must_not_begin_a_response(folder_of, dialogues, fast):
    policy, config, rollout = rollout_of(folder_of("T5", begin_suppress_tokens=[30, 31]), dialogues, fast=fast)
    score_rows(policy, rollout, torch.arange(len(rollout.responses)), config)[0].sum().backward()
    found = {name: weight.grad.clone() for name, weight in policy.adapter_parameters().items()}
    policy.model.zero_grad()
    ids, mask, prompts = rollout.response_ids, rollout.response_mask, rollout.prompts
    logits = policy.project(
        policy.decode(ids, *policy.encode_for(prompts.input_ids, prompts.attention_mask, rollout.prompt_index))
    )
    bans = torch.zeros_like(logits, dtype=torch.bool)
    bans[..., policy.pad_id] = True
    bans[:, 0, [30, 31]] = True
    logprobs = logits.masked_fill(bans, -torch.inf).log_softmax(-1).gather(-1, ids.unsqueeze(-1)).squeeze(-1)
    logprobs[mask].sum().backward()
    for name, weight in policy.adapter_parameters().items():
        assert (found[name] - weight.grad).norm() <= 1e-4 * weight.grad.norm() + 1e-6, name


def test_a_forced_first_token_moves_the_position_that_must_not_begin(folder_of, dialogues):
    _, _, free = rollout_of(folder_of("BART"), dialogues)
    second = free.response_ids[:, 1].bincount().argmax().item()
    folder = folder_of("BART", forced_bos_token_id=2, begin_suppress_tokens=[2, second])
    _, _, rollout = rollout_of(folder, dialogues)
    assert (rollout.response_ids[:, 0] == 2).all()
    assert (free.response_ids[:, 1] == second).any()
    assert (rollout.response_ids[:, 1] != second).all()


def test_runs_of_ids_that_are_bad_words_are_refused_in_training(folder_of):
    with pytest.raises(InputError, match=r"bad_words_ids of .* forbids \[7, 8\], a run of several ids"):
        load_policy(config_for(folder_of("T5", bad_words_ids=[[7, 8]])))


@pytest.mark.parametrize(
    ("generation", "sentence"),
    [
        ({"suppress_tokens": [9000]}, "suppress_tokens of the generation config is 9000, and the model has 8192 ids"),
        ({"bad_words_ids": [[9000]]}, "bad_words_ids of the generation config is 9000"),
        ({"forced_bos_token_id": 9000}, "forced_bos_token_id of the generation config is 9000"),
        ({"decoder_start_token_id": 9000}, "decoder_start_token_id of the generation config is 9000"),
    ],
)
def test_an_id_that_the_model_has_no_embedding_for_is_named(folder_of, generation, sentence):
    with pytest.raises(InputError, match=sentence):
        load_policy(config_for(folder_of("T5", **generation)))


def test_every_family_of_transformers_for_texts_is_in_the_table():
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES as KNOWN

    speech = ("audio", "asr", "speech", "flamingo", "transcribe", "voxtral")
    texts = {name for key, name in KNOWN.items() if not any(part in key for part in speech)}
    built = {type(FAMILIES[family](64)).__name__ for family in FAMILIES}
    assert texts == built


def retold(folder, tmp_path, **tokens):
    """The same model, whose tokenizer says this of its special tokens."""
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    settings = json.loads((copy / "tokenizer_config.json").read_text())
    settings = {name: value for name, value in (settings | tokens).items() if value is not None}
    (copy / "tokenizer_config.json").write_text(json.dumps(settings))
    return copy


@pytest.mark.parametrize("name", ["pad_token", "eos_token"])
def test_a_tokenizer_that_cannot_pad_or_end_is_refused_before_anything_runs(folder_of, tmp_path, name):
    with pytest.raises(InputError, match=f"the tokenizer of .* has no {name}; set it to a token"):
        load_tokenizer(str(retold(folder_of("T5"), tmp_path, **{name: None})))


def test_what_ends_a_text_of_berts_ends_a_response(folder_of, tmp_path):
    folder = retold(folder_of("EncoderDecoder (BERT, BERT)"), tmp_path, eos_token=None, sep_token="</s>")
    assert load_tokenizer(str(folder)).eos_token_id == 1


def test_a_decoder_deeper_than_its_encoder_trains_and_generates(tmp_path, dialogues):
    shape = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_heads": 2, "num_layers": 1, "num_decoder_layers": 3}
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(mini.path)
    model = T5ForConditionalGeneration(T5Config(vocab_size=len(tokenizer), **shape, decoder_start_token_id=0))
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    policy, _, rollout = rollout_of(tmp_path, dialogues, samples_per_prompt=2)
    with torch.no_grad():
        assert (rollout.old_logprobs - own_logprobs(policy, rollout))[rollout.response_mask].abs().max() < 2e-5
    responses = Generator.from_pretrained(str(tmp_path), max_new_tokens=4)([one.text for one in dialogues])
    assert len(responses) == len(dialogues)


def test_what_bigbird_writes_does_not_hang_on_the_texts_beside_it(folder_of, dialogues):
    generator = Generator.from_pretrained(str(folder_of("BigBird-Pegasus")), max_new_tokens=12, device="cpu")
    texts = [dialogues[3].text[:length] for length in (40, 60, 80, 100)]
    assert generator(texts) == [generator([text])[0] for text in texts]


def test_bigbird_in_a_warm_start_and_behind_trls_door_reads_each_text_as_it_does_alone(folder_of, dialogues):
    """The model's own forward, which sft's trainer and TRL's names call; and a deep copy, which a reference model is."""
    from softspoken.trl import AutoModelForSeq2SeqLMWithValueHead, PPOConfig, PPOTrainer

    folder = folder_of("BigBird-Pegasus")
    tokenizer = load_tokenizer(str(folder))
    rows = tokenizer([dialogues[3].text[:length] for length in (30, 60, 100)], padding=True, return_tensors="pt")
    start = torch.zeros(1, 1, dtype=torch.long)

    def apart(seq2seq):
        with torch.no_grad():
            together = seq2seq(**rows, decoder_input_ids=start.expand(3, 1)).logits
            for row, mask in enumerate(rows["attention_mask"]):
                ids = rows["input_ids"][row : row + 1, : int(mask.sum())]
                alone = seq2seq(input_ids=ids, attention_mask=torch.ones_like(ids), decoder_input_ids=start).logits
                yield (together[row] - alone[0]).abs().max().item()

    plain = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    assert max(apart(plain)) > 1e-3, "transformers' own batch does differ"
    warm = load_seq2seq(str(folder))
    assert max(apart(warm)) < 1e-5
    assert max(apart(deepcopy(warm))) < 1e-5
    changed = deepcopy(warm)
    with torch.no_grad():
        next(iter(warm.get_encoder().parameters())).mul_(2)
        encoded = [one.get_encoder()(**rows).last_hidden_state for one in (warm, changed)]
    assert (encoded[0] - encoded[1]).abs().max() > 1e-3, "a copy has an encoder of its own"
    model = AutoModelForSeq2SeqLMWithValueHead.from_pretrained(str(folder))
    PPOTrainer(PPOConfig(batch_size=2, mini_batch_size=2), model, tokenizer=tokenizer)
    assert max(apart(model.pretrained_model.eval())) < 1e-5
