"""The settings of serve, demo and export."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Literal

from softspoken.config.help import explained
from softspoken.config.kinds import Device, Engine, check
from softspoken.config.naming import served_adapters
from softspoken.config.ranges import check_settings
from softspoken.config.specs import check_judges

Format = Literal["merged", "ctranslate2", "onnx"]
ComputeType = Literal[
    "float32", "int8", "int8_float32", "int16", "float16", "int8_float16", "bfloat16", "int8_bfloat16"
]


@explained("""
    >>> softspoken.ExportConfig(output="models/calm", adapter="runs/demo/adapter").format
    'merged'
""")
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
    compute_type: ComputeType = "float32"
    """how ctranslate2's copy keeps its weights and multiplies them; what the rounding costs is measured and said"""
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
        whole = self.format == "ctranslate2" or self.compute_type == "float32"
        check(whole, self, "compute_type", "it is ctranslate2's; give format ctranslate2, or leave it out")


@explained("""
    >>> softspoken.ServeConfig(adapter=["runs/demo/adapter"]).port
    8000
""")
@dataclass(frozen=True)
class ServeConfig:
    """Answer texts over HTTP, each response judged before it leaves."""

    model: str = "mini"
    """hub id, local folder, or mini"""
    adapter: list[str] | None = None
    """LoRA adapters that a request may choose from, as FOLDER or NAME=FOLDER (or hub ids); the first is what others get; one is
    called tuned, several by their folders' names"""
    task: str = "summarization"
    """what is done, which says how a model is asked that has no prompt of its own: summarization, detoxification, translation, or a
    Python file of your own"""
    prompt_template: str | None = None
    """text with {text} in it; by default the model's own"""
    max_prompt_tokens: int | None = None
    """longer texts are cut to this many tokens of prompt, which the answer says; by default the model's own (512)"""
    host: str = "127.0.0.1"
    """address to listen on; beyond this machine only with api_key_file, or public"""
    port: int = 8000
    """port to listen on; 0 for any that is free"""
    api_key_file: str | None = None
    """file with the SHA-256 of each API key, a line each; requests then need Authorization: Bearer KEY"""
    public: bool = False
    """listen beyond this machine without keys"""
    engine: Engine = "auto"
    """what decodes: ctranslate2, torch, or auto: ctranslate2 where it gives torch's own tokens on 32 texts"""
    compute_type: ComputeType = "float32"
    """how ctranslate2's copy keeps its weights and multiplies them; with auto, what rounds them is seldom taken"""
    workers: int | None = None
    """batches at once; by default one a core for ctranslate2 on a CPU, else 1"""
    device: Device = "auto"
    """where to compute; auto takes a GPU if there is one"""
    guard: bool = True
    """judge each response, and replace what is too toxic; without, responses have no scores"""
    judge: str = "mini"
    """toxicity judge: mini, detoxify:VARIANT, profanity, hf:MODEL:LABEL"""
    detoxify_sha256: str | None = None
    """SHA-256 that the Detoxify checkpoint must have, all 64 digits"""
    guard_threshold: float = 0.5
    """a response is too toxic above this"""
    guard_samples: int = 4
    """responses drawn in place of one that is too toxic; the least toxic is taken"""
    guard_refusal: str = "[This response was withheld: it was found to be toxic.]"
    """what is answered where nothing else helps"""
    batch_size: int = 16
    """texts in a batch, at most"""
    queue_size: int = 256
    """texts that may wait; beyond them requests are refused (429)"""
    deadline: float = 30.0
    """seconds that a request may take; what would take longer is refused at once (503)"""
    most_texts: int = 64
    """texts in a request"""
    most_text_chars: int = 50_000
    """characters in a text"""
    most_body_bytes: int = 1_000_000
    """bytes in a request"""
    most_new_tokens: int = 256
    """the longest response that a request may ask for, in tokens"""
    most_beams: int = 4
    """beams that a request may ask for"""
    most_samples: int = 8
    """responses to each text that a request may ask for"""
    connections: int = 1000
    """open connections"""

    def __post_init__(self) -> None:
        check_settings(self)
        served_adapters(self.adapter or [])
        check_judges([self.judge])
        open_to_all = not is_loopback(self.host) and not self.api_key_file and not self.public
        remedy = "it is beyond this machine: give api_key_file, or public true to let everybody in"
        check(not open_to_all, self, "host", remedy)
        check(self.engine != "torch" or self.compute_type == "float32", self, "compute_type", "it is ctranslate2's")


@dataclass(frozen=True)
class DemoConfig:
    """Show a page on which base and tuned can be compared by hand."""

    model: str = "mini"
    """hub id, local folder, or mini"""
    adapter: list[str] | None = None
    """LoRA adapters to choose from, as FOLDER or NAME=FOLDER (or hub ids)"""
    task: str = "summarization"
    """what is done, which says how a model is asked that has no prompt of its own: summarization, detoxification, translation, or a
    Python file of your own"""
    host: str = "127.0.0.1"
    """address to listen on; beyond this machine only with public"""
    port: int = 7860
    """port to listen on"""
    public: bool = False
    """listen beyond this machine, to everybody"""
    engine: Engine = "auto"
    """what decodes: ctranslate2, torch, or auto: ctranslate2 where it gives torch's own tokens on 32 texts"""
    device: Device = "auto"
    """where to compute; auto takes a GPU if there is one"""
    judge: str = "mini"
    """toxicity judge: mini, detoxify:VARIANT, profanity, hf:MODEL:LABEL"""
    detoxify_sha256: str | None = None
    """SHA-256 that the Detoxify checkpoint must have, all 64 digits"""
    samples: int = 4
    """alternatives sampled by each model"""
    guard_threshold: float = 0.5
    """a response is too toxic above this"""
    guard_samples: int = 4
    """responses drawn in place of one that is too toxic; the least toxic is taken"""
    guard_refusal: str = "[This response was withheld: it was found to be toxic.]"
    """what is answered where nothing else helps"""

    def __post_init__(self) -> None:
        check_settings(self)
        served_adapters(self.adapter or [])
        check_judges([self.judge])
        check(is_loopback(self.host) or self.public, self, "host", "it is beyond this machine: give public true")


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
