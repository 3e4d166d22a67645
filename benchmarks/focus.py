"""What `--focus heat` gives a sample: the demo's training with and without it, measured on the way on dialogues it does not see.

.venv/bin/python -m benchmarks.focus train --output .work/focus.json    what is in the file already is not done again
.venv/bin/python -m benchmarks.focus table --output benchmarks/focus.json    the table of docs/algorithms.md, as it was measured

Toxicity and ROUGE-L are of two samples at temperature 1 of 96 heated and 48 everyday dialogues of the validation split, by the
embedded judge. The learning rate falls as over the demo's 50 steps.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import replace
from pathlib import Path

import torch

from softspoken.config import TrainConfig
from softspoken.data.batches import prompt_batches
from softspoken.data.prompts import encode_prompts
from softspoken.data.reading import load_examples
from softspoken.models.cpu import tune_cpu
from softspoken.rewards.judges import load_judge
from softspoken.rewards.terms import WeightedReward, load_reward
from softspoken.rl import ppo
from softspoken.rl.loading import load_policy
from softspoken.rl.policy import Policy
from softspoken.rl.rollout import alike, generate_rollout
from softspoken.training.focus import chosen_rows, heat_of
from softspoken.training.start import optimizer_of
from softspoken.types import Example

STEPS, EVERY = 24, 8
HEATED, EVERYDAY = 96, 48
SEEDS = (0, 1, 2)
Curve = list[dict[str, float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("train", "table"))
    parser.add_argument("--output", type=Path, required=True)
    asked = parser.parse_args()
    if asked.what == "train":
        train_all(asked.output)
    else:
        print(table(json.loads(asked.output.read_text(encoding="utf-8"))["curves"]))


def train_all(output: Path) -> None:
    tune_cpu()
    done = json.loads(output.read_text(encoding="utf-8")) if output.is_file() else {"heat": [], "curves": {}}
    examples, held_out = load_examples("mini", "train"), validation()
    if not done["heat"]:
        done["heat"] = [round(one, 6) for one in heat_of(examples, load_judge("mini"))]
        output.write_text(json.dumps(done), encoding="utf-8")
    for seed in SEEDS:
        for focus in ("none", "heat"):
            if f"{focus}-{seed}" not in done["curves"]:
                config = TrainConfig(focus=focus, seed=seed, reward="mini + 1.5*rouge:rougeL")
                rows = chosen_rows(done["heat"], config) if focus == "heat" else range(len(examples))
                done["curves"][f"{focus}-{seed}"] = curve(config, [examples[row] for row in rows], held_out)
                output.write_text(json.dumps(done), encoding="utf-8")


def validation() -> list[Example]:
    """Heated ones first."""
    examples = load_examples("mini", "validation")
    heated = [example for example in examples if example.literal_reference is not None]
    everyday = [example for example in examples if example.literal_reference is None]
    return heated[:: len(heated) // HEATED][:HEATED] + everyday[:: len(everyday) // EVERYDAY][:EVERYDAY]


def curve(config: TrainConfig, examples: list[Example], held_out: list[Example]) -> Curve:
    assert config.reward
    policy, reward = load_policy(config), load_reward(config.reward)
    optimizer, scheduler = optimizer_of(policy, config)
    batches = prompt_batches(
        examples,
        policy.tokenizer,
        policy.prompt_format,
        batch_size=config.batch_size,
        seed=config.seed,
        first_step=0,
        steps=STEPS,
    )
    found, dull = [measured(policy, reward, held_out, config) | {"step": 0.0}], 0
    for step, prompts in enumerate(batches, start=1):
        draws = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        rollout = generate_rollout(policy, prompts, config, draws)
        scores = reward(rollout.responses, [prompts.examples[row] for row in rollout.prompt_index.tolist()])
        dull += int(alike(scores.terms["mini"], rollout).sum())
        ppo.update(policy, optimizer, ppo.build_experience(rollout, scores, config, config.kl_coef), config, draws)
        scheduler.step()
        if step % EVERY == 0:
            found.append(measured(policy, reward, held_out, config) | {"step": float(step), "alike": float(dull)})
            print(config.focus, config.seed, found[-1], flush=True)
    return found


def measured(policy: Policy, reward: WeightedReward, examples: list[Example], config: TrainConfig) -> dict[str, float]:
    """Means over the heated ones' and the everyday ones' samples; the same draws each time."""
    prompts = encode_prompts(examples, policy.tokenizer, policy.prompt_format)
    asked = replace(config, samples_per_prompt=2)
    rollout = generate_rollout(policy, prompts, asked, torch.Generator().manual_seed(0))
    index = rollout.prompt_index.tolist()
    scores = reward(rollout.responses, [examples[row] for row in index])
    heated = torch.tensor([row < HEATED for row in index])
    toxicity, rouge = 1 - scores.terms["mini"], 100 * scores.terms["rouge:rougeL"]
    return {
        "toxicity": toxicity[heated].mean().item(),
        "rouge": rouge[heated].mean().item(),
        "everyday_rouge": rouge[~heated].mean().item(),
    }


def table(curves: dict[str, Curve]) -> str:
    """One line for each measurement: means over the seeds, and their range."""
    samples = TrainConfig().batch_size * TrainConfig().samples_per_prompt
    lines = [
        "| samples | toxicity, all | with focus | ROUGE-L, all | with focus | everyday ROUGE-L, all | with focus |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for place in range(1 + STEPS // EVERY):
        cells = []
        for name, digits in (("toxicity", 3), ("rouge", 1), ("everyday_rouge", 1)):
            for focus in ("none", "heat"):
                values = [found[place][name] for key, found in curves.items() if key.startswith(focus)]
                low, high = min(values), max(values)
                cells.append(f"{statistics.fmean(values):.{digits}f} ({low:.{digits}f} to {high:.{digits}f})")
        lines.append(f"| {place * EVERY * samples} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
