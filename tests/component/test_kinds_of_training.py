"""What can be trained is the same in sft, dpo and train: what sft made of it, train goes on from."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from softspoken.config import DpoConfig, SftConfig, TrainConfig
from softspoken.config.trained import WhatTrains
from softspoken.data.prompts import encode_prompts
from softspoken.dpo import dpo
from softspoken.inference.generator import Generator
from softspoken.rl import ppo
from softspoken.rl.loading import load_policy
from softspoken.rl.policy import Policy, require_moved
from softspoken.rl.rollout import generate_rollout, teacher_forced
from softspoken.sft import sft
from softspoken.training.start import optimizer_of
from softspoken.types import InputError, Scores
from tiny_run import config_for

ADAPTERS = {
    "dropout": {"lora_dropout": 0.3},
    "rank-stabilized": {"use_rslora": True, "adapter_scope": "decoder"},
    "dora": {"use_dora": True},
    "all-linear": {"lora_targets": ["all-linear"]},
    "ia3": {"trained": "ia3"},
    "loha": {"peft_config": {"peft_type": "LOHA", "r": 2}},
    "saved": {"peft_config": {"peft_type": "LORA", "r": 2, "modules_to_save": ["final_layer_norm"]}},
}
MODELS = {"full": {"trained": "full"}, "last layer": {"trained": "last_layers", "gradient_checkpointing": True}}
ROWS = [{"dialogue": f"Nora: number {n}?\nFelix: yes", "summary": f"It is {n}."} for n in range(4)]
PAIRS = [{"text": row["dialogue"], "chosen": row["summary"], "rejected": "No."} for row in ROWS]


def warm(tiny_t5, output, **changes):
    plain = {"trained": "lora"} if "trained" not in changes else {}
    settings = {"batch_size": 2, "learning_rate": 1e-2, "lora_r": 2, "max_new_tokens": 6, **plain, **changes}
    return SftConfig(model=str(tiny_t5), dataset=ROWS, output=str(output), **settings)


def logprobs(policy, rollout, config):
    with torch.no_grad(), policy.whole():
        return teacher_forced(policy, rollout, config)


@pytest.mark.parametrize("kind", ADAPTERS)
def test_train_goes_on_from_an_adapter_of_every_kind_that_sft_made(tiny_t5, dialogues, tmp_path, kind):
    folder = sft(warm(tiny_t5, tmp_path / "warm", **ADAPTERS[kind]))
    config = config_for(tiny_t5, "-", tmp_path / "run", adapter=str(folder), target_kl=None)
    policy = load_policy(config)
    bare = load_policy(replace(config, adapter=None))
    optimizer, _ = optimizer_of(policy, config)
    prompts = encode_prompts(dialogues, policy.tokenizer, policy.prompt_format)
    rollout = generate_rollout(policy, prompts, config, torch.Generator().manual_seed(0))
    assert (rollout.old_logprobs - rollout.ref_logprobs).abs().max() < 1e-5, "it starts from its reference"
    plain = replace(rollout, memory=None)
    assert (logprobs(bare, plain, config)[0] - rollout.old_logprobs).abs().max() > 1e-4, (
        "which is the adapter, not the base"
    )
    experience = ppo.build_experience(rollout, Scores(torch.arange(8.0) % 2, {}), config, config.kl_coef)
    ppo.update(policy, optimizer, experience, config, torch.Generator().manual_seed(0))
    require_moved(policy, optimizer)
    own, _ = logprobs(policy, plain, config)
    assert (own - rollout.old_logprobs).abs().max() > 1e-4
    with policy.reference():
        stayed, _ = logprobs(policy, plain, config)
    assert (stayed - rollout.ref_logprobs).abs().max() < 1e-5, "the reference stays where it was"
    policy.save(tmp_path / "saved", 6)
    generator = Generator.from_pretrained(str(tiny_t5), adapter=str(tmp_path / "saved"), device="cpu")
    found, _ = logprobs(Policy(generator.model, generator.tokenizer, generator.prompt_format), plain, config)
    assert (own - found).abs().max() < 1e-5


@pytest.mark.parametrize("kind", MODELS)
def test_sft_and_dpo_leave_a_whole_model_where_its_own_weights_train(tiny_t5, tmp_path, kind):
    def weights(folder):
        return Generator.from_pretrained(str(folder), device="cpu").model.state_dict()

    before = weights(tiny_t5)
    made = [sft(warm(tiny_t5, tmp_path / "warm", **MODELS[kind]))]
    settings = {"batch_size": 2, "learning_rate": 1e-2, "device": "cpu", "max_new_tokens": 6, **MODELS[kind]}
    preferred = DpoConfig(output=str(tmp_path / "dpo"), model=str(tiny_t5), dataset=PAIRS, **settings)
    made.append(dpo(preferred))
    for folder in made:
        after = weights(folder)
        moved = {name for name, weight in after.items() if not torch.equal(weight, before[name])}
        last = {name for name in moved if ".block.1." in name}
        assert moved
        assert (moved == last) == (kind == "last layer")
    assert dpo(replace(preferred, resume=True)) == made[1], "it is at its end"


def test_dpo_takes_any_adapter(tiny_t5, tmp_path):
    folder = dpo(
        DpoConfig(
            output=str(tmp_path / "dpo"), model=str(tiny_t5), dataset=PAIRS, batch_size=4, trained="ia3", device="cpu"
        )
    )
    assert Generator.from_pretrained(str(tiny_t5), adapter=str(folder), device="cpu").model.peft_type.value == "IA3"


@pytest.mark.parametrize("config", [TrainConfig, SftConfig, DpoConfig])
def test_the_settings_are_one_and_the_same_in_each_command(config):
    assert issubclass(config, WhatTrains)
    needed = {"output": "x", "dataset": "y"} if config is not TrainConfig else {}
    for changes, words in (
        (
            {"trained": "full", "quantization": "8bit"},
            "quantization '8bit' cannot be used: trained full has no adapter",
        ),
        ({"trained": "ia3", "lora_dropout": 0.1}, "lora_dropout 0.1 cannot be used: it is for a fresh LoRA adapter"),
        ({"trained": "lora", "use_dora": True, "lora_dropout": 0.1}, "DoRA"),
        ({"trained": "ia3", "peft_config": "x.yaml"}, "peft_config 'x.yaml' cannot be used"),
    ):
        with pytest.raises(InputError, match=words):
            config(**needed, **changes)


def test_a_peft_file_is_read_by_sft_as_by_train(tiny_t5, tmp_path):
    (tmp_path / "loha.yaml").write_text("peft_type: LOHA\nr: 2\n")
    folder = sft(warm(tiny_t5, tmp_path / "warm", peft_config=str(tmp_path / "loha.yaml")))
    assert Generator.from_pretrained(str(tiny_t5), adapter=str(folder), device="cpu").model.peft_type.value == "LOHA"


def test_sft_takes_a_quantized_base(tiny_t5, tmp_path):
    pytest.importorskip("bitsandbytes")
    folder = sft(warm(tiny_t5, tmp_path / "warm", quantization="8bit", gradient_checkpointing=True))
    weights = load_file(folder / "adapter_model.safetensors")
    assert all(weight.any() for name, weight in weights.items() if "lora_B" in name)
