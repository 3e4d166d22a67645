"""The settings of generate and score."""

from __future__ import annotations

from dataclasses import dataclass

from softspoken.config.kinds import Device, Engine, OnBadRow, Quantization, Side, check
from softspoken.config.ranges import check_settings
from softspoken.config.specs import check_reward


@dataclass(frozen=True)
class GenerateConfig:
    """Answer texts (summarize dialogues, say): JSON lines in, JSON lines out; or plain text in (blank lines between), plain text out."""

    file: str = "-"
    """file to read, or - for standard input"""
    task: str | None = None
    """what is to be done, which says how a model is asked that has no prompt of its own: summarization, detoxification, translation,
    or a Python file of your own; softspoken summarize is softspoken generate --task summarization"""
    model: str = "mini"
    """hub id, local folder, or mini"""
    adapter: str | None = None
    """LoRA adapter: hub id or folder"""
    max_new_tokens: int | None = None
    """longest response, in tokens; by default the model's own"""
    text_column: str | None = None
    """column of the texts, with dots for nested ones (translation.en); by default dialogue, document, article, text, source or
    input, whichever there is"""
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
    output: str | None = None
    """file to write to, always JSON lines; by default they go to standard output"""
    overwrite: bool = False
    """replace the output, if it is one of ours"""
    resume: bool = False
    """go on with an output that was begun and stopped; a text on standard input cannot be gone on with"""
    batch_size: int = 16
    """texts at once"""
    on_bad_row: OnBadRow = "error"
    """what to do with a row that has no usable text: stop, or skip it and count"""
    quantization: Quantization | None = None
    """bits of the base's weights in torch, as they were in training (needs bitsandbytes); by default they stay whole"""
    engine: Engine = "torch"
    """what decodes: torch; ctranslate2; or auto: ctranslate2, which is several times as fast, where it gives torch's own tokens on 32
    texts of the embedded test split"""
    device: Device = "auto"
    """where to compute; auto takes a GPU if there is one"""

    def __post_init__(self) -> None:
        check_settings(self)
        check_output(self)


@dataclass(frozen=True)
class ScoreConfig:
    """Toxicity of each line of text, or any reward of responses and their texts, as JSON lines; or a server of it."""

    file: str = "-"
    """file to read, or - for standard input: lines of text, or rows (JSONL, JSON, CSV, TSV, Parquet) with a response, and with text,
    reference and columns for rewards that compare with them"""
    reward: str = "mini"
    """a classifier (mini, detoxify:VARIANT, hf:MODEL:LABEL), whose toxicity is written, or any other reward, as in training: its score,
    and its terms"""
    response_column: str | None = None
    """column of the responses, in rows; by default response, completion, prediction or hypothesis, whichever there is, and for a
    classifier the text itself"""
    text_column: str | None = None
    """column of the texts that are answered; by default dialogue, document, article, text, source or input, whichever there is"""
    reference_column: str | None = None
    """column of the references; by default reference, target, output, highlights or summary, whichever there is"""
    serve: str | None = None
    """answer over HTTP at HOST:PORT instead, as a reward server that --reward http://HOST:PORT/score asks"""
    detoxify_sha256: str | None = None
    """SHA-256 that the Detoxify checkpoint must have, all 64 digits; without it the eight that its published name ends in are
    compared, which is a check against accidents, not against malice"""
    output: str | None = None
    """file to write to, always JSON lines; by default they go to standard output"""
    overwrite: bool = False
    """replace the output, if it is one of ours"""
    resume: bool = False
    """go on with an output that was begun and stopped; a text on standard input cannot be gone on with"""
    batch_size: int = 64
    """lines at once"""
    device: Device = "auto"
    """where to compute; auto takes a GPU if there is one"""

    def __post_init__(self) -> None:
        check_settings(self)
        check_reward(self.reward)
        check_output(self)
        reads = next(
            (name for name in READS if getattr(self, name) != type(self).__dataclass_fields__[name].default), None
        )
        if self.serve and reads:
            check(False, self, reads, "serve reads no file and writes none: leave one of them out")


READS = ("file", "output", "response_column", "text_column", "reference_column")
"""Settings of score that say what is read and where to write."""


def check_output(config: GenerateConfig | ScoreConfig) -> None:
    check(not (config.overwrite and config.resume), config, "overwrite", "it cannot be combined with resume")
    check(
        config.output is not None or not (config.overwrite or config.resume),
        config,
        "output",
        "overwrite and resume need one",
    )
    check(
        config.file != "-" or not config.resume,
        config,
        "resume",
        "only a file can be read again; save standard input to one",
    )
