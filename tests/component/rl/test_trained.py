"""What can be trained, on a tiny T5 and a tiny BART: it moves and nothing else does, sampling and scoring agree, the reference stays
where it was, a stop changes no digit, and what is saved is what was trained."""

import math
import warnings
from dataclasses import replace

import pytest
import torch
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, T5Config, T5ForConditionalGeneration

from benchmarks.families.models import build
from softspoken.config import TrainConfig
from softspoken.data.prompts import encode_prompts
from softspoken.inference.generator import Generator
from softspoken.models.trained import StepDropout
from softspoken.rl import groups, ppo
from softspoken.rl.checkpoint import Progress, load_checkpoint, save_checkpoint
from softspoken.rl.loading import load_policy
from softspoken.rl.optimise import require_moved
from softspoken.rl.policy import Policy
from softspoken.rl.rollout import generate_rollout, score_rows, teacher_forced
from softspoken.storage.run_folder import RunFolder
from softspoken.training.start import optimizer_of
from softspoken.types import InputError, Scores

KINDS = {
    "lora": {},
    "dropout": {"lora_dropout": 0.3, "adapter_scope": "all"},
    "rank-stabilized": {"use_rslora": True},
    "dora": {"use_dora": True, "adapter_scope": "all"},
    "all-linear": {"lora_targets": ["all-linear"], "adapter_scope": "all"},
    "ia3": {"trained": "ia3"},
    "loha": {"peft_config": {"peft_type": "LOHA", "r": 2}},
    "saved": {"peft_config": {"peft_type": "LORA", "r": 2, "modules_to_save": ["final_layer_norm"]}},
    "last layer": {"trained": "last_layers"},
    "last layers everywhere": {"trained": "last_layers", "last_layers": 2, "adapter_scope": "all"},
    "full": {"trained": "full"},
    "full without a reference": {"trained": "full", "kl_coef": 0.0},
    "recomputed": {"gradient_checkpointing": True, "trained": "full"},
}


@pytest.fixture(scope="session", params=[("T5", "ppo"), ("BART", "grpo")], ids=lambda pair: "-".join(pair))
def tiny(request, tmp_path_factory):
    """A model, and what it is trained by: each kind with both, at half the time that all pairs would take."""
    family, algorithm = request.param
    return build(family, tmp_path_factory.mktemp(family.lower())), algorithm


def config_for(model, **changes):
    settings = {
        "model": str(model),
        "samples_per_prompt": 2,
        "max_new_tokens": 5,
        "mini_batch_size": 4,
        "micro_batch_size": 4,
        "lora_r": 2,
        "learning_rate": 1e-2,
        "steps": 2,
        "device": "cpu",
        "min_response_chars": 0,
        "target_kl": None,
    }
    return TrainConfig(**(settings | changes))


def step(policy, optimizer, dialogues, config, number):
    """One of training's, with made scores; what was sampled."""
    algorithm = ppo if config.algorithm == "ppo" else groups
    prompts = encode_prompts(dialogues, policy.tokenizer, policy.prompt_format)
    rollout = generate_rollout(policy, prompts, config, torch.Generator().manual_seed(number))
    rescored, _ = teacher_forced(policy, rollout, config)
    assert (rescored - rollout.old_logprobs).abs().max() < 1e-5, "sampling and scoring are one distribution"
    scores = Scores(torch.tensor([0.0, 1.0] * len(dialogues)), {})
    experience = algorithm.build_experience(rollout, scores, config, config.kl_coef)
    stats = algorithm.update(policy, optimizer, experience, config, torch.Generator().manual_seed(number))
    assert stats.optimizer_steps == 2
    assert not stats.skipped
    return rollout


