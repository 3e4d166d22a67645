"""softspoken.trl: a trainer's state is whole, memory is saved where that is asked for, forced tokens do not train, names are known."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import GenerationConfig

from legacy_case import DRAWN, QUERIES, SCORES, tiny_t5, tokenizer, wrapped
from softspoken import trl
from softspoken.types import InputError

PURE = {"do_sample": True, "top_k": 0, "top_p": 1.0, "min_length": -1, "max_new_tokens": 6}
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*KL to the reference", "ignore:.*tokenized again", "ignore:.*draws from"
)


def trainer_for(model, *, schedule=False, **settings) -> trl.PPOTrainer:
    options = {"batch_size": 4, "mini_batch_size": 2, "ppo_epochs": 1, "learning_rate": 1e-2, **settings}
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.Adam(weights, lr=1e-2)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5) if schedule else None
    return trl.PPOTrainer(
        trl.PPOConfig(**options), model, None, tokenizer(), optimizer=optimizer, lr_scheduler=scheduler
    )


def step(trainer, responses=DRAWN):
    rows = [[torch.tensor(row) for row in batch] for batch in (QUERIES, responses, SCORES)]
    return trainer.step(*rows)


def trained(trainer) -> torch.Tensor:
    return torch.cat([weight.detach().flatten().clone() for weight in trainer.model_params])


@pytest.mark.parametrize("lora", [False, True])
def test_a_trainer_that_loads_a_state_goes_on_as_the_one_that_saved_it(lora, tmp_path: Path):
    """Weights, optimizer, schedule, KL weight, the scores' moments and random numbers: the next step is the same."""
    settings = {"schedule": True, "use_score_scaling": True, "horizon": 50}
    first = trainer_for(wrapped(trl, lora=lora), **settings)
    step(first)
    first.accelerator.save_state(str(tmp_path))
    expected = step(first)
    other = trainer_for(wrapped(trl, lora=lora), **settings)
    assert other.kl_ctl.value != first.kl_ctl.value
    other.accelerator.load_state(str(tmp_path))
    found = step(other)
    for name in ("objective/kl", "objective/kl_coef", "ppo/loss/total", "ppo/mean_scores", "ppo/learning_rate"):
        assert found[name] == pytest.approx(expected[name], abs=1e-6), name
    assert torch.allclose(trained(other), trained(first), atol=1e-6)
    assert found["ppo/learning_rate"] == 1e-2 / 2
    assert json.loads((tmp_path / "trainer.json").read_text())["lr_scheduler"]["last_epoch"] == 1


def test_a_state_of_other_weights_is_refused(tmp_path: Path):
    first = trainer_for(wrapped(trl, lora=True))
    first.accelerator.save_state(str(tmp_path))
    with pytest.raises(InputError, match="other weights"):
        trainer_for(wrapped(trl, lora=False)).accelerator.load_state(str(tmp_path))
    (tmp_path / "trained.safetensors").unlink()
    with pytest.raises(InputError, match=r"has no trained\.safetensors"):
        trainer_for(wrapped(trl, lora=True)).accelerator.load_state(str(tmp_path))


@pytest.mark.parametrize("way", ["config", "model", "transformers"])
def test_gradient_checkpointing_computes_again_what_it_does_not_keep_with_dropout_off(way):
    runs = {}
    for asked in (False, True):
        model = wrapped(trl, lora=True)
        for module in model.modules():  # a step with dropout in either pass would not be the same
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.5
        if asked and way == "model":
            model.gradient_checkpointing_enable()
        if asked and way == "transformers":
            model.pretrained_model.gradient_checkpointing_enable()
        trainer = trainer_for(model, gradient_checkpointing=asked and way == "config")
        calls = []
        block = model.pretrained_model.get_base_model().decoder.block[0].layer[0]
        block.register_forward_hook(lambda *_, calls=calls: calls.append(torch.is_grad_enabled()))
        np.random.seed(5)
        stats = step(trainer)
        runs[asked] = sum(calls), stats["ppo/loss/total"], trained(trainer)
    assert (runs[False][0], runs[True][0]) == (2, 4)  # two mini-batches; each layer once more in their backward pass
    assert runs[True][1] == pytest.approx(runs[False][1], abs=1e-6)
    assert torch.allclose(runs[True][2], runs[False][2], atol=1e-5)
    model.gradient_checkpointing_disable()
    assert "forward" not in vars(model.pretrained_model.get_base_model().decoder.block[0])


