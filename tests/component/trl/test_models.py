"""The model with a value head: how it is made, what it hands on, what it saves, and where its head is found again."""

import re
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import save_file

from legacy_case import DRAWN, QUERIES, tiny_t5, wrapped
from softspoken import trl
from softspoken.trl import models, publish
from softspoken.trl.models import AutoModelForSeq2SeqLMWithValueHead as Model
from softspoken.trl.models import ValueHead, _load, _saved_head
from softspoken.types import InputError

LORA = LoraConfig(r=2, target_modules=["q", "v"], task_type="SEQ_2_SEQ_LM")


def test_the_head_is_linear_with_dropout_and_normal_where_that_is_asked_for():
    assert ValueHead(4).dropout.p == 0.1
    for none in (None, 0.0):
        assert isinstance(ValueHead(4, summary_dropout_prob=none).dropout, torch.nn.Identity)
    torch.manual_seed(0)
    for settings, deviation in (({}, 0.2), ({"v_head_initializer_range": 0.05}, 0.05)):
        head = ValueHead(20_000, v_head_init_strategy="normal", **settings)
        assert head.summary.weight.std().item() == pytest.approx(deviation, rel=0.03)
        assert head.summary.bias.item() == 0
    plain = ValueHead(20_000)
    assert plain.summary.weight.std().item() == pytest.approx(1 / (3 * 20_000) ** 0.5, rel=0.03)
    assert plain.summary.bias.item() != 0


def test_forward_gives_logits_values_and_where_it_is_asked_for_the_cache():
    model = wrapped(trl, lora=False).eval()
    given = {"input_ids": torch.tensor([QUERIES[0]]), "decoder_input_ids": torch.tensor([DRAWN[0]])}
    logits, loss, values = model(**given)
    inner = model.pretrained_model(**given, output_hidden_states=True)
    assert torch.equal(logits, inner.logits)
    assert loss is None
    last = inner.decoder_hidden_states[-1]
    assert torch.allclose(values, (last @ model.v_head.summary.weight.T + model.v_head.summary.bias).squeeze(-1))
    assert len(model(**given, return_past_key_values=True)) == 4
    assert model(**given, return_past_key_values=True)[3].get_seq_length() == len(DRAWN[0])


def test_generating_leaves_the_mode_as_it_was_and_remembers_what_came_out():
    model = wrapped(trl, lora=False)
    modes = []
    model.pretrained_model.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    for training in (True, False):
        model.train(training)
        found = model.generate(
            input_ids=torch.tensor([QUERIES[0]]), max_new_tokens=2, return_dict_in_generate=not training
        )
        assert model.training == training
        ids = (found if training else found.sequences)[0].tolist()
        assert len(model.drawn.settings) == 1
        assert next(iter(model.drawn.settings)) == tuple(each for each in ids[1:] if each != 0)
        model.drawn.clear()
    assert not any(modes)


def test_the_state_is_the_heads_and_of_a_plain_model_its_own_too():
    plain, adapted = wrapped(trl, lora=False), wrapped(trl, lora=True)
    head = {"v_head.summary.weight", "v_head.summary.bias"}
    assert set(adapted.state_dict()) == head
    assert set(plain.state_dict()) == head | set(plain.pretrained_model.state_dict())
    adapted.post_init({"shared.weight": torch.zeros(1)})
    adapted.post_init({"v_head.summary.weight": torch.full((1, 16), 2.0), "v_head.summary.bias": torch.full((1,), 3.0)})
    assert adapted.v_head.summary.bias.item() == 3
    assert (adapted.v_head.summary.weight == 2).all()


def test_what_cannot_be_made_is_said(tmp_path, monkeypatch):
    for source, settings, words in (
        (tiny_t5(), {"reward_adapter": "x"}, "reward_adapter is for decoder-only models"),
        (tiny_t5(), {"peft_config": {"r": 4}}, "peft_config is a dict; give one of peft's"),
        (3, {}, "from_pretrained got a int; give a name, a folder, or a loaded model"),
    ):
        with pytest.raises(InputError, match=re.escape(words)):
            Model.from_pretrained(source, **settings)
    headless = tiny_t5()
    headless.get_output_embeddings = lambda: None
    with pytest.raises(InputError, match="has no language-model head; load it with AutoModelForSeq2SeqLM"):
        Model.from_pretrained(headless)
    prompt = PromptTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=2)
    with pytest.raises(InputError, match="prompt-learning adapters"):
        Model(get_peft_model(tiny_t5(), prompt))
    get_peft_model(tiny_t5(), prompt).save_pretrained(tmp_path)
    monkeypatch.setattr(models, "_seq2seq", lambda *_: pytest.fail("the base was read"))
    with pytest.raises(InputError, match=r"prompt"):
        Model.from_pretrained(tmp_path)
    decoder = SimpleNamespace(config=SimpleNamespace(is_encoder_decoder=False))
    with pytest.raises(InputError, match="is a decoder-only model"):
        Model(decoder)


