"""Supervised warm start: dialogues to references, full weights or LoRA, by transformers' Seq2SeqTrainer."""

from __future__ import annotations

import contextlib
import json
import logging
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import (
    Adafactor,
    DataCollatorForSeq2Seq,
    GenerationConfig,
    PreTrainedModel,
    PrinterCallback,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    TrainerCallback,
)

from softspoken.config import SftConfig
from softspoken.config.idle import say_what_is_idle
from softspoken.config.kinds import require_config
from softspoken.data.labels import ended, label_ids
from softspoken.data.prompts import PromptFormat, prompt_ids
from softspoken.data.reading import name_of, read_examples, require_references
from softspoken.models.generation import generation_to_save
from softspoken.models.languages import require_target, speak
from softspoken.models.learning_rates import learning_rates
from softspoken.models.pretrained import (
    load_seq2seq,
    load_tokenizer,
    no_bar_for_weights,
    not_finite,
    prompt_format_for,
    require_seq2seq,
    resolve_device,
)
from softspoken.models.quantized import load_quantized
from softspoken.models.room import fitting, require_fit, require_room_to_answer
from softspoken.models.trained import prepared, read_peft_config, recompute_layers, without_cache
from softspoken.runtime.interrupt import Stop, finishing
from softspoken.runtime.progress import progress_bar
from softspoken.storage.run_folder import RunFolder, require_room
from softspoken.storage.unfinished import CHECKPOINTS, begin, require_same, settings_file, to_its_end
from softspoken.tasks.task import asked, load_task
from softspoken.types import Example, RunError, first_line

log = logging.getLogger(__name__)

KEEP = 2


def sft(config: SftConfig) -> Path:
    """Train and write the model (or the adapter) to `config.output`; returns that folder.

    While it trains, its checkpoints lie in OUTPUT/checkpoints; `resume` goes on from the last of them that is whole.

    >>> adapter = softspoken.sft(softspoken.SftConfig(output="adapters/warm", trained="lora", max_examples=8, batch_size=4))
    >>> (adapter / "adapter_model.safetensors").is_file()
    True
    """
    require_config(config, SftConfig, "sft")
    say_what_is_idle(config)
    with_peft = replace(config, peft_config=read_peft_config(config.peft_config))
    return to_its_end("sft", config, [config.model, name_of(config.dataset)], partial(_train, with_peft))


def _train(config: SftConfig, folder: RunFolder) -> None:
    torch.manual_seed(config.seed)
    require_seq2seq(config.model)
    require_fit(config.model)
    tokenizer = load_tokenizer(config.model)
    task = load_task(config.task)
    prompt_format = prompt_format_for(config.model, default=PromptFormat(task.template), **asked(task, config))
    examples = read_examples(
        config, task, config.max_examples, say_missing=False
    )  # which comes with what becomes of them
    examples = _with_references(examples, config)
    examples = _one_for_each_reference(examples)
    if config.resume:
        require_same(config, _pairs(examples), folder.path / settings_file("sft"))
    model: Any = _load(config)
    require_room_to_answer(model.config, config.max_new_tokens)
    generation = generation_to_save(model.generation_config, config.max_new_tokens)
    prompt_format = fitting(speak(tokenizer, prompt_format, generation), model.config, tokenizer)
    require_target(tokenizer, generation)
    base, model = model, prepared(model, config)
    if config.gradient_checkpointing:
        recompute_layers(base)
    # The Trainer saves it at every checkpoint, and transformers up to 5.20 refuses the model's own where a setting has no effect.
    base.generation_config = generation
    rows = _examples(examples, tokenizer, prompt_format, generation, config.max_new_tokens)
    require_room(folder.path, _checkpoint_bytes(model), "its checkpoints")

    begin(folder, "sft", config, _pairs(examples))
    bar, stopping = _Bar(), _StopWhenAsked()
    trainer = Seq2SeqTrainer(
        model=model,
        args=_arguments(config, folder.scratch("trainer")),
        train_dataset=rows,
        data_collator=DataCollatorForSeq2Seq(tokenizer, model),
        optimizers=(_adafactor(model, config) if config.optimizer == "adafactor" else None, None),
        callbacks=[_OnlyNumbers(), bar, _Keep(folder), stopping],
    )
    trainer.remove_callback(PrinterCallback)  # which prints to standard output
    steps = math.ceil(config.epochs * math.ceil(len(rows) / trainer.args.train_batch_size))
    trainer.lr_scheduler = learning_rates(trainer.create_optimizer(), config.schedule, config.warmup_steps, steps)
    checkpoint = _last_whole(folder.path)
    try:
        cache = without_cache(base) if config.gradient_checkpointing else contextlib.nullcontext()
        with finishing() as stopping.stop, no_bar_for_weights(), cache:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    finally:
        bar.bar.stop()  # or what is said of a failure would be drawn over
    _save(trainer.model, generation, tokenizer, prompt_format, folder)


def _load(config: SftConfig) -> Any:
    """In float32; where the Trainer puts it is its own to say, but for a base of fewer bits, which stays where it is loaded."""
    if config.quantization:
        return load_quantized(config.model, config.quantization, torch.float32, resolve_device("auto"))
    return load_seq2seq(config.model)


