"""softspoken.trl: what TRL 0.11 got wrong is right, what is misused is said, and models are saved and loaded whole."""

import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoTokenizer,
    BartConfig,
    BartForConditionalGeneration,
    GenerationConfig,
    GPT2Config,
    HfArgumentParser,
)

import legacy_case
from legacy_case import DRAWN, QUERIES, SCORES, tiny_t5, tokenizer, wrapped
from softspoken import trl
from softspoken.types import InputError, RunError

PURE = {"do_sample": True, "top_k": 0.0, "top_p": 1.0, "min_length": -1, "max_new_tokens": 6}
LORA = LoraConfig(r=4, lora_alpha=8, target_modules=["q", "v"], task_type="SEQ_2_SEQ_LM")
QUIET = pytest.mark.filterwarnings("ignore:.*KL to the reference", "ignore:.*tokenized again")


def trainer_for(model=None, ref_model=None, padding_side="right", pad_is_eos=False, **settings) -> trl.PPOTrainer:
    words = tokenizer()
    words.padding_side = padding_side
    if pad_is_eos:
        words.pad_token = words.eos_token
    options = {"batch_size": 4, "mini_batch_size": 2, "ppo_epochs": 1, "learning_rate": 1e-3, **settings}
    if model is None:
        model = trl.AutoModelForSeq2SeqLMWithValueHead.from_pretrained(get_peft_model(tiny_t5(), LORA))
    return trl.PPOTrainer(trl.PPOConfig(**options), model, ref_model, words)


def tensors(rows) -> list[torch.Tensor]:
    return [torch.tensor(row) for row in rows]


def step(trainer: trl.PPOTrainer, queries=QUERIES, responses=DRAWN, scores=SCORES, masks=None):
    return trainer.step(tensors(queries), tensors(responses), tensors(scores), tensors(masks) if masks else None)


# ---------------------------------------------------------------------------------------------------- corrections


def test_log_probabilities_are_the_model_s_own_and_the_first_token_trains():
    trainer = trainer_for()
    stats = step(trainer)
    model = trainer.model.pretrained_model
    found = stats["objective/logprobs"]
    with torch.no_grad(), model.disable_adapter():
        logits = model(input_ids=torch.tensor([QUERIES[0]]), decoder_input_ids=torch.tensor([DRAWN[0][:-1]])).logits[0]
    drawable = logits.clone()
    drawable[:, 0] = -torch.inf  # padding
    drawable[:, len(tokenizer()) :] = -torch.inf
    expected = drawable.log_softmax(-1)[range(5), DRAWN[0][1:]]
    assert found[0, :5] == pytest.approx(expected.numpy(), abs=1e-5)
    assert stats["objective/kl"] == pytest.approx(0, abs=1e-5)
    *_, masks = trainer.batched_forward_pass(trainer.model, tensors(QUERIES), tensors(DRAWN))
    assert masks.tolist() == [[1, 1, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]]


@QUIET
@pytest.mark.parametrize(
    ("name", "queries", "responses"),
    [
        ("no start token", QUERIES, [row[1:] for row in DRAWN]),
        ("padding after EOS", QUERIES, [[*row, 0, 0] if row[-1] == 1 else row for row in DRAWN]),
        ("padding before", QUERIES, [[0, 0, *row] for row in DRAWN]),
        ("text after EOS", QUERIES, [[*row, 9, 9] if row[-1] == 1 else row for row in DRAWN]),
        ("queries padded left", [[0] * (6 - len(row)) + row for row in QUERIES], DRAWN),
        ("queries padded right", [row + [0] * (6 - len(row)) for row in QUERIES], DRAWN),
    ],
)
def test_however_a_batch_is_framed_the_step_is_the_same(name, queries, responses):
    for found, expected in zip(framed(queries, responses, "left"), as_generated(), strict=True):
        assert found == pytest.approx(expected, abs=1e-6)


def framed(queries, responses, side):
    trainer = trainer_for(wrapped(trl, lora=True), padding_side=side)
    np.random.seed(5)
    stats = step(trainer, queries, responses)
    return stats["objective/logprobs"], stats["ppo/loss/total"], stats["ppo/returns/mean"]