def test_settings_that_do_nothing_here_are_taken_and_a_quantized_model_is_prepared(monkeypatch):
    assert not Model.from_pretrained(tiny_t5(), reward_adapter=None, reward_adapter_name="x").is_peft_model
    prepared = []
    monkeypatch.setattr(
        models, "prepare_model_for_kbit_training", lambda model, **given: prepared.append(given) or model
    )
    assert Model.from_pretrained(tiny_t5(), peft_config=LORA).is_peft_model
    assert prepared == []
    quantized = tiny_t5()
    quantized.is_quantized = True
    Model.from_pretrained(quantized, peft_config=LORA, use_gradient_checkpointing=False)
    assert prepared == [{"use_gradient_checkpointing": False}]


def test_options_have_their_names_of_today_and_float32_is_the_default(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(models, "_seq2seq", lambda source, args, options: seen.append(options))
    for given in (
        {},
        {"torch_dtype": torch.bfloat16},
        {"use_auth_token": "t", "load_in_8bit": False},
        {"load_in_8bit": True},
        {"load_in_4bit": True, "device_map": "auto"},
    ):
        _load(str(tmp_path), (), given, False)
    plain, half, token, eight, four = seen
    assert plain == {"dtype": torch.float32}
    assert half == {"dtype": torch.bfloat16}
    assert token == {"dtype": torch.float32, "token": "t"}
    assert eight["quantization_config"].load_in_8bit
    assert eight["device_map"] == {"": torch.cuda.current_device() if torch.cuda.is_available() else "cpu"}
    assert four["quantization_config"].load_in_4bit
    assert four["device_map"] == "auto"


def test_a_saved_head_is_found_beside_the_model_or_among_its_weights(tmp_path):
    weight, bias = torch.full((1, 2), 5.0), torch.zeros(1)
    head = {"v_head.summary.weight": weight, "v_head.summary.bias": bias, "encoder.x": torch.zeros(1)}
    assert _saved_head(str(tmp_path)) is None
    torch.save(head, tmp_path / "pytorch_model.bin")
    assert {name: each.tolist() for name, each in _saved_head(str(tmp_path)).items()} == {
        "weight": [[5.0, 5.0]],
        "bias": [0.0],
    }
    save_file({"encoder.x": torch.zeros(1)}, tmp_path / "model.safetensors")
    assert _saved_head(str(tmp_path)) is None  # not on to the next: it would be a second copy of all weights
    save_file(head, tmp_path / "model.safetensors")
    assert sorted(_saved_head(str(tmp_path))) == ["bias", "weight"]
    save_file({"weight": weight + 1, "bias": bias}, tmp_path / "value_head.safetensors")
    assert _saved_head(str(tmp_path))["weight"][0, 0] == 6


def test_of_a_torch_file_weights_alone_are_read(tmp_path):
    torch.save({"v_head.summary.weight": SimpleNamespace()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(Exception, match=r"[Ww]eights.only"):
        _saved_head(str(tmp_path))


def test_a_reference_is_a_frozen_copy_in_evaluation_mode():
    model = wrapped(trl, lora=False).train()
    reference = trl.create_reference_model(model)
    assert not reference.training
    assert not any(weight.requires_grad for weight in reference.parameters())
    assert all(weight.requires_grad for weight in model.parameters())
    assert reference.v_head.summary.weight is not model.v_head.summary.weight


def test_input_gradients_are_the_models_to_enable():
    model = wrapped(trl, lora=False)
    called = []
    model.pretrained_model.enable_input_require_grads = lambda: called.append(True)
    model.enable_input_require_grads()
    assert called == [True]


# ------------------------------------------------------------------------------------------------------------- publish


def test_trackers_get_the_settings_as_they_take_them():
    config = trl.PPOConfig(batch_size=2, mini_batch_size=1, tracker_project_name="p", tracker_kwargs={"a": 1})
    calls = []
    accelerator = SimpleNamespace(init_trackers=lambda name, **given: calls.append((name, given)))
    publish.start_trackers(accelerator, config)
    config.log_with = "tensorboard"
    publish.start_trackers(accelerator, config)
    (name, first), (_, second) = calls
    assert (name, first["init_kwargs"]) == ("p", {"a": 1})
    assert first["config"]["trl_ppo_trainer_config"]["batch_size"] == 2
    assert second["config"]["batch_size"] == 2
    assert None not in second["config"].values()


def test_what_is_logged_of_a_steps_rewards():
    rewards = torch.tensor([[1.0], [3.0]], requires_grad=True)
    for given in (rewards, [torch.tensor(1.0), torch.tensor(3.0)]):
        logs = publish.step_logs({"a": 1}, {}, given, ["query"], "tensorboard")
        assert (logs["a"], logs["env/reward_mean"]) == (1, 2.0)
        assert logs["env/reward_std"] == pytest.approx(2**0.5)
        assert logs["env/reward_dist"].tolist() == [1.0, 3.0]
    assert publish.step_logs({}, {}, [torch.tensor(1.0)], [], None)["env/reward_std"] == 0.0
    with pytest.raises(InputError, match="columns_to_log names 'query', and the batch has response"):
        publish.step_logs({}, {"response": []}, rewards, ["response", "query"], "wandb")


def test_the_card_is_written_into_a_folder_that_may_not_be_there_yet(tmp_path):
    for _ in range(2):
        publish.write_card(tmp_path / "a" / "b", "Mine")
    assert "# Mine" in (tmp_path / "a" / "b" / "README.md").read_text(encoding="utf-8")
