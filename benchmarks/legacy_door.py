"""Time of softspoken.trl's generate + step against the native loop's, on the same work: embedded model, adapter on q and v.

.venv/bin/python benchmarks/legacy_door.py
"""

import statistics
import time
import warnings

import torch

from softspoken.config import TrainConfig
from softspoken.data.prompts import encode_prompts
from softspoken.data.reading import load_examples
from softspoken.rl.policy import Policy, load_policy
from softspoken.rl.ppo import build_experience, update
from softspoken.rl.rollout import generate_rollout
from softspoken.trl import AutoModelForSeq2SeqLMWithValueHead, PPOConfig, PPOTrainer
from softspoken.types import PromptBatch, Scores

ROUNDS, PROMPTS, SAMPLES, TOKENS, MINI = 5, 16, 1, 40, 8
CONFIG = TrainConfig(
    samples_per_prompt=SAMPLES, max_new_tokens=TOKENS, mini_batch_size=MINI, micro_batch_size=MINI, adapter_scope="all",
    learning_rate=1e-5, value_learning_rate=1e-5, target_kl=None, device="cpu",
)  # fmt: skip


def native(policy: Policy, batch: PromptBatch, optimizer: torch.optim.Optimizer, generator: torch.Generator) -> int:
    rollout = generate_rollout(policy, batch, CONFIG, generator)
    scores = torch.rand(len(rollout.responses), generator=generator)
    experience = build_experience(rollout, Scores(scores, {}), CONFIG, 0.1)
    update(policy, optimizer, experience, CONFIG, generator)
    return int(rollout.response_mask.sum())


def door(trainer: PPOTrainer, batch: PromptBatch) -> int:
    queries = [ids[: int(mask.sum())] for ids, mask in zip(batch.input_ids, batch.attention_mask, strict=True)]
    queries = [query for query in queries for _ in range(SAMPLES)]
    responses = trainer.generate(
        queries, batch_size=len(queries), do_sample=True, top_k=0, top_p=1.0, max_new_tokens=TOKENS
    )
    trainer.step(queries, responses, list(torch.rand(len(responses))))
    return sum(len(response) - 1 for response in responses)


def main() -> None:
    warnings.simplefilter("ignore")
    first, second = load_policy(CONFIG), load_policy(CONFIG)
    model = AutoModelForSeq2SeqLMWithValueHead.from_pretrained(second.model)
    settings = PPOConfig(batch_size=PROMPTS * SAMPLES, mini_batch_size=MINI, ppo_epochs=1, learning_rate=1e-5)
    trainer = PPOTrainer(settings, model, tokenizer=second.tokenizer)
    optimizer = torch.optim.AdamW(list(first.trainable().values()), lr=1e-5)
    generator = torch.Generator().manual_seed(0)
    dialogues = load_examples("mini", "train", limit=ROUNDS * PROMPTS)
    times: dict[str, list[float]] = {"native": [], "softspoken.trl": []}
    for step in range(ROUNDS):
        chosen = dialogues[step * PROMPTS : (step + 1) * PROMPTS]
        batch = encode_prompts(chosen, first.tokenizer, first.prompt_format)
        for name, run in (
            ("native", lambda batch=batch: native(first, batch, optimizer, generator)),
            ("softspoken.trl", lambda batch=batch: door(trainer, batch)),
        ):
            begun = time.process_time()  # of this process alone, whatever else the machine does
            tokens = run()
            times[name].append((time.process_time() - begun) / tokens)
    for name, each in times.items():
        print(f"{name}: {1e3 * statistics.median(each[1:]):.2f} ms of CPU a token")
    print(f"ratio {statistics.median(b / a for a, b in list(zip(*times.values(), strict=True))[1:]):.3f}")


if __name__ == "__main__":
    main()