@QUIET
def test_a_pad_token_that_is_the_end_s_changes_nothing():
    """tokenizer.pad_token = tokenizer.eos_token, as in TRL's own quickstart: TRL 0.11.4 ends responses with it all the same."""
    ended = [[*row, 1, 1] if row[-1] == 1 else row for row in DRAWN]
    padded = [row + [1] * (6 - len(row)) for row in QUERIES]
    assert all(row[-1] == 1 for row in QUERIES)  # each query's own end, which is not padding
    for queries, responses in ((QUERIES, DRAWN), (padded, ended)):
        trainer = trainer_for(wrapped(trl, lora=True), pad_is_eos=True)
        np.random.seed(5)
        stats = step(trainer, queries, responses)
        found = stats["objective/logprobs"], stats["ppo/loss/total"], stats["ppo/returns/mean"]
        for each, expected in zip(found, as_generated(), strict=True):
            assert each == pytest.approx(expected, abs=1e-6)


def test_responses_end_where_the_pad_token_is_the_end_s():
    def drawn(pad_is_eos):
        torch.manual_seed(0)
        trainer = trainer_for(pad_is_eos=pad_is_eos)
        logits = trainer.policy.logits
        trainer.policy.logits = lambda states, temperature: logits(states, temperature).index_fill(
            -1, torch.tensor(1), 5.0
        )
        torch.manual_seed(1)
        return [row.tolist() for row in trainer.generate(tensors(QUERIES), **PURE)]

    assert any(row[-1] == 1 for row in drawn(pad_is_eos=True))
    assert drawn(pad_is_eos=True) == drawn(pad_is_eos=False)


@cache
def as_generated():
    return framed(QUERIES, DRAWN, "right")


def test_a_last_smaller_batch_is_in_the_dataloader_and_taken():
    trainer = trainer_for()
    rows = [{"input_ids": torch.tensor(ids), "query": "q"} for ids in (QUERIES + QUERIES)[:6]]
    words = tokenizer()
    batches = trl.PPOTrainer(
        trl.PPOConfig(batch_size=4, mini_batch_size=2),
        trainer.model,
        None,
        words,
        rows_as_dataset(rows),
        data_collator=collate,
    ).dataloader
    assert [len(batch["query"]) for batch in batches] == [4, 2]
    stats = step(trainer, QUERIES[:3], DRAWN[:3], SCORES[:3])
    assert stats["objective/kl_dist"].shape == (3,)
    with pytest.raises(InputError, match="batch_size is 4"):
        step(trainer, QUERIES + QUERIES[:1], DRAWN + DRAWN[:1], [*SCORES, 0.0])
    with pytest.raises(InputError, match="batch_size is 4"):
        step(trainer_for(keep_last_batch=False), QUERIES[:3], DRAWN[:3], SCORES[:3])


def rows_as_dataset(rows):
    class Rows(torch.utils.data.Dataset):
        def __len__(self):
            return len(rows)

        def __getitem__(self, place):
            return rows[place]

    return Rows()


def collate(rows):
    return {name: [row[name] for row in rows] for name in rows[0]}


@QUIET
def test_an_empty_response_is_dropped_and_counted():
    stats = step(trainer_for(), responses=[DRAWN[0], [0], *DRAWN[2:]])
    assert stats["ppo/dropped_responses"] == 1
    assert stats["objective/kl_dist"].shape == (3,)
    assert stats["ppo/mean_scores"] == pytest.approx(np.mean([SCORES[0], *SCORES[2:]]), abs=1e-6)
    with pytest.raises(RunError, match="all 4 responses"):
        step(trainer_for(), responses=[[0]] * 4)


@QUIET
def test_skipped_updates_are_counted_said_and_leave_the_weights_alone():
    trainer = trainer_for(ratio_threshold=0.5, ppo_epochs=2)
    before = [weight.clone() for weight in trainer.model_params]
    with pytest.warns(RuntimeWarning, match="4 of 4 mini-batches of this step were SKIPPED"):
        stats = step(trainer)
    assert (stats["ppo/skipped_minibatches"], stats["ppo/skipped_updates"]) == (4, 4)
    assert stats["ppo/policy/skipped"] == 1
    assert all(torch.equal(old, new) for old, new in zip(before, trainer.model_params, strict=True))


@QUIET
@pytest.mark.filterwarnings("ignore:.*SKIPPED")
@pytest.mark.parametrize("skip_whole_update", [True, False])
def test_momentum_moves_the_weights_of_a_skipped_update_only_when_asked(skip_whole_update):
    trainer = trainer_for(skip_whole_update=skip_whole_update)
    step(trainer)
    before = [weight.clone() for weight in trainer.model_params]
    trainer.config.ratio_threshold = 0.5
    step(trainer)
    still = all(torch.equal(old, new) for old, new in zip(before, trainer.model_params, strict=True))
    assert still == skip_whole_update


