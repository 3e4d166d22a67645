"""What goes wrong in the middle: numbers that are none, memory or disk that runs out, files that go, at each phase of each command."""

from __future__ import annotations

import errno
import functools
import importlib
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.records import Record
from benchmarks.reliability import children
from benchmarks.reliability.jobs import JOBS, OUT, TINY, damaged, fresh
from benchmarks.reliability.kills import enter
from benchmarks.reliability.operations import watching

SCORE = f"score ../inputs/rows.jsonl --device cpu --batch_size 1 --output {OUT}".split()
DPO = f"dpo --dataset ../inputs/pairs.jsonl {TINY} --batch_size 5 --max_new_tokens 4 --lora_r 2 --save_every 2 --output {OUT}".split()
EXPORT = f"export --model ../inputs/t5 --max_new_tokens 4 --output {OUT}".split()
COMMANDS = {**{name: job.begin for name, job in JOBS.items()}, "score": SCORE, "dpo": DPO, "export": EXPORT}
EVALUATION = {
    "load the judge": "softspoken.evaluation.evaluate:load_judge",
    "load the system": "softspoken.inference.generator:Generator.from_pretrained",
    "respond": "softspoken.inference.generator:Generator.generate",
    "write rows": "softspoken.evaluation.rows:RowsFile.add",
    "analyse": "softspoken.evaluation.evaluate:analyse",
    "report": "softspoken.evaluation.evaluate:report_page",
}
PHASES: dict[str, dict[str, str]] = {
    "train": {
        "read": "softspoken.training.start:read_examples",
        "load": "softspoken.train:load_policy",
        "sample": "softspoken.train:generate_rollout",
        "score": "softspoken.train:_scores",
        "shape": "softspoken.rl.ppo:build_experience",
        "optimise": "softspoken.rl.ppo:update",
        "measure": "softspoken.rl.tracking:Tracker.log",
        "checkpoint": "softspoken.train:save_checkpoint",
        "adapter": "softspoken.rl.policy:Policy.save",
        **EVALUATION,
        "page": "softspoken.train:report_page",
    },
    "sft": {
        "read": "softspoken.sft:read_examples",
        "load": "softspoken.sft:load_seq2seq",
        "step": "transformers:Seq2SeqTrainer.training_step",
        "checkpoint": "softspoken.sft:_Keep.on_save",
        "save": "softspoken.sft:_save",
    },
    "evaluate": {"read": "softspoken.evaluation.evaluate:read_examples", **EVALUATION},
    "generate": {
        "read": "softspoken.inference.answer:to_examples",
        "load": "softspoken.inference.generator:Generator.from_pretrained",
        "respond": "softspoken.inference.generator:Generator._batch",
        "write": "softspoken.storage.lines_file:LinesFile.write",
        "rename": "softspoken.storage.lines_file:LinesFile.finish",
    },
    "score": {
        "load": "softspoken.rewards.judges:load_judge",
        "score": "softspoken.rewards.score:Judging.lines",
        "write": "softspoken.storage.lines_file:LinesFile.writelines",
        "rename": "softspoken.storage.lines_file:LinesFile.finish",
    },
    "dpo": {
        "read": "softspoken.dpo:read_pairs",
        "load": "softspoken.dpo:load_policy",
        "step": "softspoken.dpo:_step",
        "checkpoint": "softspoken.dpo:save_checkpoint",
        "save": "softspoken.rl.policy:Policy.save",
    },
    "export": {
        "load": "softspoken.inference.generator:Generator.from_pretrained",
        "write": "softspoken.inference.generator:Generator.save_pretrained",
        "read again": "softspoken.inference.export:_by_transformers",
        "card": "softspoken.inference.export:_card",
    },
}
NOT_HERE = 99
"""A fault that this phase cannot have: there is no model to break."""
Trial = tuple[str, str, str]


def trials() -> list[Trial]:
    return [(command, phase, fault) for command, phases in PHASES.items() for phase in phases for fault in FAULTS]


def trial(command: str, phase: str, fault: str, folder: Path) -> Record:
    fresh(folder)
    inputs = folder.parent / "inputs"
    aside = inputs.with_name("inputs-aside")
    before = partial(_strike, PHASES[command][phase], fault)
    try:
        ended = children.run(folder, COMMANDS[command], before=before)
    finally:
        if aside.is_dir():
            aside.rename(inputs)
    errors = [line for line in ended.stderr.splitlines() if line.startswith("softspoken: error: ")]
    said = errors[-1].removeprefix("softspoken: error: ").replace(f"{folder}/", "") if errors else ""
    clear = len(errors) == 1 and "SOFTSPOKEN_DEBUG" not in said and "Traceback" not in ended.stderr
    wrong = (
        []
        if ended.status == 0 or (ended.status in (1, 2) and clear) or ended.status == NOT_HERE
        else [ended.stderr[-400:]]
    )
    return {
        "command": command,
        "phase": phase,
        "fault": fault,
        "status": ended.status,
        "said": said,
        "wrong": [*wrong, *(["hung"] if ended.hung else [])],
        "touched": [name for name in damaged(folder) if name != f".{OUT}.unfinished"],
    }


# -------------------------------------------------------------------------------------------- in the process of a run


def _strike(place: str, fault: str) -> None:
    """From now on the fault comes with the first call of the phase's function."""
    module, _, path = place.partition(":")
    *owners, name = path.split(".")
    owner = functools.reduce(getattr, owners, importlib.import_module(module))
    real = getattr(owner, name)
    struck: list[bool] = []
    if fault == "disk full":  # of files that are open by then as well

        def before(kind: str) -> None:
            if struck and kind in ("write", "library", "mkdir"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        enter(watching(before))

    def call(*arguments: Any, **options: Any) -> Any:
        if not struck:
            struck.append(True)
            FAULTS[fault](arguments)
        return real(*arguments, **options)

    setattr(owner, name, call)


def _raise(error: Callable[[], BaseException], arguments: Any) -> None:
    raise error()


def _out_of_device() -> BaseException:
    import torch

    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")


def _poison(number: float, arguments: Any) -> None:
    """One weight of the model that the phase works with is no number."""
    from torch import nn

    near = [*arguments, *(value for one in arguments for value in getattr(one, "__dict__", {}).values())]
    model = next((one for one in near if isinstance(one, nn.Module)), None)
    if model is None:
        os._exit(NOT_HERE)
    next(model.parameters()).data.view(-1)[:] = number


def _take_away(name: str, arguments: Any) -> None:
    path = Path(name)
    if name == OUT:
        shutil.rmtree(path, ignore_errors=True)
        shutil.rmtree(f".{OUT}.unfinished", ignore_errors=True)
    else:
        path.rename(f"{name}-aside")


FAULTS: dict[str, Callable[[Any], None]] = {
    "NaN": partial(_poison, float("nan")),
    "infinity": partial(_poison, float("inf")),
    "out of memory": partial(_raise, MemoryError),
    "out of the device's memory": partial(_raise, _out_of_device),
    "disk full": lambda arguments: None,
    "inputs gone": partial(_take_away, "../inputs"),
    "output gone": partial(_take_away, OUT),
}
