"""Step 5, measure: one line of metrics a step, TensorBoard where it is installed, and the progress bar."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import TracebackType
from typing import Any

from softspoken.progress import progress_bar
from softspoken.types import RunError

METRICS_FILE = "metrics.jsonl"
OPTIMIZER_STEPS = "ppo/optimizer_steps"


class Tracker:
    """Appends to RUN/metrics.jsonl; on a resumed run the lines past `first_step` are cut off first."""

    def __init__(self, run: Path, *, first_step: int, steps: int) -> None:
        path = run / METRICS_FILE
        kept = [line for line in _lines(path) if json.loads(line)["step"] <= first_step]
        path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        self.optimizer_steps = sum(json.loads(line).get(OPTIMIZER_STEPS, 0) for line in kept)
        """Of the whole run, so far."""
        self._file = path.open("a", encoding="utf-8")
        self._board = _tensorboard(run)
        self._progress = progress_bar("train", "{task.fields[figures]}")
        self._task = self._progress.add_task("train", total=steps, completed=first_step, figures="")

    def __enter__(self) -> Tracker:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
        self._file.close()
        if self._board is not None:
            self._board.close()

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Write the metrics of `step` (the first is 1). Raises RunError if one is not a number."""
        broken = [name for name, value in metrics.items() if not math.isfinite(value)]
        self._file.write(json.dumps({"step": step, **metrics}) + "\n")
        self._file.flush()
        self.optimizer_steps += metrics.get(OPTIMIZER_STEPS, 0)
        if broken:
            raise RunError(
                f"step {step}: {', '.join(broken)} is not a finite number; lower the learning rate or raise kl_coef"
            )
        if self._board is not None:
            for name, value in metrics.items():
                self._board.add_scalar(name, value, step)
        self._progress.update(self._task, completed=step, figures=_figures(metrics))


def _figures(metrics: dict[str, float]) -> str:
    names = {"objective/score": "reward", "objective/toxicity": "toxicity", "objective/kl": "KL"}
    shown = [f"{shown} {metrics[name]:.3f}" for name, shown in names.items() if name in metrics]
    if metrics.get("tokens/short"):
        shown.append(f"{metrics['tokens/short']:g} too short")
    return " · ".join([*shown, f"{metrics['time/step']:.1f} s/step"])


def _lines(path: Path) -> list[str]:
    """Whole lines only: one that a crash cut short is dropped."""
    if not path.is_file():
        return []
    return [line for line in path.read_text(encoding="utf-8").split("\n")[:-1] if line]


def _tensorboard(run: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(run / "tensorboard"))
