"""The settings of serve, demo and export."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from softspoken.config.kinds import check
from softspoken.config.ranges import check_settings

Format = Literal["merged", "ctranslate2", "onnx"]
Quantization = Literal[
    "float32", "int8", "int8_float32", "int16", "float16", "int8_float16", "bfloat16", "int8_bfloat16"
]


@dataclass(frozen=True)
class ExportConfig:
    """Write a model with its adapter merged in, for what is not softspoken: transformers, CTranslate2."""

    output: str
    """folder to write to"""
    model: str = "mini"
    """hub id, local folder, or mini"""
    adapter: str | None = None
    """LoRA adapter: hub id or folder"""
    format: Format = "merged"
    """merged: a folder that plain transformers loads and generates the same tokens from; ctranslate2: one that CTranslate2 loads;
    onnx: where optimum-onnx supports the transformers that is installed"""
    quantization: Quantization = "float32"
    """how ctranslate2 keeps its weights; what the rounding costs is measured and said"""
    task: str | None = None
    """what is done with it, which says how a model is asked that has no prompt of its own: summarization, detoxification,
    translation, or a Python file of your own"""
    max_new_tokens: int | None = None
    """longest response, in tokens; by default the adapter's own or the model's"""
    check_limit: int = 250
    """texts of the embedded test split that a ctranslate2 export is compared with the model on; 0 for no comparison"""
    push_to_hub: str | None = None
    """hub repository, as OWNER/NAME, that the folder is uploaded to as well; made if it is not there"""
    private: bool = False
    """whether a repository that is made is private"""
    overwrite: bool = False
    """replace what softspoken wrote in the output folder"""

    def __post_init__(self) -> None:
        check_settings(self)
        whole = self.format == "ctranslate2" or self.quantization == "float32"
        check(whole, self, "quantization", "it is ctranslate2's; give format ctranslate2, or leave it out")
