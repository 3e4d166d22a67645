"""TRL 0.11.4's side, as its users wrote it. Run by rounds.py with the legacy environment's Python."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from benchmarks.legacy_trainer import SAMPLING, generate, make_trainer
from benchmarks.speed.cells import LEARNING_RATE, LORA_RANK, Cell, prompt_ids
from benchmarks.speed.timing import EncoderCount, Laps, Step, measured
from benchmarks.workers import serve


def prepare(cell: Cell, folder: str) -> Step:
    warnings.filterwarnings("ignore")
    trainer = make_trainer(
        folder,
        scope=cell.scope,
        lora_r=LORA_RANK,
        lora_alpha=2 * LORA_RANK,
        dtype=cell.dtype,
        device=cell.device,
        learning_rate=LEARNING_RATE,
        batch_size=cell.batch,
        mini_batch_size=cell.mini_batch,
        ppo_epochs=cell.epochs,
    )
    count = EncoderCount(trainer.model.pretrained_model.get_base_model().get_encoder())
    queries = [torch.tensor(row, device=trainer.current_device) for row in prompt_ids(cell)]
    scores = [torch.tensor(float(score)) for score in torch.linspace(0, 1, cell.batch)]

    def step(number: int, brief: bool) -> dict[str, Any]:
        torch.manual_seed(number)
        trainer.config.ppo_epochs = 1 if brief else cell.epochs
        new_tokens = 4 if brief else cell.new_tokens
        length = {"max_new_tokens": new_tokens, "suppress_tokens": [0, 1]}  # no padding, no end: its full length
        clock = Laps(cell.device)
        if cell.generation == "one_at_a_time":
            responses = [trainer.generate(query, **SAMPLING, **length).squeeze(0) for query in queries]
        else:
            responses = generate(trainer, queries, **length)
        clock.lap("sample")
        trainer.tokenizer.batch_decode(responses, skip_special_tokens=True)  # what every user's loop scores
        clock.lap("score")
        stats = trainer.step(queries, responses, scores)
        clock.lap("step")
        assert all(len(response) == new_tokens + 1 for response in responses), "a shorter summary is less work"
        own = {name: float(value) for name, value in stats.items() if name.startswith("time/ppo/")}
        phases = {name: clock.laps[name] for name in ("sample", "score")}
        phases |= {"reference": own["time/ppo/forward_pass"], "update": own["time/ppo/optimize_step"]}
        tokens = cell.batch * new_tokens
        return {"seconds": clock.seconds(), "phases": phases, "timing": own, "generated_tokens": tokens, **count.take()}

    return step


if __name__ == "__main__":
    serve(measured(prepare), "trl")
