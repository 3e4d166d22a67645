"""Reinforcement learning for encoder–decoder language models: a summarizer that does not repeat abuse, and proof.

What the commands do, from Python: `train`, `steps`, `sft`, `dpo`, `sweep`, `export` and `serve` take a configuration of that name;
`evaluate` takes lists as well; `generate` is a Generator's (a Summarizer's) call, `score` that of `load_reward` or `load_judge`, and what
a run left is `read_run`'s.

>>> from softspoken import Summarizer
>>> Summarizer.from_pretrained(adapter="runs/demo/adapter")(["Nora: Where are you?\\nFelix: On the bus, you impatient donkey."])
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from softspoken import mini
    from softspoken.config import (
        DpoConfig,
        EvaluateConfig,
        ExportConfig,
        ServeConfig,
        SftConfig,
        SweepConfig,
        TrainConfig,
    )
    from softspoken.dpo import dpo
    from softspoken.evaluation.given import evaluate
    from softspoken.inference.export import export
    from softspoken.inference.generator import Generator, Summarizer
    from softspoken.report.shown import read_run
    from softspoken.rewards.judges import load_judge
    from softspoken.rewards.terms import load_reward
    from softspoken.serving.serve import serve
    from softspoken.sft import sft
    from softspoken.sweep import sweep
    from softspoken.train import steps, train

    __version__: str

__all__ = [
    "DpoConfig",
    "EvaluateConfig",
    "ExportConfig",
    "Generator",
    "ServeConfig",
    "SftConfig",
    "Summarizer",
    "SweepConfig",
    "TrainConfig",
    "__version__",
    "dpo",
    "evaluate",
    "export",
    "load_judge",
    "load_reward",
    "mini",
    "read_run",
    "serve",
    "sft",
    "steps",
    "sweep",
    "train",
]

_ROOMS = {
    "DpoConfig": "config",
    "EvaluateConfig": "config",
    "ExportConfig": "config",
    "Generator": "inference.generator",
    "ServeConfig": "config",
    "SftConfig": "config",
    "Summarizer": "inference.generator",
    "SweepConfig": "config",
    "TrainConfig": "config",
    "dpo": "dpo",
    "evaluate": "evaluation.given",
    "export": "inference.export",
    "load_judge": "rewards.judges",
    "load_reward": "rewards.terms",
    "read_run": "report.shown",
    "serve": "serving.serve",
    "sft": "sft",
    "steps": "train",
    "sweep": "sweep",
    "train": "train",
}


def __getattr__(name: str) -> Any:
    """Public names are loaded when first used: `import softspoken` costs nothing, torch comes with what needs it."""
    if name == "__version__":
        from importlib.metadata import version

        return version("softspoken")
    if name == "mini":
        return importlib.import_module("softspoken.mini")
    if name not in _ROOMS:
        raise AttributeError(f"module 'softspoken' has no attribute {name!r}")
    if "IPython" in sys.modules and "tqdm.auto" not in sys.modules:
        importlib.import_module("softspoken.runtime.progress").quiet_tqdm()  # before a library imports it
    return getattr(importlib.import_module(f"softspoken.{_ROOMS[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)


class _Package(ModuleType):
    """`train` and `sft` are functions, though importing the module of that name would put it in their place."""

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and _ROOMS.get(name) == name:
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