@pytest.mark.parametrize("how", ["call", "generation_config", "model.generate"])
def test_a_token_that_generate_was_told_to_put_out_is_not_trained(how):
    model = trl.AutoModelForSeq2SeqLMWithValueHead.from_pretrained(
        get_peft_model(tiny_t5(), LoraConfig(r=4, target_modules=["q", "v"], task_type="SEQ_2_SEQ_LM"))
    )
    trainer = trainer_for(model)
    torch.manual_seed(0)
    queries = [torch.tensor(row) for row in QUERIES]
    forced = {"forced_bos_token_id": 9}
    if how == "call":
        responses = trainer.generate(queries, **PURE, **forced)
    elif how == "generation_config":
        responses = trainer.generate(queries, generation_config=GenerationConfig(**PURE, **forced))
    else:
        trainer.policy.forbid(torch.zeros_like(trainer.policy.forbidden))  # it may draw ids that no token has
        responses = [model.generate(input_ids=query[None], **PURE, **forced)[0] for query in queries]
    assert all(response[:2].tolist() == [0, 9] for response in responses)
    *_, masks = trainer.batched_forward_pass(model, queries, responses)
    assert masks[:, 0].tolist() == [0] * 4
    assert masks[:, 1].tolist() == [1] * 4
    cut = [response[:3] for response in responses]  # a beginning of what was drawn
    *_, masks = trainer.batched_forward_pass(model, queries, cut)
    assert masks.tolist() == [[0, 1]] * 4
    stats = trainer.step(queries, responses, [torch.tensor(score) for score in SCORES])
    assert not stats["objective/logprobs"][:, 0].any()
    *_, masks = trainer.batched_forward_pass(model, queries, responses)  # nothing is remembered beyond a step
    assert masks[:, 0].tolist() == [1] * 4


def test_an_end_that_was_forced_at_the_limit_is_not_trained():
    trainer = trainer_for(wrapped(trl, lora=True))
    drawn = torch.tensor([[0, 6, 10, 1], [0, 9, 1, 0]])  # the second ended by itself
    trainer.model.drawn.add(tiny_t5(), drawn, {"max_new_tokens": 3, "forced_eos_token_id": 1})
    queries = [torch.tensor(row) for row in QUERIES[:2]]
    *_, masks = trainer.batched_forward_pass(trainer.model, queries, list(drawn))
    assert masks.tolist() == [[1, 1, 0], [1, 1, 0]]  # the second's third is padding


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"num_beams": 2}, r"num_beams=2 draws .*, by how much cannot be counted"),
        ({"num_beams": 2, "top_k": 3}, r"by at least [0-9.]+ nats .*\), num_beams left out, as that cannot be counted"),
    ],
)
def test_what_a_setting_costs_is_not_said_to_be_nothing_where_it_cannot_be_counted(settings, said):
    trainer = trainer_for(wrapped(trl, lora=True))
    torch.manual_seed(0)
    responses = trainer.generate([torch.tensor(row) for row in QUERIES], **{**PURE, **settings})
    with pytest.warns(UserWarning, match=said):
        step(trainer, [response.tolist() for response in responses])


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"begin_suppress_tokens": [2]}, [1, 0, 0]),
        ({"suppress_tokens": [2]}, [1, 1, 1]),
        ({"bad_words_ids": [[2]]}, [1, 1, 1]),
        ({"no_repeat_ngram_size": 1}, [np.log2(4 / 3), 2, 2]),
    ],
)
def test_what_leaving_out_one_of_three_tokens_costs(settings, expected):
    """Half of the probability is the third's: without it, ln 2 nats; nor is the start to be repeated, a quarter."""
    from softspoken.trl.sampling import distance, resolve_settings

    trainer = trainer_for(wrapped(trl, lora=True))
    logits = torch.log(torch.tensor([0.25, 0.25, 0.5])).expand(1, 3, 3)
    found = distance(
        trainer.policy, logits, torch.tensor([[2, 2, 2]]), resolve_settings(trainer.policy, {**PURE, **settings})
    )
    assert found[0].tolist() == pytest.approx([np.log(2) * each for each in expected], abs=1e-6)


def test_names_of_later_trls_are_explained():
    model = wrapped(trl, lora=True)
    config = trl.PPOConfig(batch_size=4, mini_batch_size=2)
    with pytest.raises(InputError, match=r"PPOTrainer takes no args=.*give config= instead"):
        trl.PPOTrainer(args=config, model=model, processing_class=tokenizer())
    with pytest.raises(InputError, match=r"PPOTrainer takes no processing_class=.*give tokenizer= instead"):
        trl.PPOTrainer(config, model, processing_class=tokenizer())
    with pytest.raises(InputError, match=r"PPOConfig takes no output_dir=.*leave it out"):
        trl.PPOConfig(output_dir="x")
    with pytest.raises(TypeError, match="unexpected keyword argument 'nonsense'"):
        trl.PPOTrainer(config, model, nonsense=1)
    with pytest.raises(TypeError, match="unexpected keyword argument 'nonsense'"):
        trl.PPOConfig(nonsense=1)
    assert isinstance(model, trl.PreTrainedModelWrapper)
