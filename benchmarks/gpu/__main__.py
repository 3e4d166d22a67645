"""What only a GPU can show: captured sampling and its memory, other families, gradients, the same seed twice, a resumed run.

.venv/bin/python -m benchmarks.gpu                  on a GPU: about a minute; one line a check, and exit status 1 if one failed
.venv/bin/python -m benchmarks.gpu --cpu            without captures and memory, to see that this script itself runs (minutes)
.venv/bin/python -m benchmarks.gpu --only resume    the checks whose name has this in it

The most important comes first, so that a run cut short has shown the most. Speed on a GPU is benchmarks.speed's.
"""

from __future__ import annotations

import argparse
import math
import os
import time
import traceback
from collections.abc import Callable
from functools import partial

import torch
from transformers.utils import logging

from benchmarks.gpu import memory, sampling, training

GRAPHED = ("T5", "FLAN-T5", "mT5")
"""Tied; untied and gated; multilingual."""
PLAINLY = ("BART", "Marian", "Pegasus", "T5Gemma", "M2M100, NLLB", "T5Gemma 2", "EncoderDecoder (BERT, BERT)")
BOTH = ("decoder", "all")
Check = Callable[[], str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", action="store_true", help="rehearse without a GPU")
    parser.add_argument(
        "--seconds",
        type=float,
        default=None,
        help="after so many no check but the last is begun (75; no bound with --cpu)",
    )
    parser.add_argument("--only", nargs="+", default=[""], help="the checks whose name has one of these in it")
    given = parser.parse_args()
    logging.disable_progress_bar()
    # Without it cuBLAS is refused where the same digits are asked for; read at its first product. PyTorch takes as much by itself.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    device = "cpu" if given.cpu else "cuda"
    print(f"torch {torch.__version__},", "CPU" if given.cpu else torch.cuda.get_device_name(), flush=True)
    checks = {name: check for name, check in checks_of(device).items() if any(part in name for part in given.only)}
    seconds = given.seconds or (math.inf if given.cpu else 75)
    until, failed, late = time.perf_counter() + seconds, [], []
    for name, check in checks.items():
        if time.perf_counter() > until and name != "not_a_number":
            late.append(name)
        elif not passes(name, check):
            failed.append(name)
    if late:
        print(f"not begun within {seconds:g} s: {', '.join(late)}")
    print(f"{len(checks) - len(failed) - len(late)} of {len(checks)} passed")
    raise SystemExit(f"failed: {', '.join(failed)}" if failed else 0)


def checks_of(device: str) -> dict[str, Check]:
    """By name, the most important first; the last may end CUDA for the process, by an assert on the device."""
    checks: dict[str, Check] = {"captured_sampling float32": partial(sampling.captured_sampling, device, "float32")}
    checks |= _tiny(device, "float64", BOTH) | _tiny(device, "float32", BOTH)
    checks["replay_after_changes float32"] = partial(sampling.replay_after_changes, device, "float32")
    for family in (None, "T5", "FLAN-T5"):
        name = f"captured_passes float32 {family or 'mini'}"
        checks[name] = partial(training.captured_passes, device, "float32", family)
    checks["algorithms"] = partial(training.algorithms, device)
    checks["captured_passes bfloat16 mini"] = partial(training.captured_passes, device, "bfloat16", None)
    checks |= _gradients(device, "float32")
    checks["repeats"] = partial(training.repeats, device)
    checks["same_seed"] = partial(training.same_seed, device)
    checks["warned_of"] = partial(training.warned_of, device)
    checks["resume exactly"] = partial(training.resume, device, same_digits=True)
    if device == "cuda":
        for check in (memory.memory_runs_out, memory.memory_kept, memory.memory_of_few):
            checks[check.__name__] = partial(check, device)
    checks |= _others(device, "float32", PLAINLY)
    checks["captured_sampling bfloat16"] = partial(sampling.captured_sampling, device, "bfloat16")
    checks |= _tiny(device, "bfloat16", BOTH[1:])
    checks |= _gradients(device, "bfloat16")
    checks |= _others(device, "bfloat16", PLAINLY[:4])
    thinned = partial(sampling.tiny_sampling, device, "float64", "T5", lora_dropout=0.2)
    checks["tiny_sampling float64 T5 dropout"] = thinned
    checks["other_family float32 T5 full"] = partial(
        sampling.other_family, device, "float32", "T5", trained="full", adapter_scope="decoder"
    )
    for step_check in (sampling.hidden_waits, sampling.impossible_ids, sampling.beside_another_thread):
        checks[step_check.__name__] = partial(step_check, device)
    checks["resume"] = partial(training.resume, device, same_digits=False)
    checks["replay_after_changes bfloat16"] = partial(sampling.replay_after_changes, device, "bfloat16")
    checks["not_a_number"] = partial(sampling.not_a_number, device)
    return checks


def _tiny(device: str, dtype: str, scopes: tuple[str, ...]) -> dict[str, Check]:
    return {
        f"tiny_sampling {dtype} {family} {scope}": partial(
            sampling.tiny_sampling, device, dtype, family, adapter_scope=scope
        )
        for family in GRAPHED
        for scope in (scopes if family != "mT5" else scopes[-1:])  # which has FLAN-T5's parts
    }


def _gradients(device: str, dtype: str) -> dict[str, Check]:
    families = (None, *GRAPHED, *PLAINLY[:4])
    return {
        f"gradients {dtype} {family or 'mini'}": partial(training.gradients, device, dtype, family)
        for family in (families if dtype == "float32" else families[:3])
    }


def _others(device: str, dtype: str, families: tuple[str, ...]) -> dict[str, Check]:
    return {
        f"other_family {dtype} {family}": partial(sampling.other_family, device, dtype, family) for family in families
    }


def passes(name: str, check: Check) -> bool:
    began = time.perf_counter()
    try:
        said, good = check(), True
    except Exception as error:  # the checks after it may still show something
        traceback.print_exc()
        said, good = f"{type(error).__name__}: {(str(error) or 'no text').splitlines()[0]}", False
    seconds = time.perf_counter() - began
    print("ok  " if good else "FAIL", f"{seconds:5.1f} s", name, "·", said, flush=True)
    return good


if __name__ == "__main__":
    main()
