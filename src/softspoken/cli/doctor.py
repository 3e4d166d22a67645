"""Whether softspoken can work here: versions, extras, device, disk, hub, and one training step of the embedded models."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from softspoken.types import InputError, RunError, first_line

LIBRARIES = ("torch", "transformers", "peft", "accelerate", "datasets", "tokenizers", "safetensors", "huggingface_hub")
LEAST_FREE = 2**30
"""Bytes of disk below which it is said that a run may not fit."""


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's: what was looked at, what was found, and whether a run would fail for it."""

    what: str
    found: str
    fails: bool = False


def versions() -> str:
    """One line: softspoken's own, Python's, and those of the libraries that decide what it computes."""
    libraries = ", ".join(f"{name} {_version(name)}" for name in LIBRARIES)
    return f"{_version('softspoken')} (Python {platform.python_version()}, {libraries})"


def look(self_test: bool) -> Iterator[Finding]:
    """One after the other, as they are found; with `self_test` a run of one step too (ten seconds)."""
    yield Finding("versions", versions())
    yield Finding("device", _device())
    yield Finding("extras", _extras())
    yield _disk(Path.cwd())
    yield Finding("hub", _hub())
    if self_test:
        yield _self_test()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        return f"{', '.join(names)} (CUDA {torch.version.cuda})"
    if torch.backends.mps.is_available():
        return "Apple's GPU (mps)"
    native = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    bf16 = "with" if native.get("avx512_bf16") or native.get("amx_bf16") else "without"
    return f"no GPU; {os.cpu_count()} CPU cores {bf16} native bfloat16, {torch.get_num_threads()} threads"


def _extras() -> str:
    """Which extras are whole: every distribution that they name is there."""
    from importlib.metadata import metadata, requires

    from packaging.requirements import Requirement

    whole = []
    for extra in metadata("softspoken").get_all("Provides-Extra") or []:
        named = [Requirement(line) for line in requires("softspoken") or []]
        of_extra = [need for need in named if need.marker and "extra" in str(need.marker)]
        needed = [need.name for need in of_extra if need.marker and need.marker.evaluate({"extra": extra})]
        whole.append((extra, all(_version(name) != "missing" for name in needed)))
    there = ", ".join(extra for extra, is_there in whole if is_there) or "none"
    absent = ", ".join(extra for extra, is_there in whole if not is_there)
    return f"{there}; not installed: {absent}" if absent else there


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    short = " (a run of a model of your own may not fit)" if free < LEAST_FREE else ""
    return Finding("disk", f"{free / 2**30:.1f} GiB free in {folder}{short}")


def _hub() -> str:
    """The hub being out of reach is no fault: what is embedded, local or in its cache works without."""
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return "not asked (HF_HUB_OFFLINE is set); local models and its cache work"
    try:
        get_session().head(constants.ENDPOINT, timeout=3)
    except Exception as error:  # no answer: which exception that is depends on the HTTP client and the proxy
        return f"{constants.ENDPOINT} is out of reach ({first_line(error)}); local models and its cache work"
    return f"{constants.ENDPOINT} answers"


@contextlib.contextmanager
def _warnings_alone() -> Iterator[None]:
    """What a training says of itself would stand in the middle of the list."""
    logger = logging.getLogger("softspoken")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _self_test() -> Finding:
    """One step of the demo's kind, and a text from the adapter that came of it."""
    from softspoken.config import TrainConfig
    from softspoken.inference.generator import Generator
    from softspoken.train import train

    begun = time.perf_counter()
    with _warnings_alone(), tempfile.TemporaryDirectory() as folder:
        output = str(Path(folder) / "run")
        try:
            train(
                TrainConfig(
                    steps=1,
                    batch_size=2,
                    samples_per_prompt=2,
                    max_new_tokens=12,
                    max_examples=2,
                    eval_limit=0,
                    output=output,
                )
            )
            adapter = f"{output}/adapter"
            written = Generator.from_pretrained("mini", adapter=adapter)(["Nora: Where are you?\nFelix: On the bus."])
        except (InputError, RunError) as error:
            return Finding("self-test", str(error), fails=True)
        except Exception as error:
            return Finding("self-test", f"{type(error).__name__}: {first_line(error)}", fails=True)
    passed = f"one step trained and one text written in {time.perf_counter() - begun:.1f} s"
    return Finding("self-test", passed if written[0] else "the adapter wrote nothing", fails=not written[0])
