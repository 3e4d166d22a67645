"""Step 5, measure: one line of metrics a step, what else is to be shown it, and the progress bar."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from softspoken.runtime.progress import progress_bar
from softspoken.storage.run_folder import RunFolder
from softspoken.types import RunError

log = logging.getLogger(__name__)

METRICS_FILE = "metrics.jsonl"
OPTIMIZER_STEPS = "ppo/optimizer_steps"


class Tracker:
    """Appends to RUN/metrics.jsonl; on a resumed run the lines past `first_step` are cut off first."""

    def __init__(
        self,
        folder: RunFolder,
        *,
        first_step: int,
        steps: int,
        command: str = "train",
        shown: Callable[[int, dict[str, float]], None] | None = None,
    ) -> None:
        """`shown` is called with each step that is whole, and its metrics."""
        path = folder.path / METRICS_FILE
        kept = _lines(path, first_step)
        folder.write(METRICS_FILE, "".join(line + "\n" for line in kept))
        self.optimizer_steps = sum(json.loads(line).get(OPTIMIZER_STEPS, 0) for line in kept)
        """Of the whole run, so far."""
        self._file = path.open("a", encoding="utf-8")
        self._shown = shown
        self._progress = progress_bar(command, "{task.fields[figures]}")
        self._task = self._progress.add_task(command, total=steps, completed=first_step, figures="")

    def __enter__(self) -> Tracker:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
        self._file.close()

    def sync(self) -> None:
        """What was logged is on the disk: before the checkpoint that a resumed run goes on from."""
        os.fsync(self._file.fileno())

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
        if self._shown:
            self._shown(step, metrics)
        self._progress.update(self._task, completed=step, figures=_figures(metrics))


def _figures(metrics: dict[str, float]) -> str:
    names = {
        "objective/score": "reward",
        "objective/toxicity": "toxicity",
        "objective/kl": "KL",
        "dpo/accuracy": "pairs right",
    }
    shown = [f"{shown} {metrics[name]:.3f}" for name, shown in names.items() if name in metrics]
    if metrics.get("tokens/short"):
        shown.append(f"{metrics['tokens/short']:g} too short")
    if metrics.get("groups/alike"):
        shown.append(f"{metrics['groups/alike']:g} texts alike")
    return " · ".join([*shown, f"{metrics['time/step']:.1f} s/step"])


def _lines(path: Path, first_step: int) -> list[str]:
    """Those of the steps up to `first_step`, each once; a line that is not whole is dropped, and what lacks is said."""
    found: dict[int, str] = {}
    for line in path.read_bytes().split(b"\n") if path.is_file() else []:
        try:
            step = json.loads(line)["step"]
        except (ValueError, KeyError, TypeError):
            continue
        if isinstance(step, int) and 1 <= step <= first_step:
            found[step] = line.decode()
    if len(found) < first_step:
        log.warning(
            "%s has %d of the %d steps before this one; the others cannot be read", path, len(found), first_step
        )
    return [found[step] for step in sorted(found)]
