"""Settings of a run that takes seconds, and what it measured."""

import json
from dataclasses import replace
from pathlib import Path

from softspoken.config import TrainConfig


def config_for(tiny_t5, data, output, **changes):
    base = TrainConfig(
        model=str(tiny_t5),
        dataset=str(data),
        reward="helpers_reward:letters",
        judge=["mini"],
        output=str(output),
        steps=5,
        batch_size=4,
        samples_per_prompt=2,
        max_new_tokens=6,
        warmup_steps=0,
        mini_batch_size=4,
        micro_batch_size=4,
        lora_r=2,
        save_every=2,
        eval_limit=0,
        device="cpu",
        learning_rate=1e-2,
        min_response_chars=0,
    )
    return replace(base, **changes)


def metrics_of(run: Path) -> list[dict]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{name: value for name, value in row.items() if not name.startswith("time/")} for row in rows]


LETTERS_TASK = '''"""Letters."""
from softspoken.tasks.task import Guard, Objective, Task

def letters(response, example):
    return {"letters": sum(map(str.isalpha, response)) / max(1, len(response)), "size": float(len(response))}

TASK = Task(name="letters", objective=Objective("letters", "higher"), reward="helpers_reward:letters",
            guards=(Guard("size", margin=1000.0),), metrics=letters)
'''
"""The file of a task that random weights can be measured by, without a judge."""
