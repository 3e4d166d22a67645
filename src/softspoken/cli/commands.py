"""The commands: the settings of each, which of them stands without a flag, and the examples that its help shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from softspoken.config import (
    DemoConfig,
    DpoConfig,
    EstimateConfig,
    EvaluateConfig,
    ExportConfig,
    GenerateConfig,
    ScoreConfig,
    ServeConfig,
    SftConfig,
    SweepConfig,
    TrainConfig,
)
from softspoken.config.ranges import check_settings


@dataclass(frozen=True)
class ReportConfig:
    """Write a run's or an evaluation's report.html again, from what lies in its folder."""

    dir: str
    """folder of the run or the evaluation"""

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class CompareConfig:
    """Put several runs or evaluations on one page: verdicts, figures side by side, curves over each other."""

    runs: list[str]
    """folders of two runs or evaluations, or more"""
    output: str = "compare.html"
    """file to write the page to; a comparison that is there is replaced"""

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class DoctorConfig:
    """Look whether softspoken can work here: versions, device, disk, hub, and a ten-second run of the embedded models."""

    self_test: bool = True
    """train one step and write one text with the embedded models"""

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class CompletionConfig:
    """Print a script that lets a shell complete softspoken's commands, flags and their values."""

    shell: Literal["bash", "zsh", "tcsh"]
    """the shell it is for"""

    def __post_init__(self) -> None:
        check_settings(self)


CONFIGS: dict[str, type] = {
    "train": TrainConfig,
    "sft": SftConfig,
    "dpo": DpoConfig,
    "evaluate": EvaluateConfig,
    "generate": GenerateConfig,
    "summarize": GenerateConfig,
    "score": ScoreConfig,
    "report": ReportConfig,
    "compare": CompareConfig,
    "sweep": SweepConfig,
    "export": ExportConfig,
    "serve": ServeConfig,
    "demo": DemoConfig,
    "doctor": DoctorConfig,
    "estimate": EstimateConfig,
    "completion": CompletionConfig,
}
POSITIONAL = {
    "generate": "file",
    "summarize": "file",
    "score": "file",
    "report": "dir",
    "compare": "runs",
    "sweep": "file",
    "estimate": "model",
    "completion": "shell",
}
ALWAYS = {"summarize": {"task": "summarization"}}
"""What a command sets of itself."""
USAGE = {
    "generate": "[FILE] [--OPTION VALUE ...]",
    "summarize": "[FILE] [--OPTION VALUE ...]",
    "score": "[FILE] [--OPTION VALUE ...]",
    "report": "DIR",
    "compare": "RUN RUN ... [--output FILE]",
    "sweep": "FILE.yaml [--OPTION VALUE ...]",
    "estimate": "MODEL MODEL ... [--OPTION VALUE ...]",
    "completion": "bash|zsh|tcsh",
}
WITH_CONFIG_FILE = ("train", "sft", "dpo", "evaluate")
EXAMPLES = {
    "train": """\
  softspoken train                                          the whole job on the embedded models and dialogues
  softspoken train --preset flan-t5-base-recipe --output runs/t5   FLAN-T5, SAMSum and Detoxify, from the hub
  softspoken train --config runs/t5/config.yaml --seed 1 --output runs/t5-again
  softspoken train --resume runs/t5                         go on after a stop""",
    "sft": """\
  softspoken sft --output models/mine --model google/flan-t5-small --dataset tickets.jsonl
  softspoken sft --output adapters/calm --trained lora --epochs 3   a LoRA adapter, which train --adapter starts from""",
    "dpo": """\
  softspoken dpo --dataset preferences.jsonl --output adapters/preferred      rows of text, chosen and rejected
  softspoken dpo --dataset trl.parquet --text_column prompt --model my/t5 --adapter adapters/warm --output adapters/preferred""",
    "evaluate": """\
  softspoken evaluate --adapter runs/demo/adapter --output evaluations/demo
  softspoken evaluate --adapter runs/a/adapter runs/b/adapter --judge mini detoxify:original --output evaluations/a-b
  softspoken evaluate --adapter ppo=runs/seed0/adapter ppo=runs/seed1/adapter --baseline best_of_4 masked_words \\
      --system theirs=summaries.jsonl --judge mini profanity --output evaluations/all
  softspoken evaluate --model google/flan-t5-base --dataset tickets.csv --limit 100 --samples 0 --output evaluations/base""",
    "generate": """\
  softspoken generate sentences.jsonl --task detoxification --adapter runs/polite/adapter > rewrites.jsonl
  softspoken generate news.txt --task translation --model facebook/nllb-200-distilled-600M --source_language eng_Latn \\
      --target_language fra_Latn
  softspoken generate issues.csv --model my/t5 --prompt_template Fix:{text} --output fixes.jsonl
  softspoken generate issues.csv --model my/t5 --prompt_template Fix:{text} --output fixes.jsonl --resume true   after a stop""",
    "summarize": """\
  printf 'Nora: Where are you?\\nFelix: On the bus.\\n' | softspoken summarize
  softspoken summarize chats.jsonl --adapter runs/demo/adapter > summaries.jsonl
  softspoken summarize tickets.csv --model google/flan-t5-base --batch_size 64 --on_bad_row skip""",
    "score": """\
  echo 'Felix is late, the idiot.' | softspoken score
  softspoken score comments.txt --reward detoxify:original > scores.jsonl
  softspoken score rows.jsonl --reward chrf --response_column prediction
  softspoken score --serve 127.0.0.1:8000 --reward mini      a server that --reward http://127.0.0.1:8000/score asks""",
    "report": """\
  softspoken report runs/demo
  softspoken report evaluations/a-b""",
    "compare": """\
  softspoken compare runs/seed-0 runs/seed-1 runs/seed-2
  softspoken compare runs/* --output all.html""",
    "demo": """\
  softspoken demo --adapter runs/demo/adapter
  softspoken demo --adapter calm=runs/a/adapter kind=runs/b/adapter --judge detoxify:original""",
    "sweep": """\
  softspoken sweep rates.yaml --output sweeps/rates         20 trials, chosen by what those before have taught
  softspoken sweep ranks.yaml --output sweeps/ranks --sampler grid --prune false""",
    "serve": """\
  softspoken serve --adapter runs/demo/adapter
  softspoken serve --adapter calm=runs/a/adapter kind=runs/b/adapter --host 0.0.0.0 --api_key_file keys.txt
  softspoken serve --model google/flan-t5-base --adapter runs/t5/adapter --judge detoxify:original --compute_type int8 \
      --engine ctranslate2""",
    "export": """\
  softspoken export --adapter runs/demo/adapter --output models/calm
  softspoken export --adapter runs/demo/adapter --format ctranslate2 --compute_type int8 --output models/calm-int8
  softspoken export --model google/flan-t5-base --adapter runs/t5/adapter --output models/t5 --push_to_hub me/calm-t5""",
    "estimate": """\
  softspoken estimate flan-t5-base flan-t5-xl --dtype bfloat16
  softspoken estimate google/flan-t5-xxl --dtype bfloat16 --quantization 4bit --memory 24
  softspoken estimate models/mine --trained full --device cpu --max_prompt_tokens 256""",
    "doctor": """\
  softspoken doctor
  softspoken doctor --self_test false                       without the ten seconds of training""",
    "completion": """\
  softspoken completion bash > ~/.local/share/bash-completion/completions/softspoken
  softspoken completion zsh > ~/.zfunc/_softspoken          where ~/.zfunc is in $fpath""",
}
