"""TRL 0.11.4's PPOTrainer as the public notebooks use it. Run by trl.py with the legacy environment's Python.

Its settings come as JSON. Then {"queries": [[ids]], "seed"}, answered by {"responses": [[ids]]}, and {"scores": [numbers]},
answered by {"kl"}, take turns; {"save": FOLDER} may come between steps.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.legacy_trainer import generate, make_trainer
from benchmarks.workers import serve

MIN_LENGTH = 5
"""The notebooks' own. Without it a summary may be empty, and then TRL's trainer dies (IndexError in compute_rewards: nothing is left
of the row's mask)."""


def prepare(settings: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    warnings.filterwarnings("ignore")
    max_new_tokens = settings.pop("max_new_tokens")
    torch.manual_seed(settings["seed"])
    trainer = make_trainer(**settings)
    queries: list[torch.Tensor] = []
    responses: list[torch.Tensor] = []

    def answer(order: dict[str, Any]) -> dict[str, Any]:
        nonlocal queries, responses
        if "queries" in order:
            torch.manual_seed(order["seed"])
            queries = [torch.tensor(ids, device=trainer.current_device) for ids in order["queries"]]
            responses = generate(trainer, queries, min_length=MIN_LENGTH, max_new_tokens=max_new_tokens)
            return {"responses": [response.tolist() for response in responses]}
        if "scores" in order:
            stats = trainer.step(queries, responses, [torch.tensor(score) for score in order["scores"]])
            return {"kl": kl_a_token(float(stats["objective/kl"]), responses)}
        trainer.accelerator.unwrap_model(trainer.model).pretrained_model.save_pretrained(order["save"])
        return {"saved": order["save"]}

    return answer


def kl_a_token(mean_kl: float, responses: list[torch.Tensor]) -> float:
    """TRL gives the mean over summaries of the sum over tokens; its mask leaves out the start token and the first one after."""
    return mean_kl * len(responses) / max(1, sum(len(response) - 2 for response in responses))


if __name__ == "__main__":
    serve(prepare, "trl")