def test_the_gradient_is_clipped_in_every_update():
    trainer = trainer_for(mini_batch_size=2, max_grad_norm=1e-9)
    trainer.optimizer = torch.optim.SGD(trainer.model_params, lr=1.0)
    before = torch.cat([weight.detach().flatten().clone() for weight in trainer.model_params])
    step(trainer)
    after = torch.cat([weight.detach().flatten() for weight in trainer.model_params])
    assert (after - before).norm() <= 2.01e-9 * 1.5


@pytest.mark.parametrize("given", [False, True])
def test_the_reference_is_the_adapter_as_it_was_at_the_start(given):
    model = wrapped(trl, lora=True)  # its adapter has been trained before
    trainer = trainer_for(model, trl.create_reference_model(model) if given else None)
    stats = step(trainer)
    assert stats["objective/kl"] == pytest.approx(0, abs=1e-5)
    assert np.abs(stats["objective/ref_logprobs"]).sum() > 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        moved = step(trainer)
    assert abs(moved["objective/kl"]) > 1e-4
    assert moved["objective/ref_logprobs"] == pytest.approx(stats["objective/ref_logprobs"], abs=1e-5)
    old = step(trainer_for(wrapped(trl, lora=True), reference_from_start=False, init_kl_coef=0.0), masks=None)
    assert abs(old["objective/kl"]) > 1e-3


def test_a_reference_that_shares_the_trained_weights_is_replaced():
    base = tiny_t5()
    model = trl.AutoModelForSeq2SeqLMWithValueHead.from_pretrained(get_peft_model(base, LORA))
    with pytest.warns(UserWarning, match="the very weights that are trained"):
        trainer = trainer_for(model, trl.AutoModelForSeq2SeqLMWithValueHead.from_pretrained(base))
    assert trainer.ref_model is None


def test_score_scaling_by_hand():
    trainer = trainer_for(use_score_scaling=True, use_score_norm=True)
    first = step(trainer)  # mean 0.475, deviations .225, −1.675, −.075, 1.525: variance 5.1875 / 3
    assert first["ppo/mean_scores"] == pytest.approx(0, abs=1e-6)
    assert trainer.running.std == pytest.approx((5.1875 / 3) ** 0.5)
    trainer.running.update(torch.tensor([2.0]))  # mean .78, squares 7.05, variance (7.05 − ... ) / 4
    assert trainer.running.mean == pytest.approx(0.78)
    assert trainer.running.std == pytest.approx(float(np.std([*SCORES, 2.0], ddof=1)))


def test_bart_s_forced_first_token_is_no_choice_and_its_start_is_not_its_end():
    words = tokenizer()
    config = BartConfig(
        vocab_size=len(words), d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=32,
        pad_token_id=0, bos_token_id=2, eos_token_id=1, decoder_start_token_id=1, forced_bos_token_id=2,
    )  # fmt: skip
    inner = BartForConditionalGeneration(config)
    inner.generation_config = GenerationConfig(
        pad_token_id=0, bos_token_id=2, eos_token_id=1, decoder_start_token_id=1, forced_bos_token_id=2
    )
    trainer = trl.PPOTrainer(
        trl.PPOConfig(batch_size=2, mini_batch_size=1),
        trl.AutoModelForSeq2SeqLMWithValueHead.from_pretrained(inner),
        None,
        words,
    )
    responses = trainer.generate(tensors(QUERIES[:2]), **PURE)
    assert all(response[:2].tolist() == [1, 2] and len(response) > 2 for response in responses)
    *_, masks = trainer.batched_forward_pass(trainer.model, tensors(QUERIES[:2]), responses)
    assert masks[:, 0].tolist() == [0, 0]
    assert masks[:, 1].tolist() == [1, 1]


# --------------------------------------------------------------------------------------------------- said out loud


def test_a_response_decoded_and_tokenized_again_is_warned_about_once():
    trainer = trainer_for()
    torch.manual_seed(0)
    responses = trainer.generate(tensors(QUERIES), **PURE)
    again = [
        torch.tensor(tokenizer()(tokenizer().decode(ids, skip_special_tokens=True) + " milk").input_ids)
        for ids in responses
    ]
    with pytest.warns(UserWarning, match="4 of 4 responses are not the tokens that were generated.*keep the tensors"):
        trainer.step(tensors(QUERIES), again, tensors(SCORES))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer.step(tensors(QUERIES), again, tensors(SCORES))


