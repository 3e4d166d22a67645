"""Supervised warm start: dialogues to references, full weights or LoRA, by transformers' Seq2SeqTrainer."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import (
    Adafactor,
    DataCollatorForSeq2Seq,
    GenerationConfig,
    PreTrainedModel,
    PrinterCallback,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    TrainerCallback,
    get_scheduler,
)

from softspoken.config import SftConfig
from softspoken.data.labels import ended, label_ids
from softspoken.data.prompts import PromptFormat, prompt_ids
from softspoken.data.reading import read_examples, require_references
from softspoken.models.adapters import add_lora
from softspoken.models.generation import generation_to_save
from softspoken.models.languages import require_target, speak
from softspoken.models.pretrained import (
    load_seq2seq,
    load_tokenizer,
    prompt_format_for,
    require_seq2seq,
)
from softspoken.models.room import fitting, require_fit, require_room_to_answer
from softspoken.progress import progress_bar
from softspoken.tasks.task import asked, load_task
from softspoken.types import Example, InputError

log = logging.getLogger(__name__)


def sft(config: SftConfig) -> Path:
    """Train and write the model (with `lora`, the adapter) to `config.output`; returns that folder.

    While it trains, its checkpoints lie in OUTPUT/checkpoints; `resume` goes on from the last of them.
    """
    output = Path(config.output)
    if output.exists() and any(output.iterdir()) and not (config.overwrite or config.resume):
        raise InputError(f"output {output} is not empty; pass --overwrite to replace it or --resume true to go on")
    torch.manual_seed(config.seed)
    require_seq2seq(config.model)
    require_fit(config.model)
    tokenizer = load_tokenizer(config.model)
    task = load_task(config.task)
    prompt_format = prompt_format_for(config.model, default=PromptFormat(task.template), **asked(task, config))
    examples = read_examples(config, task, config.max_examples)
    require_references(examples, config.dataset, "sft")
    examples = _one_for_each_reference(examples)
    model: Any = load_seq2seq(config.model)
    require_room_to_answer(model.config, config.max_new_tokens)
    generation = generation_to_save(model.generation_config, config.max_new_tokens)
    prompt_format = fitting(speak(tokenizer, prompt_format, generation), model.config, tokenizer)
    require_target(tokenizer, generation)
    if config.lora:
        model = add_lora(model, r=config.lora_r, alpha=config.lora_alpha, targets=config.lora_targets)
    if config.overwrite and output.exists():
        shutil.rmtree(output)
    checkpoints = output / "checkpoints"
    bar = _Bar()
    trainer = Seq2SeqTrainer(
        model=model,
        args=_arguments(config, checkpoints),
        train_dataset=_examples(examples, tokenizer, prompt_format, generation, config.max_new_tokens),
        data_collator=DataCollatorForSeq2Seq(tokenizer, model),
        optimizers=_adafactor(model, config, len(examples)) if config.optimizer == "adafactor" else (None, None),
        callbacks=[bar],
    )
    trainer.remove_callback(PrinterCallback)  # which prints to standard output
    try:
        trainer.train(resume_from_checkpoint=config.resume)
    finally:
        bar.bar.stop()  # or what is said of a failure would be drawn over
    _save(trainer.model, generation, tokenizer, prompt_format, output)
    shutil.rmtree(checkpoints)
    return output


class _Bar(TrainerCallback):
    """The bar of every command in place of the Trainer's; where stderr is no terminal, a line for each tenth of the steps."""

    def __init__(self) -> None:
        self.bar = progress_bar("sft", "{task.fields[figures]}")
        self.loss = ""
        self.said = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar.start()
        self.task = self.bar.add_task("sft", total=state.max_steps, completed=state.global_step, figures="")

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if "loss" in (logs or {}):
            self.loss = f"loss {float(logs['loss']):.3f}"

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar.update(self.task, completed=state.global_step, figures=self.loss)
        tenth = 10 * state.global_step // state.max_steps
        if self.bar.disable and tenth > self.said:
            log.info("sft: step %d of %d%s", state.global_step, state.max_steps, f", {self.loss}" if self.loss else "")
        self.said = max(self.said, tenth)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar.stop()


def _one_for_each_reference(examples: list[Example]) -> list[Example]:
    """A text with several references is as many examples, which is said."""
    pairs = [
        replace(example, reference=reference, further_references=())
        for example in examples
        for reference in (example.reference, *example.further_references)
    ]
    if len(pairs) > len(examples):
        log.info("%d texts with %d references: each pair is one example", len(examples), len(pairs))
    return pairs


def _examples(
    examples: list[Example],
    tokenizer: Any,
    prompt_format: PromptFormat,
    generation: GenerationConfig,
    max_new_tokens: int,
) -> list[dict[str, list[int]]]:
    prompts, truncated = prompt_ids(examples, tokenizer, prompt_format)
    if truncated:
        log.warning("cut %d texts to %d tokens", truncated, prompt_format.max_prompt_tokens)
    references = [example.reference or "" for example in examples]
    whole = label_ids(references, tokenizer, generation)
    labels = [ended(label, tokenizer.eos_token_id, max_new_tokens) for label in whole]
    cut = sum(len(before) > len(after) for before, after in zip(whole, labels, strict=True))
    if cut:
        log.warning("cut %d of %d references to %d tokens (max_new_tokens)", cut, len(labels), max_new_tokens)
    empty = sum(not text.strip() for text in tokenizer.batch_decode(labels, skip_special_tokens=True))
    if empty:
        log.warning("%d of %d references hold nothing that the tokenizer knows, and teach silence", empty, len(labels))
    return [{"input_ids": prompt, "labels": label} for prompt, label in zip(prompts, labels, strict=True)]


def _arguments(config: SftConfig, checkpoints: Path) -> Seq2SeqTrainingArguments:
    return Seq2SeqTrainingArguments(
        output_dir=str(checkpoints),
        per_device_train_batch_size=config.batch_size,
        num_train_epochs=config.epochs,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.schedule,
        warmup_steps=config.warmup_steps,
        max_grad_norm=config.max_grad_norm,
        train_sampling_strategy="group_by_length",
        save_steps=config.save_every,
        save_total_limit=2,
        logging_steps=50,
        report_to=[],
        disable_tqdm=True,
        seed=config.seed,
        use_cpu=not torch.cuda.is_available(),
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
    )


def _adafactor(model: PreTrainedModel, config: SftConfig, rows: int) -> tuple[Any, Any]:
    """Updates relative to each weight's size, as T5 was trained; the Trainer's own `adafactor` switches that off."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = Adafactor(weights, lr=config.learning_rate, scale_parameter=True, relative_step=False)
    steps = int(config.epochs * -(-rows // config.batch_size))
    scheduler = get_scheduler(
        config.schedule, optimizer, num_warmup_steps=config.warmup_steps, num_training_steps=steps
    )
    return optimizer, scheduler


def _save(model: Any, generation: GenerationConfig, tokenizer: Any, prompt_format: PromptFormat, output: Path) -> None:
    """Written beside and moved in, so that a crash leaves no half a model."""
    beside = output / ".saving"
    model.config.use_cache = generation.use_cache = True  # the Trainer switches it off, and it is slow without
    whole = model.get_base_model() if isinstance(model, PeftModel) else model
    whole.generation_config = generation  # as it was: the Trainer makes the tokenizer's ids its own
    model.save_pretrained(beside)
    generation.save_pretrained(beside)  # PEFT leaves it out
    tokenizer.save_pretrained(beside)
    prompt_format.save(beside)
    for file in beside.iterdir():
        file.replace(output / file.name)
    beside.rmdir()
