"""TRL 0.11.4's PPOTrainer as the public notebooks use it. Run by legacy_train.py with the legacy environment's Python.

Standard input and output carry lines of JSON. First comes {"settings": {...}}, answered by {"ready": true, "versions"}; then
{"queries": [[ids]], "seed"}, answered by {"responses": [[ids]]}, and {"scores": [numbers]}, answered by {"kl"}, take turns;
{"save": FOLDER} may come between steps.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import warnings
from typing import Any

import torch
from peft import LoraConfig, TaskType
from transformers import PreTrainedTokenizerFast
from trl import AutoModelForSeq2SeqLMWithValueHead, PPOConfig, PPOTrainer  # type: ignore[import-not-found]

MIN_LENGTH = 5
PACKAGES = ("trl", "torch", "transformers", "peft")


def make_trainer(settings: dict[str, Any]) -> PPOTrainer:
    """TRL's defaults but for what the settings name."""
    targets = settings["targets"]
    lora = LoraConfig(
        task_type=TaskType.SEQ_2_SEQ_LM,
        r=settings["lora_r"],
        lora_alpha=settings["lora_alpha"],
        target_modules=targets if settings["scope"] == "all" else rf".*\bdecoder\..*\.({'|'.join(targets)})",
    )
    torch.manual_seed(settings["seed"])
    model = AutoModelForSeq2SeqLMWithValueHead.from_pretrained(settings["model"], peft_config=lora)
    config = PPOConfig(
        seed=settings["seed"],
        learning_rate=settings["learning_rate"],
        batch_size=settings["batch"],
        mini_batch_size=settings["mini_batch"],
        ppo_epochs=settings["ppo_epochs"],
        accelerator_kwargs={"cpu": True},
    )
    tokenizer = PreTrainedTokenizerFast.from_pretrained(settings["model"])
    return PPOTrainer(config=config, model=model, tokenizer=tokenizer)


def generate(trainer: PPOTrainer, queries: list[torch.Tensor], max_new_tokens: int) -> list[torch.Tensor]:
    """The whole batch at once, which favours TRL: its own default is four at a time, the notebooks' loop one.

    `min_length` is the notebooks' own. Without it a summary may be empty, and then TRL's trainer dies (IndexError in
    compute_rewards: nothing is left of the row's mask).
    """
    responses: list[torch.Tensor] = trainer.generate(
        queries,
        batch_size=len(queries),
        do_sample=True,
        top_k=0,
        top_p=1.0,
        min_length=MIN_LENGTH,
        max_new_tokens=max_new_tokens,
    )
    return responses


def kl_a_token(mean_kl: float, responses: list[torch.Tensor]) -> float:
    """TRL gives the mean over summaries of the sum over tokens; its mask leaves out the start token and the first one after."""
    return mean_kl * len(responses) / max(1, sum(len(response) - 2 for response in responses))


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print goes to the log
    warnings.filterwarnings("ignore")
    settings = json.loads(sys.stdin.readline())["settings"]
    torch.set_num_threads(settings["threads"])
    trainer = make_trainer(settings)
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    print(json.dumps({"ready": True, "versions": versions}), file=answers)
    queries: list[torch.Tensor] = []
    responses: list[torch.Tensor] = []
    for line in sys.stdin:
        order = json.loads(line)
        if "queries" in order:
            torch.manual_seed(order["seed"])
            queries = [torch.tensor(ids, device=trainer.current_device) for ids in order["queries"]]
            responses = generate(trainer, queries, settings["max_new_tokens"])
            answer: dict[str, Any] = {"responses": [response.tolist() for response in responses]}
        elif "scores" in order:
            stats = trainer.step(queries, responses, [torch.tensor(score) for score in order["scores"]])
            answer = {"kl": kl_a_token(float(stats["objective/kl"]), responses)}
        else:
            trainer.accelerator.unwrap_model(trainer.model).pretrained_model.save_pretrained(order["save"])
            answer = {"saved": order["save"]}
        print(json.dumps(answer), file=answers)


if __name__ == "__main__":
    main()
