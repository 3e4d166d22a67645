"""TRL 0.11.4's side, as its users wrote it. Run by rounds.py with the legacy environment's Python: legacy_worker CELL FOLDER."""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any

import torch
from peft import LoraConfig, TaskType
from transformers import PreTrainedTokenizerFast
from trl import AutoModelForSeq2SeqLMWithValueHead, PPOConfig, PPOTrainer  # type: ignore[import-not-found]

from benchmarks.speed.cells import LEARNING_RATE, LORA_RANK, Cell, prompt_ids
from benchmarks.speed.timing import EncoderCount, Laps, Step, serve


def make_trainer(cell: Cell, folder: str) -> PPOTrainer:
    lora = LoraConfig(
        task_type=TaskType.SEQ_2_SEQ_LM,
        r=LORA_RANK,
        lora_alpha=2 * LORA_RANK,
        target_modules=["q", "v"] if cell.scope == "all" else r".*\bdecoder\..*\.(q|v)",
    )
    model = AutoModelForSeq2SeqLMWithValueHead.from_pretrained(
        folder, peft_config=lora, torch_dtype=getattr(torch, cell.dtype)
    )
    config = PPOConfig(
        learning_rate=LEARNING_RATE,
        batch_size=cell.batch,
        mini_batch_size=cell.mini_batch,
        ppo_epochs=cell.epochs,
        accelerator_kwargs={"cpu": True} if cell.device == "cpu" else {},
    )
    return PPOTrainer(config=config, model=model, tokenizer=PreTrainedTokenizerFast.from_pretrained(folder))


def prepare() -> Step:
    warnings.filterwarnings("ignore")
    cell, folder = Cell(**json.loads(sys.argv[1])), sys.argv[2]
    trainer = make_trainer(cell, folder)
    count = EncoderCount(trainer.model.pretrained_model.get_base_model().get_encoder())
    queries = [torch.tensor(row, device=trainer.current_device) for row in prompt_ids(cell)]
    scores = [torch.tensor(float(score)) for score in torch.linspace(0, 1, cell.batch)]

    def step(number: int, brief: bool) -> dict[str, Any]:
        torch.manual_seed(number)
        trainer.config.ppo_epochs = 1 if brief else cell.epochs
        new_tokens = 4 if brief else cell.new_tokens
        clock = Laps(cell.device)
        responses = _generate(trainer, queries, cell, new_tokens)
        clock.lap("sample")
        trainer.tokenizer.batch_decode(responses, skip_special_tokens=True)  # what every user's loop scores
        clock.lap("score")
        stats = trainer.step(queries, responses, scores)
        clock.lap("step")
        assert all(len(response) == new_tokens + 1 for response in responses), "a shorter summary is less work"
        own = {name: float(value) for name, value in stats.items() if name.startswith("time/ppo/")}
        phases = {
            "sample": clock.laps["sample"],
            "score": clock.laps["score"],
            "reference": own["time/ppo/forward_pass"],
            "update": own["time/ppo/optimize_step"],
        }
        tokens = cell.batch * new_tokens
        return {"seconds": clock.seconds(), "phases": phases, "timing": own, "generated_tokens": tokens, **count.take()}

    return step


def _generate(trainer: PPOTrainer, queries: list[torch.Tensor], cell: Cell, new_tokens: int) -> list[torch.Tensor]:
    """Responses with the decoder's start token before them, as TRL wants them."""
    settings = {
        "do_sample": True,
        "top_k": 0,
        "top_p": 1.0,
        "max_new_tokens": new_tokens,
        "suppress_tokens": [0, 1],  # padding and end of sequence: every summary has its full length
    }
    if cell.generation == "one_at_a_time":
        return [trainer.generate(query, **settings).squeeze(0) for query in queries]
    # The whole batch at once; TRL's own default is four at a time.
    return trainer.generate(queries, batch_size=cell.batch, **settings)


if __name__ == "__main__":
    serve(prepare, ["trl", "torch", "transformers", "peft"])