# ------------------------------------------------------------------------------------------------- going on after a stop


class _OnlyNumbers(TrainerCallback):
    """Raises RunError where the loss, or a weight that is to be saved, is NaN or infinite: the Trainer goes on, and writes it."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if not all(math.isfinite(float((logs or {}).get(name, 0))) for name in ("loss", "grad_norm")):
            raise _broken(state.global_step, "the loss or its gradient is no finite number")

    def on_save(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if found := not_finite(model.named_parameters()):
            raise _broken(state.global_step, found)

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if found := not_finite(model.named_parameters()):
            raise _broken(state.global_step, found)


def _broken(step: int, what: str) -> RunError:
    return RunError(
        f"by step {step} the weights are broken: {what}; lower learning_rate, and start again with --overwrite true"
    )


class _StopWhenAsked(TrainerCallback):
    """After a signal the step is the last one, and saved."""

    stop: Stop

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.stop.asked:
            control.should_save = control.should_training_stop = True


class _Keep(TrainerCallback):
    """What the Trainer saved becomes a checkpoint of ours at once, or not at all; the last two are kept."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def on_save(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        with self.folder.replacing(f"{CHECKPOINTS}/step-{state.global_step:06d}") as beside:
            beside.rmdir()
            (Path(args.output_dir) / f"checkpoint-{state.global_step}").replace(beside)
        for old in _checkpoints(self.folder.path)[:-KEEP]:
            self.folder.remove(f"{CHECKPOINTS}/{old.name}")


def _checkpoint_bytes(model: Any) -> int:
    """Of those that are kept and the one that is written: what is trained, two moments for each weight, and the weights at the end."""
    sizes = [weight.numel() * weight.element_size() for weight in model.parameters() if weight.requires_grad]
    return (3 * (KEEP + 1) + 1) * sum(sizes)


def _checkpoints(output: Path) -> list[Path]:
    """Oldest first."""
    return sorted((output / CHECKPOINTS).glob("step-*"))


def _last_whole(output: Path) -> Path | None:
    """The last checkpoint that can be read; None, for a start from the beginning, where there is none yet."""
    for checkpoint in reversed(_checkpoints(output)):
        try:
            json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
            weights = [load_file(path) for path in checkpoint.glob("*.safetensors")]
            for name in ("optimizer.pt", "scheduler.pt"):
                torch.load(checkpoint / name, weights_only=True, map_location="cpu")
            if weights:
                return checkpoint
            reason = "it has no weights"
        except Exception as error:  # torch.load has no list of what it raises for a damaged file
            reason = first_line(error)
        log.warning("%s cannot be read (%s); going on from the checkpoint before it", checkpoint, reason)
    return None


def _pairs(examples: list[Example]) -> list[list[Any]]:
    return [[example.text, example.reference] for example in examples]


# ------------------------------------------------------------------------------------------------------------- training


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


def _with_references(examples: list[Example], config: SftConfig) -> list[Example]:
    """A row without one teaches nothing: it is bad, and what is done with bad rows is the user's to say."""
    usable = [example for example in examples if example.references]
    if not usable or config.on_bad_row == "error":
        require_references(examples, config.dataset, "sft", or_else=", or pass --on_bad_row skip")
    if without := len(examples) - len(usable):
        log.warning(
            "skipped %d of %d rows of %s: they have no reference", without, len(examples), name_of(config.dataset)
        )
    return usable


def _one_for_each_reference(examples: list[Example]) -> list[Example]:
    """A text with several references is as many examples, which is said."""
    pairs = [
        replace(example, reference=reference, further_references=())
        for example in examples
        for reference in example.references
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


def _arguments(config: SftConfig, folder: Path) -> Seq2SeqTrainingArguments:
    return Seq2SeqTrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=config.batch_size,
        num_train_epochs=config.epochs,
        learning_rate=config.learning_rate,
        max_grad_norm=config.max_grad_norm,
        train_sampling_strategy="group_by_length",
        save_steps=config.save_every,
        save_total_limit=1,  # the others have been moved
        logging_steps=50,
        logging_nan_inf_filter=False,  # or a loss that is NaN is told as the one before it
        report_to=[],
        disable_tqdm=True,
        seed=config.seed,
        use_cpu=not torch.cuda.is_available(),
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
    )


def _adafactor(model: PreTrainedModel, config: SftConfig) -> Adafactor:
    """Updates relative to each weight's size, as T5 was trained; the Trainer's own `adafactor` switches that off."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    return Adafactor(weights, lr=config.learning_rate, scale_parameter=True, relative_step=False)


def _save(
    model: Any, generation: GenerationConfig, tokenizer: Any, prompt_format: PromptFormat, folder: RunFolder
) -> None:
    model.config.use_cache = generation.use_cache = True  # the Trainer switches it off, and it is slow without
    whole = model.get_base_model() if isinstance(model, PeftModel) else model
    whole.generation_config = generation  # as it was: the Trainer makes the tokenizer's ids its own
    with folder.replacing(".") as beside:
        with no_bar_for_weights():
            model.save_pretrained(beside)
        generation.save_pretrained(beside)  # PEFT leaves it out
        tokenizer.save_pretrained(beside)
        prompt_format.save(beside)
