"""What the table says of a family: measured on its tiny model, through the same functions that `softspoken train` runs."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig

from benchmarks.families.models import build
from softspoken.config import EvaluateConfig, TrainConfig
from softspoken.data.prompts import encode_prompts
from softspoken.data.reading import load_examples
from softspoken.evaluation.evaluate import evaluate
from softspoken.inference.generator import Generator
from softspoken.rl import groups, ppo
from softspoken.rl.loading import load_policy
from softspoken.rl.optimise import require_moved
from softspoken.rl.policy import Policy
from softspoken.rl.rollout import generate_rollout, score_rows
from softspoken.types import Example, InputError, Rollout, Scores

ALGORITHMS = ("ppo", "rloo", "grpo")
SCOPES = ("all", "decoder")
PROPHETNETS = ["query_proj", "value_proj"]
TOKENS = 8
DIALOGUES = 4


@dataclass
class Found:
    family: str
    refused: str | None = None
    """The sentence with which it is refused."""
    trained: list[tuple[str, str]] = field(default_factory=list)
    """(scope, algorithm) of the updates after which every lora_B had left zero."""
    logprob: float = 0.0
    """The largest difference of a token's log-probability to the model's own pass over that response alone, in nats."""
    gradient: float = 0.0
    """The same of the adapter's gradient, as a share of its largest entry."""
    mismatch: float = 0.0
    """The same of what was recorded while sampling one token at a time, before it is recomputed."""
    works: dict[str, bool] = field(default_factory=dict)
    """evaluate; generate; as PEFT's."""


def measure(family: str, runs: list[tuple[str, str]], *, whole: bool) -> Found:
    """`runs`: (scope, algorithm) to train; `whole`: evaluate and generate with the last one's adapter as well."""
    found = Found(family)
    examples = load_examples("mini", "test", limit=DIALOGUES)
    with tempfile.TemporaryDirectory() as name:
        folder = build(family, Path(name) / "model")
        try:
            for scope in dict.fromkeys(scope for scope, _ in runs):
                _compare(found, _settings(folder, family, scope), examples)
            for scope, algorithm in runs:
                config = _settings(folder, family, scope, algorithm=algorithm)
                policy = _train(config, examples)
                found.trained.append((scope, algorithm))
        except InputError as error:
            found.refused = str(error)
            return found
        if whole:
            policy.save(Path(name) / "adapter", TOKENS)
            _use(found, folder, Path(name) / "adapter", examples)
    return found


def _settings(folder: Path, family: str, scope: str, **changes: Any) -> TrainConfig:
    return TrainConfig(
        model=str(folder),
        adapter_scope=scope,  # type: ignore[arg-type]
        max_new_tokens=TOKENS,
        samples_per_prompt=2,
        lora_r=2,
        lora_targets=PROPHETNETS if family == "ProphetNet" else None,  # under no name that is looked for
        device="cpu",
        ppo_epochs=1,
        **changes,
    )


def _rollout(policy: Policy, config: TrainConfig, examples: list[Example]) -> Rollout:
    prompts = encode_prompts(examples, policy.tokenizer, policy.prompt_format)
    return generate_rollout(policy, prompts, config, torch.Generator().manual_seed(0))


def _compare(found: Found, config: TrainConfig, examples: list[Example]) -> None:
    """With an adapter that has left zero, so that both its halves have a gradient."""
    policy = load_policy(config)
    generator = torch.Generator().manual_seed(1)
    for weight in policy.adapter_parameters().values():
        weight.data += 0.1 * torch.randn(weight.shape, generator=generator)
    policy.exact = False  # measured here, whatever it comes to
    rollout = _rollout(policy, config, examples)
    mask, weights = rollout.response_mask, policy.adapter_parameters().values()
    ours, _ = score_rows(policy, rollout, torch.arange(len(mask)), config)
    own = torch.stack([_own_logprobs(policy, rollout, row) for row in range(len(mask))]).where(mask, 0.0)
    assert (ours - own).isfinite().all(), "what is not a number is less than any other"
    found.logprob = max(found.logprob, (ours - own).abs().max().item())
    found.mismatch = max(found.mismatch, rollout.mismatch or 0.0)
    gradients = [torch.cat([part.flatten() for part in torch.autograd.grad(of.sum(), weights)]) for of in (ours, own)]
    off = (gradients[0] - gradients[1]).abs().max() / gradients[1].abs().max()
    found.gradient = max(found.gradient, off.item())


def _own_logprobs(policy: Policy, rollout: Rollout, row: int) -> Tensor:
    """[T] of one response, by the model's whole forward pass over it and its prompt alone, without padding or cache."""
    ids, prompts, prompt = rollout.response_ids[row : row + 1], rollout.prompts, rollout.prompt_index[row]
    length = int(prompts.attention_mask[prompt].sum())
    given = torch.cat([torch.full_like(ids[:, :1], policy.start_id), ids[:, :-1]], dim=1)
    logits = policy.seq2seq(
        input_ids=prompts.input_ids[prompt : prompt + 1, :length],
        attention_mask=prompts.attention_mask[prompt : prompt + 1, :length],
        decoder_input_ids=given,
        decoder_attention_mask=torch.ones_like(given),
    ).logits[0]
    allowed = logits.masked_fill(policy.forbidden, -torch.inf)
    return allowed.log_softmax(-1).gather(-1, ids[0].unsqueeze(-1)).squeeze(-1)


def _train(config: TrainConfig, examples: list[Example]) -> Policy:
    """One step with scores made up for the purpose. Raises RunError where part of the adapter did not move."""
    policy = load_policy(config)
    rollout = _rollout(policy, config, examples)
    scores = torch.linspace(0, 1, len(rollout.responses))
    algorithm = ppo if config.algorithm == "ppo" else groups
    optimizer = torch.optim.AdamW(policy.trainable().values(), lr=1e-2)
    experience = algorithm.build_experience(rollout, Scores(scores, {"reward": scores}), config, config.kl_coef)
    algorithm.update(policy, optimizer, experience, config, torch.Generator().manual_seed(0))
    require_moved(policy)
    return policy


def _use(found: Found, folder: Path, adapter: Path, examples: list[Example]) -> None:
    texts = [example.text for example in examples]
    responses = Generator.from_pretrained(str(folder), adapter=str(adapter), device="cpu")(texts)
    report = evaluate(
        EvaluateConfig(
            output=str(folder.parent / "evaluation"),
            model=str(folder),
            adapter=[str(adapter)],
            limit=DIALOGUES,
            samples=1,
            device="cpu",
        )
    )
    found.works = {
        "evaluate": {system.name for system in report.systems} >= {"base", "tuned"},
        "generate": len(responses) == len(texts) and any(responses),
        "as PEFT's": responses == _by_peft(folder, adapter, examples),
    }


def _by_peft(folder: Path, adapter: Path, examples: list[Example]) -> list[str]:
    """What somebody gets who has PEFT and no softspoken: one text at a time."""
    model = PeftModel.from_pretrained(AutoModelForSeq2SeqLM.from_pretrained(folder), str(adapter)).eval()
    tokenizer, generation = AutoTokenizer.from_pretrained(adapter), GenerationConfig.from_pretrained(adapter)
    texts = []
    for example in examples:
        ids = tokenizer(example.text, return_tensors="pt", truncation=True, max_length=100)["input_ids"]
        made = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=generation)
        texts.append(tokenizer.decode(made[0], skip_special_tokens=True).strip())
    return texts
