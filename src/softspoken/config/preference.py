"""The settings of dpo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from softspoken.config.help import explained
from softspoken.config.kinds import Data, Device, OnBadRow, Side, check
from softspoken.config.ranges import check_settings
from softspoken.config.trained import WhatTrains, check_what_trains


@explained("""
    >>> softspoken.DpoConfig(output="adapters/preferred", dataset="pairs.jsonl").chosen_column
    'chosen'
""")
@dataclass(frozen=True)
class DpoConfig(WhatTrains):
    """Preferences of others: train a model to prefer one response to another, on rows of text, chosen and rejected (DPO)."""

    output: str
    """folder to write the adapter to (or, where its own weights train, the model)"""
    dataset: Data
    """hub id, local file (JSON, JSONL, CSV, TSV, Parquet) or folder of datasets.save_to_disk, with a text and two responses a row"""
    task: str = "summarization"
    """what is to be done, which says how examples are asked: summarization, detoxification, translation, or a Python file of your own
    (docs/howto/tasks.md)"""
    model: str = "mini"
    """hub id, local folder, or mini"""
    adapter: str | None = None
    """LoRA adapter (hub id or folder) to start from, say one made by softspoken sft; a frozen copy is the reference"""
    split: str = "train"
    """split of a hub set; a local file is one split"""
    dataset_config: str | None = None
    """configuration of a hub set that has several"""
    text_column: str | None = None
    """column of the texts, with dots for nested ones (translation.en); by default dialogue, document, article, text, source or
    input, whichever there is"""
    chosen_column: str = "chosen"
    """column of the responses that are preferred"""
    rejected_column: str = "rejected"
    """column of the responses that they are preferred to"""
    on_bad_row: OnBadRow = "error"
    """what to do with a row that lacks its text or a response: stop, or skip it and count"""
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
    """longest response the trained model generates by default; longer ones are cut in training"""
    beta: float = 0.1
    """how strongly the policy is held to the reference: the less, the further a pair may move it"""
    epochs: float = 1.0
    """passes over the pairs"""
    batch_size: int = 8
    """pairs a step"""
    micro_batch_size: int = 16
    """responses in one forward pass, two a pair; changes memory and speed, not the result"""
    learning_rate: float = 1e-4
    """peak learning rate"""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """how the learning rate changes after the warm-up"""
    warmup_steps: int = 0
    """steps over which the learning rate rises evenly to its peak; combines with every schedule"""
    max_grad_norm: float = 1.0
    """gradients are scaled down to this norm"""
    save_every: int = 100
    """steps between checkpoints; the last two are kept"""
    device: Device = "auto"
    """where to compute; auto takes a GPU if there is one"""
    seed: int = 0
    """of initialization and order"""
    overwrite: bool = False
    """replace what is in the output folder"""
    resume: bool = False
    """go on from the last checkpoint in the output folder"""

    def __post_init__(self) -> None:
        check_settings(self)
        check_what_trains(self, self.adapter)
        check(not (self.overwrite and self.resume), self, "overwrite", "it cannot be combined with resume")
        both = self.chosen_column != self.rejected_column
        check(both, self, "rejected_column", "a response cannot be preferred to itself: name another column")
