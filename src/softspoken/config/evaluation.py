"""The settings of evaluate."""

from __future__ import annotations

from dataclasses import dataclass

from softspoken.config.help import explained
from softspoken.config.kinds import Data, Device, Engine, OnBadRow, Quantization, Side, check
from softspoken.config.naming import named_adapters, named_sources
from softspoken.config.ranges import check_baselines, check_settings
from softspoken.config.rewards import Reward
from softspoken.config.specs import check_judges, check_measures, check_reward

OF_ALL_ALIKE = ("prompt_template", "max_prompt_tokens", "truncation_side", "source_language", "target_language")
"""Settings that every system is asked by."""


@explained("""
    >>> softspoken.EvaluateConfig(output="evaluations/ab", adapter=["runs/a/adapter", "runs/b/adapter"]).judge is None
    True
""")
@dataclass(frozen=True)
class EvaluateConfig:
    """Score systems side by side on the same texts: references, the base model, adapters, others' responses, baselines."""

    output: str
    """folder for eval.json, eval_rows.jsonl and report.html"""
    task: str = "summarization"
    """what is to be done, which says how examples are asked and judged: summarization, detoxification, translation, or a Python
    file of your own (docs/howto/tasks.md)"""
    model: str = "mini"
    """base model: hub id, local folder, or mini"""
    adapter: list[str] | None = None
    """adapters to compare with the base, as FOLDER or NAME=FOLDER; one is called tuned, several by their folders' names, and
    those of one NAME are trainings of one system with different seeds"""
    system: list[str] | None = None
    """other systems, as NAME=FILE.jsonl (rows of id and response, as generate writes, or summary or what else the task calls one;
    several for each id are samples) or NAME=MODEL"""
    baseline: list[str] | None = None
    """what one would try before training: best_of_N (of N samples of the base, the best by the reward), banned_words (the base,
    kept from writing toxic words), masked_words (the base, its toxic words made […]), copy (the text as it is) and delete (the
    text without its toxic words). Toxic words are those of the texts that the first judge finds toxic standing alone"""
    reward: Reward | None = None
    """a reward, as in training: every response is measured by it, and best_of_N picks by it; without one that picks the least
    toxicity by the first judge, or by the task's own reward"""
    dataset: Data = "mini"
    """hub id, local file (JSON, JSONL, CSV, TSV, TXT, Parquet), folder of datasets.save_to_disk, or mini"""
    split: str = "test"
    """split of a hub set or of mini; a local file is one split"""
    held_out: float = 0.0
    """of a local file, or of a hub set with one split, only what train held out of it, by the same share (its eval_share) and seed; 0
    takes all rows"""
    dataset_config: str | None = None
    """configuration of a hub set that has several"""
    text_column: str | None = None
    """column of the texts, with dots for nested ones (translation.en); by default dialogue, document, article, text, source or
    input, whichever there is"""
    reference_column: str | None = None
    """column of the references; by default summary, highlights, target, output or reference, or several of them: summary1,
    summary2, …"""
    judge: list[str] | None = None
    """toxicity judges, the first one first: mini, detoxify:VARIANT, profanity, hf:MODEL:LABEL; mini by default"""
    detoxify_sha256: str | None = None
    """SHA-256 that the Detoxify checkpoint must have, all 64 digits; without it the eight that its published name ends in are
    compared, which is a check against accidents, not against malice"""
    similarity: str | None = None
    """embedding model (hub id or folder) that says how near a response is to its reference and its text"""
    measure: list[str] | None = None
    """what measures a task's own terms, as NAME=REWARD: style=hf:MODEL:LABEL, similarity=similarity:MODEL, fluency=..."""
    limit: int | None = None
    """use only the first so many texts"""
    on_bad_row: OnBadRow = "error"
    """what to do with a row that has no usable text: stop, or skip it and count"""
    samples: int = 4
    """responses sampled at temperature 1 for each text, beside the greedy one; 0 for greedy alone"""
    max_new_tokens: int | None = None
    """longest response of every system, in tokens; by default the first adapter's own or, without one, the model's"""
    prompt_template: str | None = None
    """text with {text} in it; of every system; by default the first adapter's own or, without one, the model's"""
    max_prompt_tokens: int | None = None
    """longer texts are cut to this many tokens of prompt; by default as with the template (512)"""
    truncation_side: Side | None = None
    """which end of a text that is too long is cut off; by default as with the template (right)"""
    source_language: str | None = None
    """language of the texts, as the tokenizer names it (eng_Latn, en_XX, en); by default as it was saved"""
    target_language: str | None = None
    """language to write, as the tokenizer names it (fra_Latn, fr_XX, fr; fra for a Marian model of several); by default as the
    model was saved"""
    own_settings: bool = False
    """each system with the prompt, length and generation settings (beams, penalties) saved beside it, instead of the same for all
    and plain greedy decoding; the report says so"""
    batch_size: int = 32
    """texts at once"""
    quantization: Quantization | None = None
    """bits of the base's weights in torch, as they were in training (needs bitsandbytes); by default they stay whole"""
    engine: Engine = "torch"
    """what decodes greedily: torch; ctranslate2; or auto: for each system ctranslate2 where it gives torch's own tokens on 32 texts of
    the embedded test split; samples are torch's"""
    device: Device = "auto"
    """where to compute; auto takes a GPU if there is one"""
    seed: int = 0
    """of sampling and of the bootstrap"""
    overwrite: bool = False
    """replace the evaluation that is in the output folder"""
    resume: bool = False
    """go on with the evaluation that was stopped in the output folder; everything else as it was"""

    def __post_init__(self) -> None:
        check_settings(self)
        if self.reward is not None:
            check_reward(self.reward)
        check_judges(self.judge)
        check_measures(self.measure)
        named_adapters(self.adapter or [])
        named_sources(self.system or [])
        check(not (self.overwrite and self.resume), self, "overwrite", "it cannot be combined with resume")
        check_baselines(self, "baseline", self.samples)
        for name in OF_ALL_ALIKE:
            remedy = "own_settings asks each system by its own: leave one of them out"
            check(not self.own_settings or getattr(self, name) is None, self, name, remedy)