def snapshot(policy):
    return {name: weight.detach().clone() for name, weight in policy.model.named_parameters()}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_trains_moves_only_its_own_goes_on_after_a_stop_and_is_saved(tiny, dialogues, tmp_path, kind):
    folder_of_model, algorithm = tiny
    config = config_for(folder_of_model, algorithm=algorithm, **KINDS[kind])
    policy = load_policy(config)
    optimizer, scheduler = optimizer_of(policy, config)
    trains, before = {*policy.adapter_parameters()}, snapshot(policy)
    first = step(policy, optimizer, dialogues, config, 1)
    assert first.has_reference == (kind != "full without a reference")
    if (
        kind != "dropout"
    ):  # at the start lora_B is 0, and a thinned adapter nothing as well; but for rounding's last digits
        assert (first.ref_logprobs - first.old_logprobs).abs().max() < 1e-5
    require_moved(policy, optimizer)
    with RunFolder(tmp_path / "run") as folder:
        folder.begin()
        save_checkpoint(folder, Progress(1, config.kl_coef, scheduler.state_dict()), policy, optimizer)
        second = step(policy, optimizer, dialogues, config, 2)
        if first.has_reference:
            assert (second.ref_logprobs - second.old_logprobs).abs().max() > 1e-5
            with policy.reference():
                was = {name: weight for name, weight in policy.model.named_parameters() if "." in name}
                if config.trains_whole_model:
                    assert all(torch.equal(before[name], weight) for name, weight in was.items())
        moved = {name for name, weight in snapshot(policy).items() if not torch.equal(weight, before[name])}
        assert moved <= trains
        assert len(moved) > 0.9 * len(trains), trains - moved  # a bias of keys has no gradient: it moves all alike

        again = load_policy(config)
        optimizer_again, _ = optimizer_of(again, config)
        assert load_checkpoint(folder.path, again, optimizer_again).step == 1
        same = step(again, optimizer_again, dialogues, config, 2)
        assert torch.equal(same.ref_logprobs, second.ref_logprobs)
        assert all(torch.equal(weight, again.trainable()[name]) for name, weight in policy.trainable().items())

    saved = tmp_path / "saved"
    policy.save(saved, config.max_new_tokens)
    if config.trains_whole_model:
        generator = Generator.from_pretrained(str(saved), device="cpu")
        loaded = AutoModelForSeq2SeqLM.from_pretrained(saved)
        assert all(
            torch.equal(weight, other)
            for weight, other in zip(policy.seq2seq.state_dict().values(), loaded.state_dict().values(), strict=True)
        )
    else:
        generator = Generator.from_pretrained(str(folder_of_model), adapter=str(saved), device="cpu")
    reloaded = Policy(generator.model, generator.tokenizer, generator.prompt_format)
    rollout = replace(second, memory=None)
    with torch.no_grad(), policy.whole():
        own, _ = teacher_forced(policy, rollout, config)
        found, _ = teacher_forced(reloaded, rollout, config)
    assert (own - found).abs().max() < 1e-5


def test_layers_that_compute_themselves_again_keep_less_and_give_the_same_gradient(tiny, dialogues):
    gradients, sizes = [], []
    for again in (False, True):
        config = config_for(tiny[0], trained="full", gradient_checkpointing=again)
        policy = load_policy(config)
        prompts = encode_prompts(dialogues, policy.tokenizer, policy.prompt_format)
        rollout = generate_rollout(policy, prompts, config, torch.Generator().manual_seed(0))
        kept = [0]

        def count(tensor, kept=kept):
            kept[0] += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            read = policy.encode_for(prompts.input_ids, prompts.attention_mask, rollout.prompt_index[:4])
            policy.decode(rollout.response_ids[:4], *read)  # the vocabulary's share would drown theirs
        logprobs, _ = score_rows(policy, rollout, torch.arange(4), config)
        logprobs.sum().backward()
        gradients.append({name: w.grad for name, w in policy.model.named_parameters() if w.grad is not None})
        sizes.append(kept[0])
    plain, recomputed = gradients
    assert plain.keys() == recomputed.keys()
    assert all(torch.allclose(plain[name], recomputed[name], atol=1e-5) for name in plain)
    assert sizes[1] < 0.5 * sizes[0]


