"""One PPO step on a tiny T5, written once for TRL 0.11.4 and for softspoken.trl: `run(trl, case)` takes either as a module.

Imports nothing of softspoken: benchmarks/legacy_numbers runs it in an environment where the real TRL is.
"""

import math
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import GenerationConfig, PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

TEXT = "nora felix bus train late home milk door says asks will the a is on in to and he she they"
WORDS = TEXT.split()
UNUSED = 6
"""Logits that no token has, as in T5."""

START, EOS, PAD = 0, 1, 0
QUERIES = [[5, 9, 12, 1], [7, 3, 20, 11, 6, 1], [4, 1], [13, 8, 21, 1]]
DRAWN = [[START, 6, 10, 3, 14, EOS], [START, 9, 7, EOS], [START, 17, 5, 5, 8, 22, 11], [START, 12, 4, EOS]]
SCORES = [0.7, -1.2, 0.4, 2.0]

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "two epochs of mini-batches": {"mini_batch_size": 2, "ppo_epochs": 2},
    "gradient norm clipped": {"max_grad_norm": 0.05},
    "gradient accumulation": {"mini_batch_size": 1, "gradient_accumulation_steps": 2},
    "adapter": {"lora": True},
    "absolute KL, whitened rewards": {"kl_penalty": "abs", "whiten_rewards": True},
    "squared KL, clipped scores": {"kl_penalty": "mse", "score_clip": 0.5},
    "exact KL": {"kl_penalty": "full"},
    "responses tokenized again": {"responses": [row[1:] for row in DRAWN]},
    "padded queries": {"queries": [[0, 0, *QUERIES[0]], [*QUERIES[1], 0], QUERIES[2], [0, *QUERIES[3], 0, 0]]},
    "responses masked": {"masks": [[1, 0, 1, 1], [1, 1], [0, 1, 1, 1, 0], [1, 1]]},
}


def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {word: place for place, word in enumerate(["<pad>", "</s>", "<unk>", *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", EOS)])
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", padding_side="right"
    )


def tiny_t5(shift: float = 0.0) -> T5ForConditionalGeneration:
    """Two layers of width 16, no dropout, weights from a formula: the same in every version of every library."""
    config = T5Config(
        vocab_size=3 + len(WORDS) + UNUSED,
        d_model=16,
        d_kv=8,
        d_ff=24,
        num_heads=2,
        num_layers=2,
        num_decoder_layers=2,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        decoder_start_token_id=START,
        pad_token_id=PAD,
        eos_token_id=EOS,
    )
    model = T5ForConditionalGeneration(config)
    model.generation_config = GenerationConfig.from_model_config(config)
    for place, (name, weight) in enumerate(sorted(model.named_parameters())):
        if "layer_norm" not in name:
            fill(weight, 0.3 * place + shift)
    return model.eval()


def fill(weight: torch.Tensor, phase: float, size: float = 0.35) -> None:
    numbers = torch.arange(weight.numel(), dtype=torch.float64)
    with torch.no_grad():
        weight.copy_((size * torch.sin(phase + numbers * math.e)).reshape(weight.shape).float())


def wrapped(trl: Any, *, lora: bool, shift: float = 0.0) -> Any:
    inner = tiny_t5(shift)
    if lora:
        inner = get_peft_model(
            inner, LoraConfig(r=4, lora_alpha=8, target_modules=["q", "v"], task_type="SEQ_2_SEQ_LM")
        )
        for place, (name, weight) in enumerate(sorted(inner.named_parameters())):
            if "lora_" in name:
                fill(weight, 0.7 * place, 0.2)
    model = trl.AutoModelForSeq2SeqLMWithValueHead.from_pretrained(inner)
    fill(model.v_head.summary.weight, 0.1, 0.5)
    fill(model.v_head.summary.bias, 0.2, 0.5)
    return model


def run(trl: Any, case: dict[str, Any], **switches: Any) -> dict[str, Any]:
    """Everything of one step that has a number, and what it did to the weights."""
    options = dict(case)
    lora = options.pop("lora", False)
    queries, responses = options.pop("queries", QUERIES), options.pop("responses", DRAWN)
    masks = options.pop("masks", None)
    seen: dict[str, Any] = {"losses": []}

    class Watched(trl.PPOTrainer):
        def compute_rewards(self, scores, logprobs, ref_logprobs, masks):
            result = super().compute_rewards(scores, logprobs, ref_logprobs, masks)
            seen.update(scores=scores, masks=masks, rewards=result[0], non_score_reward=result[1], kls=result[2])
            return result

        def compute_advantages(self, values, rewards, mask):
            result = super().compute_advantages(values, rewards, mask)
            seen.update(values=result[0], advantages=result[1], returns=result[2])
            return result

        def loss(self, *args):
            policy_loss, value_loss, stats = super().loss(*args)
            seen["losses"].append([policy_loss.item(), value_loss.item()])
            return policy_loss, value_loss, stats

    defaults = {"batch_size": 4, "mini_batch_size": 4, "ppo_epochs": 1, "seed": 7}
    config = trl.PPOConfig(**{**defaults, **options}, **switches)
    model = wrapped(trl, lora=lora)
    reference = None if lora else wrapped(trl, lora=False, shift=0.4)
    # Adam's first step is lr · sign(gradient): where that is nearly 0, the last bits of two libraries decide. SGD's is smooth.
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=0.1)
    trainer = Watched(config=config, model=model, ref_model=reference, tokenizer=tokenizer(), optimizer=optimizer)
    np.random.seed(11)
    stats = trainer.step(
        [torch.tensor(ids) for ids in queries],
        [torch.tensor(ids) for ids in responses],
        [torch.tensor(score) for score in SCORES],
        [torch.tensor(mask) for mask in masks] if masks else None,
    )
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    moved = {name: weights[name].detach().double().square().sum().item() for name in sorted(weights)}
    return {
        **{name: value.tolist() if isinstance(value, torch.Tensor) else value for name, value in seen.items()},
        "stats": {
            name: value.tolist() if isinstance(value, np.ndarray) else value
            for name, value in stats.items()
            if not name.startswith("time/")
        },
        "kl_coef_after": float(trainer.kl_ctl.value),
        "weights_after": dict(list(moved.items())[:: max(1, len(moved) // 12)]),
    }
