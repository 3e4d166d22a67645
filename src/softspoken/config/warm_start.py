"""The settings of sft."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from softspoken.config.help import explained
from softspoken.config.kinds import Data, OnBadRow, Side, check
from softspoken.config.ranges import check_settings
from softspoken.config.trained import Kind, Scope, WhatTrains, check_what_trains


@explained("""
    >>> softspoken.SftConfig(output="models/warm", trained="lora").epochs
    1.0
""")
@dataclass(frozen=True)
class SftConfig(WhatTrains):
    """Supervised warm start: train a model on texts and their references."""

    output: str
    """folder to write the model to (or the adapter, where one is trained)"""
    task: str = "summarization"
    """what is to be done, which says how examples are asked and judged: summarization, detoxification, translation, or a Python
    file of your own (docs/howto/tasks.md)"""
    model: str = "mini"
    """hub id, local folder, or mini"""
    dataset: Data = "mini"
    """hub id, local file (JSON, JSONL, CSV, TSV, TXT, Parquet), folder of datasets.save_to_disk, or mini"""
    split: str = "train"
    """split of a hub set or of mini; a local file is one split"""
    dataset_config: str | None = None
    """configuration of a hub set that has several"""
    text_column: str | None = None
    """column of the texts, with dots for nested ones (translation.en); by default dialogue, document, article, text, source or
    input, whichever there is"""
    reference_column: str | None = None
    """column of the references; by default summary, highlights, target, output or reference, or several of them: summary1,
    summary2, …"""
    on_bad_row: OnBadRow = "error"
    """what to do with a row that has no usable text, or no reference: stop, or skip it and count"""
    max_examples: int | None = None
    """use only the first so many"""
    prompt_template: str | None = None
    """text with {text} in it; by default the model's own"""
    max_prompt_tokens: int | None = None
    """longer texts are cut to this many tokens of prompt; by default the model's own (512)"""
    truncation_side: Side | None = None
    """which end of a text that is too long is cut off; by default the model's own (right)"""
    source_language: str | None = None
    """language of the texts, as the tokenizer names it (eng_Latn, en_XX, en); by default as it was saved"""
    target_language: str | None = None
    """language to write, as the tokenizer names it (fra_Latn, fr_XX, fr; fra for a Marian model of several); by default as the
    model was saved"""
    max_new_tokens: int = 60
    """longest response the trained model generates by default; longer references are cut in training"""
    trained: Kind = field(default="full", kw_only=True)
    """what learns: all weights, the last layers, or an adapter (LoRA, IA3, or another by peft_config)"""
    adapter_scope: Scope = field(default="all", kw_only=True)
    """where the adapter (or what trains of the last layers) lies: in the encoder and the decoder, or in the decoder alone"""
    epochs: float = 1.0
    """passes over the data"""
    batch_size: int = 16
    """texts a step"""
    optimizer: Literal["adamw", "adafactor"] = "adamw"
    """adafactor scales each step by the weight's own size, which T5 trained from scratch needs"""
    learning_rate: float = 1e-4
    """peak learning rate; with adafactor, relative to each weight's size (1e-2 is usual)"""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """how the learning rate changes after the warm-up"""
    warmup_steps: int = 0
    """steps over which the learning rate rises evenly to its peak; combines with every schedule"""
    max_grad_norm: float = 1.0
    """gradients are scaled down to this norm"""
    save_every: int = 500
    """steps between checkpoints"""
    seed: int = 0
    """of initialization and order"""
    overwrite: bool = False
    """replace what is in the output folder"""
    resume: bool = False
    """go on from the last checkpoint in the output folder"""

    def __post_init__(self) -> None:
        check_settings(self)
        check_what_trains(self, None)
        check(not (self.overwrite and self.resume), self, "overwrite", "it cannot be combined with resume")