def test_one_mask_for_all_of_a_step_by_hand():
    """Of four inputs at a share of a half the others count twice; at rest each counts once."""
    dropout = StepDropout(0.5, 1000, torch.device("cpu"))
    inputs = torch.ones(3, 1000)
    assert torch.equal(dropout(inputs), inputs)
    dropout.draw(torch.Generator().manual_seed(0))
    out = dropout(inputs)
    assert {*out.flatten().tolist()} == {0.0, 2.0}
    assert torch.equal(out[0], out[2])
    assert out[0].mean().item() == pytest.approx(1, abs=0.1)
    dropout.rest()
    assert torch.equal(dropout(inputs), inputs)


def test_a_step_samples_what_its_mask_leaves_and_each_step_has_its_own(tiny_t5, dialogues):
    config = config_for(tiny_t5, lora_dropout=0.5)
    policy = load_policy(config)
    for name, weight in policy.adapter_parameters().items():
        if "lora_B" in name:
            nn.init.normal_(weight)
    prompts = encode_prompts(dialogues, policy.tokenizer, policy.prompt_format)
    draws = torch.Generator().manual_seed(1)
    policy.thin(draws)
    rollout = generate_rollout(policy, prompts, config, draws)
    masks = [dropout.mask.clone() for dropout in policy.dropouts]
    with policy.whole():
        whole, _ = teacher_forced(policy, rollout, config)
    assert (whole - rollout.old_logprobs).abs().max() > 1e-3
    assert all(torch.equal(dropout.mask, mask) for dropout, mask in zip(policy.dropouts, masks, strict=True))
    policy.thin(draws)
    assert not any(torch.equal(dropout.mask, mask) for dropout, mask in zip(policy.dropouts, masks, strict=True))


def test_which_weights_train(tiny_t5):
    def names(**changes):
        return {*load_policy(config_for(tiny_t5, **changes)).adapter_parameters()}

    last = names(trained="last_layers")
    assert last
    assert all(name.startswith("decoder.block.1.") for name in last)
    both = names(trained="last_layers", adapter_scope="all")
    assert {name.split(".block.")[0] for name in both} == {"encoder", "decoder"}
    full = load_policy(config_for(tiny_t5, trained="full"))
    assert len(full.adapter_parameters()) == len(list(full.model.parameters()))
    everywhere = names(lora_targets=["all-linear"])
    assert {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in everywhere} == {
        *("q", "k", "v", "o", "wi_0", "wi_1", "wo"),
    }
    assert all(".decoder." in name for name in everywhere | names(trained="ia3"))


def test_rank_stabilized_lora_is_scaled_by_the_root_of_its_rank(tiny_t5):
    policy = load_policy(config_for(tiny_t5, lora_r=4, lora_alpha=6, use_rslora=True))
    scales = {layer.scaling["default"] for layer in policy.model.modules() if isinstance(layer, LoraLayer)}
    assert scales == {6 / math.sqrt(4)}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"peft_type": "ADALORA", "total_step": 5}, "AdaLoRA shares its ranks out .*give peft_type LORA"),
        ({"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 4}, "PREFIX_TUNING .*learns a prompt or prefix"),
        ({"peft_type": "SORCERY"}, "there is no peft_type 'SORCERY'"),
        ({"peft_type": "LORA", "rank": 4}, "LORA has no setting 'rank'"),
        ({"peft_type": "LORA", "bias": "all"}, "bias trains the base's own"),
        (
            {"peft_type": "LORA", "init_lora_weights": "pissa"},
            "takes its start out of the base's weights, or out of data",
        ),
        (
            {"peft_type": "LORA", "init_lora_weights": "olora"},
            "takes its start out of the base's weights, or out of data",
        ),
        (
            {"peft_type": "LORA", "init_lora_weights": False},
            "takes its start out of the base's weights, or out of data",
        ),
        ({"peft_type": "UNILORA"}, "changes the model before it is trained"),
        ({"peft_type": "LORA", "init_lora_weights": "eva"}, "init_lora_weights 'eva' takes its start out"),
        (
            {"peft_type": "LORA", "init_lora_weights": "lora_ga"},
            "init_lora_weights 'lora_ga' takes its start out",
        ),
        ({"peft_type": "POLY"}, "with POLY this model cannot be sampled from as it is here .*give peft_type LORA"),
        ({"peft_type": "TRAINABLE_TOKENS"}, "with TRAINABLE_TOKENS this model cannot be sampled from as it is here"),
        ({"peft_type": "LORA", "target_modules": ["nowhere"]}, "cannot put LORA on this model .*nowhere"),
    ],
)
def test_what_peft_cannot_do_here_is_one_sentence(tiny_t5, settings, words):
    with pytest.raises(InputError, match=words) as said:
        load_policy(config_for(tiny_t5, peft_config=settings))
    assert "\n" not in str(said.value)