def test_an_end_that_the_tokenizer_appended_was_not_drawn():
    trainer = trainer_for()
    drawn = {(0, 6, 10, 3): [[6, 10, 3, 1]], (0, 9, 1): [[9, 1]]}
    for ids in drawn:
        trainer.model.drawn.add(trainer.model.pretrained_model, torch.tensor([ids]), PURE)
    again = [[6, 10, 3, 1], [6, 10, 3], [0, 9, 1], [0, 6, 10]]  # the first was cut off at its length, and had no end
    with pytest.warns(UserWarning, match="1 of 4 responses are not the tokens that were generated"):
        step(trainer, responses=again)


def test_without_a_record_a_missing_start_token_and_the_tokenizer_s_own_ids_give_it_away():
    with pytest.warns(UserWarning, match="4 of 4 responses are not the tokens that were generated"):
        step(trainer_for(), responses=[[*row[1:], 1] if row[-1] != 1 else row[1:] for row in DRAWN])


def test_responses_as_generated_cut_or_sliced_are_not_warned_about():
    trainer = trainer_for()
    responses = trainer.generate(tensors(QUERIES), **PURE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer.step(tensors(QUERIES), [response[1:] for response in responses], tensors(SCORES))
        single = [trainer.generate(query, **PURE).squeeze()[-6:] for query in tensors(QUERIES)]
        trainer.step(tensors(QUERIES), single, tensors(SCORES))


def test_a_peft_model_that_the_forward_pass_never_reaches_is_refused():
    model = trl.AutoModelForSeq2SeqLMWithValueHead.from_pretrained(tiny_t5())
    model.transformer = get_peft_model(tiny_t5(), LORA)
    with pytest.raises(
        InputError, match=r"model\.transformer is never reached.*from_pretrained\(peft_model, is_trainable=True\)"
    ):
        trainer_for(model)


def test_generation_settings_that_bias_the_kl_are_counted():
    trainer = trainer_for()
    torch.manual_seed(0)
    responses = trainer.generate(tensors(QUERIES), **{**PURE, "min_length": 4, "top_k": 3})
    with pytest.warns(UserWarning, match=r"min_length=4") as caught:
        trainer.step(tensors(QUERIES), responses, tensors(SCORES))
    text = str(next(entry.message for entry in caught if "min_length" in str(entry.message)))
    assert "top_k=3" in text
    # At most 3 of 24 words are drawn, each about as likely as any other: ln(24 / 3) nats a token, give or take.
    a_token = float(text.split("(")[1].split(" a token")[0])
    assert 1.5 < a_token < 2.5


def test_the_remedy_names_what_the_model_s_own_settings_bring():
    trainer = trainer_for()
    trainer.model.pretrained_model.generation_config.no_repeat_ngram_size = 2
    responses = trainer.generate(tensors(QUERIES), **PURE)
    with pytest.warns(UserWarning, match=r"min_length=-1, no_repeat_ngram_size=0$") as caught:
        trainer.step(tensors(QUERIES), responses, tensors(SCORES))
    assert all(entry.filename == __file__ for entry in caught)  # the notebook's line, not one of ours


def test_a_subclass_is_told_which_of_its_methods_step_goes_past():
    class Mine(trl.PPOTrainer):
        def train_minibatch(self, *args):
            raise AssertionError

        def compute_rewards(self, *args):
            return super().compute_rewards(*args)

    with pytest.warns(UserWarning, match="Mine overrides train_minibatch, and step does not call it"):
        Mine(trl.PPOConfig(batch_size=4, mini_batch_size=2), trainer_for().model, None, tokenizer())


def test_what_suppressing_eos_costs_is_minus_log_of_what_it_leaves():
    from softspoken.trl.sampling import distance, resolve_settings

    trainer = trainer_for()
    logits = torch.tensor([[[0.0, 2.0, 1.0], [0.0, 2.0, 1.0], [0.0, 2.0, 1.0]]])
    settings = resolve_settings(trainer.policy, {**PURE, "min_length": 3})
    found = distance(trainer.policy, logits, torch.tensor([[2, 2, 1]]), settings)
    left = -np.log((1 + np.e) / (1 + np.e + np.e**2))  # the start token counts: EOS may come as the third token
    assert found[0].tolist() == pytest.approx([left, left, 0.0], abs=1e-6)


def test_a_negative_kl_is_said_with_its_error():
    from softspoken.trl.watch import say_negative_kl

    with pytest.warns(UserWarning, match=r"-0\.50 ± 0\.12 nats a response"):
        say_negative_kl(torch.tensor([-0.3, -0.7, -0.3, -0.7]) - 0.0)  # deviation .2309, over √4: .115
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        say_negative_kl(torch.tensor([-0.3, 0.2, -0.3, 0.2]))  # −0.05 ± 0.14: chance


def test_a_frozen_adapter_and_a_decoder_only_model_are_refused(tmp_path: Path):
    model = trl.AutoModelForSeq2SeqLMWithValueHead.from_pretrained(get_peft_model(tiny_t5(), LORA))
    model.pretrained_model.requires_grad_(False)
    with pytest.raises(InputError, match="is_trainable=True"):
        step(trainer_for(model))
    GPT2Config(n_layer=1, n_head=1, n_embd=4).save_pretrained(tmp_path)
    for kind in (trl.AutoModelForSeq2SeqLMWithValueHead, trl.AutoModelForCausalLMWithValueHead):
        with pytest.raises(InputError, match="TRL's own trainers"):
            kind.from_pretrained(str(tmp_path))


def test_config_mistakes_are_input_errors():
    for wrong, text in (
        ({"batch_size": 10, "mini_batch_size": 4}, "not a multiple"),
        ({"kl_penalty": "k9"}, "kl, abs, mse, full"),
        ({"push_to_hub_if_best_kwargs": {"private": True}}, "repo_id"),
    ):
        with pytest.raises(InputError, match=text):
            trl.PPOConfig(**wrong)
    assert trl.PPOConfig(forward_batch_size=8, batch_size=16).mini_batch_size == 8


def test_settings_of_trl_0_4_mean_what_they_meant_there(tmp_path: Path):
    with pytest.warns(UserWarning, match=r"mini_batch_size is 1.*batch_size 4 is not a multiple of 128"):
        old = trl.PPOConfig(batch_size=4, gradient_accumulation_steps=2, accelerator_kwargs={"logging_dir": "logs"})
    assert (old.mini_batch_size, old.backward_batch_size) == (1, 2)
    assert (old.project_kwargs, old.accelerator_kwargs) == ({"logging_dir": "logs"}, {})
    assert trl.PPOConfig(batch_size=256).mini_batch_size == 128
    (settings,) = HfArgumentParser(trl.PPOConfig).parse_args_into_dataclasses(
        ["--batch_size", "8", "--mini_batch_size", "4"]
    )
    assert settings.backward_batch_size == 4
    tiny_t5().save_pretrained(tmp_path)
    former = {
        "use_auth_token": None,
        "layer_norm_names": [],
        "use_gradient_checkpointing": False,
        "load_in_8bit": False,
    }
    assert trl.AutoModelForSeq2SeqLMWithValueHead.from_pretrained(
        str(tmp_path), peft_config=LORA, **former
    ).is_peft_model


def test_an_adapter_in_the_wrong_place_is_refused_with_the_right_one(tmp_path: Path):
    around = get_peft_model(trl.AutoModelForSeq2SeqLMWithValueHead.from_pretrained(tiny_t5()), LORA)
    with pytest.raises(InputError, match=r"belongs inside it.*from_pretrained\(name, peft_config=lora_config\)"):
        trainer_for(around)
    inside = trl.AutoModelForSeq2SeqLMWithValueHead.from_pretrained(tiny_t5())
    inside.transformer = get_peft_model(inside.pretrained_model, LORA)
    with pytest.raises(InputError, match="would not be saved as one"):
        trainer_for(inside)
    with pytest.warns(UserWarning, match="peft_config is ignored"):
        trl.AutoModelForSeq2SeqLMWithValueHead.from_pretrained(get_peft_model(tiny_t5(), LORA), peft_config=LORA)


# ---------------------------------------------------------------------------------------------------- save and load


@pytest.mark.parametrize("lora", [False, True])
def test_value_head_and_adapter_are_saved_and_loaded_together(lora, tmp_path: Path):
    base = tmp_path / "base"
    tiny_t5().save_pretrained(base)
    model = trl.AutoModelForSeq2SeqLMWithValueHead.from_pretrained(
        str(base), peft_config=LORA if lora else None, v_head_init_strategy="normal", v_head_initializer_range=0.1
    )
    assert model.v_head.summary.bias.item() == 0
    trainer = trainer_for(model)
    step(trainer)
    trainer.save_pretrained(tmp_path / "saved")
    assert AutoTokenizer.from_pretrained(tmp_path / "saved").eos_token == "</s>"
    loaded = trl.AutoModelForSeq2SeqLMWithValueHead.from_pretrained(str(tmp_path / "saved"), is_trainable=True)
    assert loaded.is_peft_model == lora
    inputs = {"input_ids": torch.tensor([QUERIES[0]]), "decoder_input_ids": torch.tensor([DRAWN[0]])}
    with torch.no_grad():
        for found, expected in zip(loaded.eval()(**inputs)[::2], model.eval()(**inputs)[::2], strict=True):
            assert torch.allclose(found, expected, atol=1e-6)
    assert any(weight.requires_grad for weight in loaded.pretrained_model.parameters())
    if lora:
        plain = PeftModel.from_pretrained(tiny_t5(), str(tmp_path / "saved"))
        assert not next(plain.parameters()).requires_grad
        frozen = trl.AutoModelForSeq2SeqLMWithValueHead.from_pretrained(str(tmp_path / "saved"))
        assert not any(weight.requires_grad for weight in frozen.pretrained_model.parameters())


def test_a_value_head_that_trl_saved_is_loaded(tmp_path: Path):
    model = get_peft_model(tiny_t5(), LORA)
    tiny_t5().save_pretrained(tmp_path / "base")
    model.peft_config["default"].base_model_name_or_path = str(tmp_path / "base")
    model.save_pretrained(tmp_path / "theirs")
    weight = torch.arange(16.0).reshape(1, 16)
    torch.save(
        {"v_head.summary.weight": weight, "v_head.summary.bias": torch.ones(1)},
        tmp_path / "theirs" / "pytorch_model.bin",
    )
    loaded = trl.AutoModelForSeq2SeqLMWithValueHead.from_pretrained(str(tmp_path / "theirs"))
    assert torch.equal(loaded.v_head.summary.weight, weight)
    assert loaded.v_head.summary.bias.item() == 1


def test_pushing_commits_what_is_saved(monkeypatch: pytest.MonkeyPatch):
    pushed = []

    class Hub:
        def __init__(self, token=None):
            pass

        def create_repo(self, repo_id, **_):
            return type("Repo", (), {"repo_id": repo_id})

        def upload_folder(self, repo_id, folder_path, **options):
            pushed.append((repo_id, sorted(path.name for path in Path(folder_path).iterdir())))

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    trainer = trainer_for(push_to_hub_if_best_kwargs={"repo_id": "me/best"})
    step(trainer)
    step(trainer, scores=[0.0] * 4)
    assert [name for name, _ in pushed] == ["me/best"]  # the second step's scores were lower
    assert {"adapter_config.json", "adapter_model.safetensors", "value_head.safetensors", "README.md"} <= set(
        pushed[0][1]
    )


# -------------------------------------------------------------------------------------------------------- generation


def test_generate_s_two_shapes_its_sampler_and_the_reference_s_answer():
    trainer = trainer_for(wrapped(trl, lora=True))
    one = trainer.generate(torch.tensor(QUERIES[0]), **PURE)
    assert one.dim() == 2
    assert one[0, 0] == 0
    lengths = iter([2, 3])
    many, reference = trainer.generate(
        tensors(QUERIES), length_sampler=lambda: next(lengths), batch_size=2, generate_ref_response=True, **PURE
    )
    assert [len(row) <= limit for row, limit in zip(many, (3, 3, 4, 4), strict=True)] == [True] * 4
    assert len(reference) == 4
    greedy = {"do_sample": False, "max_new_tokens": 5}
    mine, theirs = trainer.generate(tensors(QUERIES), generate_ref_response=True, **greedy)
    with torch.no_grad():
        for weight in trainer.model_params:
            weight.zero_()
    assert [row.tolist() for row in trainer.generate(tensors(QUERIES), generate_ref_response=True, **greedy)[1]] == [
        row.tolist() for row in theirs
    ]
    assert len(mine) == 4
    with pytest.raises(InputError, match="one query of shape"):
        trainer.generate(torch.tensor([QUERIES[0]]), **PURE)


def test_a_stop_of_one_s_own_ends_the_response():
    trainer = trainer_for()
    torch.manual_seed(0)
    stops = list(range(5, 15))
    responses = trainer.generate(tensors(QUERIES), **{**PURE, "max_new_tokens": 40, "eos_token_id": stops})
    for response in responses:
        ids = response.tolist()[1:]
        assert not set(ids[:-1]) & {*stops, 0}
    assert any(response[-1].item() in stops for response in responses)
    assert all(len(row) > 1 for row in trainer.generate(tensors(QUERIES), **{**PURE, "eos_token_id": 100_000}))


def test_the_model_s_inputs_give_the_log_probabilities_of_the_step():
    trainer = trainer_for(mask_unused_ids=False)
    given = trainer.prepare_model_inputs(tensors(QUERIES), tensors([row[1:] for row in DRAWN]))
    assert given["decoder_input_ids"][1].tolist() == [0, 9, 7, 1, 0, 0, 0]
    assert given["decoder_attention_mask"][1].tolist() == [1, 1, 1, 1, 0, 0, 0]
    with torch.no_grad():
        logits, _, _ = trainer.model(**given)
    expected = logits[1, :3].log_softmax(-1)[range(3), [9, 7, 1]]
    found, *_ = trainer.batched_forward_pass(trainer.model, tensors(QUERIES), tensors(DRAWN), given)
    assert torch.allclose(found[1, :3], expected, atol=1e-5)


def test_what_was_recorded_while_sampling_is_what_scoring_finds():
    trainer = trainer_for(wrapped(trl, lora=True))
    torch.manual_seed(1)
    responses = trainer.generate(tensors(QUERIES), **PURE)
    logprobs, _, values, _ = trainer.batched_forward_pass(trainer.model, tensors(QUERIES), responses)
    stats = trainer.step(tensors(QUERIES), responses, tensors(SCORES))
    assert stats["objective/logprobs"] == pytest.approx(logprobs.detach().numpy(), abs=1e-5)
    assert stats["ppo/val/mean"] == pytest.approx(
        values.detach().numpy()[logprobs.detach().numpy() != 0].mean(), abs=1e-2
    )


def test_what_was_recorded_by_other_weights_is_scored_again():
    trainer = trainer_for(wrapped(trl, lora=True))
    torch.manual_seed(1)
    responses = trainer.generate(tensors(QUERIES), **PURE)
    recorded, *_ = trainer.batched_forward_pass(trainer.model, tensors(QUERIES), responses)
    with torch.no_grad():
        for name, weight in trainer.model.named_parameters():
            if "lora_B" in name:
                weight.mul_(3)
    now, *_ = trainer.batched_forward_pass(trainer.model, tensors(QUERIES), responses)
    assert (now - recorded).abs().max() > 1e-2, "the weights must matter"
    stats = trainer.step(tensors(QUERIES), responses, tensors(SCORES))
    assert stats["objective/logprobs"] == pytest.approx(now.numpy(), abs=1e-5)


@QUIET
@pytest.mark.parametrize(("nats", "minis"), [(1.5, 8), (1.6, 2), (-1.6, 8)])
def test_an_update_stops_early_beyond_one_and_a_half_times_the_target(nats, minis):
    """Four epochs of two mini-batches; at a target of 1 nat the first epoch is the last where the policy is 1.6 away."""

    class Moved(trl.PPOTrainer):
        def loss(self, *given):
            policy_loss, value_loss, stats = super().loss(*given)
            moved.append(nats)
            return policy_loss, value_loss, stats | {"policy/policykl": torch.tensor(nats)}

    for early_stopping, expected in ((True, minis), (False, 8)):
        moved: list[float] = []
        config = trl.PPOConfig(
            batch_size=4, mini_batch_size=2, ppo_epochs=4, early_stopping=early_stopping, target_kl=1.0
        )
        model = trl.AutoModelForSeq2SeqLMWithValueHead.from_pretrained(get_peft_model(tiny_t5(), LORA))
        step(Moved(config, model, None, tokenizer()))
        assert len(moved) == expected


@QUIET
def test_the_controller_is_told_of_every_sample_of_the_step():
    """No drift yet: the KL weight falls by its most, 0.2 · 4 samples / 1,000; then 3 samples, one being empty."""
    trainer = trainer_for(horizon=1000.0)
    step(trainer)
    assert trainer.kl_ctl.value == pytest.approx(0.2 * (1 - 0.2 * 4 / 1000), rel=1e-9)
    before = trainer.kl_ctl.value
    stats = step(trainer, responses=[*DRAWN[:3], [0]])
    error = min(max(stats["objective/kl"] / 6 - 1, -0.2), 0.2)
    assert trainer.kl_ctl.value == pytest.approx(before * (1 + error * 3 / 1000), rel=1e-9)


def test_ten_steps_raise_the_reward():
    model = trl.AutoModelForSeq2SeqLMWithValueHead.from_pretrained(
        tiny_t5(), v_head_init_strategy="normal", v_head_initializer_range=0.01
    )
    trainer = trainer_for(model, batch_size=16, mini_batch_size=8, learning_rate=3e-2, init_kl_coef=0.02, ppo_epochs=2)
    means = []
    for _ in range(10):
        queries = tensors(QUERIES * 4)
        responses = trainer.generate(queries, batch_size=16, **PURE)
        scores = [(response == 5).float().mean() for response in responses]  # the share of one word
        means.append(trainer.step(queries, responses, scores)["ppo/mean_scores"])
    assert np.mean(means[:2]) < 0.1
    assert np.mean(means[-2:]) > 0.4


def test_length_sampler_draws_within_its_bounds():
    trl.set_seed(0)
    sampler = trl.LengthSampler(3, 6)
    assert {sampler() for _ in range(100)} == {3, 4, 5}


def test_respond_to_batch_draws_token_by_token_and_its_responses_are_what_is_trained():
    trainer = trainer_for(mask_unused_ids=False)
    queries = torch.tensor([[5, 9, 12, 1], [4, 1, 0, 0]])
    responses = trl.respond_to_batch(trainer.model, queries, txt_len=5, top_k=1)
    read, attention_mask, summed = torch.zeros(2, 1, dtype=torch.long), (queries != 0).long(), []
    with torch.no_grad():
        for _ in range(5):
            given = {"input_ids": queries, "attention_mask": attention_mask, "decoder_input_ids": read}
            logprobs = trainer.model.pretrained_model(**given).logits[:, -1].log_softmax(dim=-1)
            read = torch.cat([read, logprobs.argmax(dim=-1, keepdim=True)], dim=1)
            summed.append(logprobs.max(dim=-1).values)
    assert responses.tolist() == read[:, 1:].tolist()
    stats = trainer.step(list(queries), list(responses), tensors([0.1, 0.9]))
    assert stats["ppo/mean_scores"] == pytest.approx(0.5)
    found = stats["objective/logprobs"]
    first = torch.stack(summed, dim=1).numpy()
    assert found[:, 0] == pytest.approx(first[:, 0], abs=1e-5)


def test_shared_layers_are_the_same_weights_and_frozen():
    model = trl.AutoModelForSeq2SeqLMWithValueHead.from_pretrained(tiny_t5())
    reference = trl.create_reference_model(model, num_shared_layers=1, pattern="encoder.block.{layer}.")
    name = "pretrained_model.encoder.block.0.layer.0.SelfAttention.q.weight"
    later = "pretrained_model.encoder.block.1.layer.0.SelfAttention.q.weight"
    assert reference.get_parameter(name) is model.get_parameter(name)
    assert not model.get_parameter(name).requires_grad
    assert reference.get_parameter(later) is not model.get_parameter(later)
    assert model.get_parameter(later).requires_grad
    again = trl.create_reference_model(model, num_shared_layers=1)  # that pattern is T5's own
    assert again.get_parameter(name) is model.get_parameter(name)
    assert again.get_parameter(later) is not model.get_parameter(later)
    with pytest.raises(InputError, match=r"encoder\.block\.9\..*smaller num_shared_layers"):
        trl.create_reference_model(model, num_shared_layers=9)


@QUIET
def test_log_stats_goes_to_tensorboard(tmp_path: Path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed (the extras track and dev bring it)")
    trainer = trainer_for(log_with="tensorboard", project_kwargs={"logging_dir": str(tmp_path)})
    stats = step(trainer)
    trainer.log_stats(stats, {"query": ["q"] * 4, "response": ["r"] * 4}, tensors(SCORES))
    trainer.accelerator.end_training()
    assert list(tmp_path.rglob("events.out.tfevents*"))
    assert trainer.current_step == 1


def test_every_statistic_of_trl_is_there():
    import json

    expected = json.loads((Path(legacy_case.__file__).parent / "legacy_numbers.json").read_text(encoding="utf-8"))
    names = set(expected["cases"]["plain"]["stats"])
    stats = step(trainer_for())
    times = ("forward_pass", "compute_rewards", "compute_advantages", "optimize_step", "calc_stats", "total")
    assert names | {f"time/ppo/{name}" for name in times} <= set(stats)
