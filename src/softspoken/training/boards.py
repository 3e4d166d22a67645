"""Trackers that are shown each step, where they are asked for (`report_to`): TensorBoard, Weights & Biases, Trackio, MLflow, by
accelerate's way to them. Where they send things to is theirs to say (WANDB_MODE=offline, MLFLOW_TRACKING_URI, TRACKIO_DIR ...)."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from softspoken.config import TrainConfig
from softspoken.config.kinds import TRACKERS
from softspoken.data.reading import record_of
from softspoken.runtime import processes
from softspoken.storage.run_folder import RunFolder
from softspoken.types import InputError, first_line

log = logging.getLogger(__name__)

PROJECT = "softspoken"
INSIDE = ("tensorboard", "wandb")
"""Folders of the run's that they write into."""


def require_boards(config: TrainConfig) -> None:
    """Raises InputError for one that is not installed."""
    for name in config.report_to or []:
        package = TRACKERS[name]
        if importlib.util.find_spec(name) is None:
            raise InputError(
                f"report_to {name} needs {package}, which is not installed; pip install 'softspoken[track]', or leave it out"
            )


class Boards:
    """Those of `config`, from `with` to its end. One that fails while it trains is said once, and let go."""

    def __init__(self, config: TrainConfig, folder: RunFolder) -> None:
        self.config, self.folder = config, folder
        self.open: dict[str, Any] = {}

    def __enter__(self) -> Boards:
        """Raises InputError for one that cannot be started, before the first step. Of several processes the first alone has them."""
        for name in self.config.report_to or [] if processes.first() else []:
            try:
                with _aside():
                    self.open[name] = _started(name, self.config, self.folder)
            except Exception as error:  # each service has its own ways of saying no
                self.__exit__()
                raise InputError(
                    f"report_to {name} cannot be started ({first_line(error)[:200]}); set it up, or leave it out"
                ) from error
        return self

    def log(self, step: int, metrics: dict[str, float]) -> None:
        for name, board in [*self.open.items()]:
            try:
                with _aside():
                    board.log(metrics, step=step)
            except Exception as error:
                del self.open[name]
                log.warning("%s takes no more (%s): training goes on without it", name, first_line(error)[:200])

    def __exit__(self, *_: object) -> None:
        for name, board in self.open.items():
            try:
                with _aside():
                    board.finish()
            except Exception as error:
                log.warning("%s did not end well: %s", name, first_line(error)[:200])
        root = self.folder.path
        written = [path for folder in INSIDE for path in sorted((root / folder).rglob("*")) if not path.is_dir()]
        self.folder.record(*(path.relative_to(root).as_posix() for path in written))


def _started(name: str, config: TrainConfig, folder: RunFolder) -> Any:
    from accelerate import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    PartialState()  # its trackers ask it which process they are in
    run = folder.path.resolve().name
    settings: dict[str, dict[str, Any]] = {
        "tensorboard": {"run_name": "tensorboard", "logging_dir": str(folder.path)},
        "wandb": {"run_name": PROJECT, "name": run, "dir": str(folder.path), "config": _settings(config)},
        "trackio": {"run_name": PROJECT, "name": run},
        "mlflow": {"experiment_name": PROJECT, "run_name": run},
    }
    board = LOGGER_TYPE_TO_CLASS[name](**settings[name])
    if hasattr(board, "start"):  # accelerate's later ones
        board.start()
    if name not in ("tensorboard", "wandb"):  # the one would show a run of its own among the curves, the other has them
        board.store_init_configuration(_settings(config))
    return board


def _settings(config: TrainConfig) -> dict[str, Any]:
    """As they hold them: numbers and texts, and rows that were given in Python by their name."""
    named = {name: record_of(getattr(config, name)) for name in ("dataset", "eval_dataset") if getattr(config, name)}
    plain = {field.name: getattr(config, field.name) for field in fields(config)}
    return {
        name: value if isinstance(value, int | float | str) else str(value)
        for name, value in (plain | named).items()
        if value is not None
    }


@contextlib.contextmanager
def _aside() -> Iterator[None]:
    """What they print is no output of ours."""
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # on import it sets its own
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with contextlib.redirect_stdout(sys.stderr):
        yield