@pytest.mark.parametrize("init", [True, "gaussian", "orthogonal", "mica"])
def test_what_starts_at_the_base_is_taken(tiny_t5, init):
    load_policy(config_for(tiny_t5, peft_config={"peft_type": "LORA", "r": 2, "init_lora_weights": init}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"trained": "full", "adapter": "x"}, "adapter 'x' cannot be used: trained full has no adapter"),
        ({"trained": "full", "dtype": "bfloat16"}, "dtype 'bfloat16' cannot be used"),
        ({"trained": "last_layers", "quantization": "8bit"}, "quantization '8bit' cannot be used"),
        ({"trained": "ia3", "lora_dropout": 0.1}, "lora_dropout 0.1 cannot be used"),
        ({"use_dora": True, "lora_dropout": 0.1}, "DoRA"),
        ({"trained": "ia3", "peft_config": "x.yaml"}, "peft_config 'x.yaml' cannot be used"),
        ({"lora_dropout": 1.0}, "lora_dropout 1.0 cannot be used: give 0.95 or less"),
    ],
)
def test_settings_that_say_two_things_are_refused(changes, words):
    with pytest.raises(InputError, match=words):
        TrainConfig(**changes)


def test_no_librarys_notice_comes_with_an_adapter(tiny_t5, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_policy(config_for(tiny_t5)).save(tmp_path / "saved", 5)
        load_policy(config_for(tiny_t5, adapter=str(tmp_path / "saved")))
        Generator.from_pretrained(str(tiny_t5), adapter=str(tmp_path / "saved"), device="cpu")


def test_more_last_layers_than_there_are(tiny_t5):
    with pytest.raises(InputError, match="last_layers 3 is more than the 2 layers of the decoder"):
        load_policy(config_for(tiny_t5, trained="last_layers", last_layers=3))


def test_a_quantized_base_without_bitsandbytes_is_one_sentence(tiny_t5, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="quantization 8bit needs bitsandbytes, which is not installed; pip install"):
        load_policy(config_for(tiny_t5, quantization="8bit"))


@pytest.mark.parametrize("quantization", ["8bit", "4bit"])
def test_a_quantized_base_under_an_adapter_trains_and_is_loaded_again(tiny_t5, dialogues, tmp_path, quantization):
    pytest.importorskip("bitsandbytes")
    torch.manual_seed(0)
    wide = T5ForConditionalGeneration(  # 4 bits come in blocks of 64
        T5Config.from_pretrained(tiny_t5, d_model=64, d_kv=32, d_ff=64)
    )
    AutoTokenizer.from_pretrained(tiny_t5).save_pretrained(tmp_path / "wide")
    wide.save_pretrained(tmp_path / "wide")
    config = config_for(tmp_path / "wide", quantization=quantization)
    policy = load_policy(config)
    optimizer, _ = optimizer_of(policy, config)
    step(policy, optimizer, dialogues, config, 1)
    require_moved(policy, optimizer)
    second = step(policy, optimizer, dialogues, config, 2)
    policy.save(tmp_path / "adapter", config.max_new_tokens)
    folder = str(tmp_path / "adapter")
    generator = Generator.from_pretrained(config.model, adapter=folder, device="cpu", quantization=quantization)
    reloaded = Policy(generator.model, generator.tokenizer, generator.prompt_format)
    own, _ = teacher_forced(policy, second, config)
    found, _ = teacher_forced(reloaded, replace(second, memory=None), config)
    assert (own - found).abs().max() < 1e-4
