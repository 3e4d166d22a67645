"""An evaluation that lies in the folder already: neither replaced nor gone on with unasked, and known again by its settings."""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from softspoken.config import EvaluateConfig
from softspoken.config.rewards import recorded_reward
from softspoken.data.reading import record_of
from softspoken.evaluation.rows import is_started
from softspoken.report.report import EVAL_FILE, read_report
from softspoken.types import EvalReport, InputError

log = logging.getLogger(__name__)

ABOUT_THE_FOLDER = ("output", "overwrite", "resume")
"""Settings that say where the evaluation goes, not what is in it."""


def recorded(config: EvaluateConfig) -> dict[str, Any]:
    """A reward, or rounded weights, only where there are: the report shows them as such."""
    named = replace(config, dataset=record_of(config.dataset), reward=recorded_reward(config.reward))
    settings = {name: value for name, value in asdict(named).items() if name not in ABOUT_THE_FOLDER}
    absent = [name for name in ("reward", "quantization") if settings[name] is None]
    return {name: value for name, value in settings.items() if name not in absent}


def require_free(config: EvaluateConfig, output: Path) -> None:
    """An evaluation, finished or stopped, is neither replaced nor gone on with unasked."""
    if config.overwrite:
        return
    if is_started(output):  # perhaps in place of a finished one, which stays until it is replaced
        if not config.resume:
            raise InputError(
                f"output {output} holds an evaluation that was stopped; pass --resume true to go on with it, or --overwrite "
                "true to start again"
            )
        return
    if (output / EVAL_FILE).exists():
        if config.resume:
            return
        raise InputError(
            f"output {output} holds an evaluation; pass --overwrite true to replace it, or give another folder"
        )
    if config.resume:
        log.info("resume: no stopped evaluation in %s; starting one", output)


def require_same(config: EvaluateConfig, output: Path) -> EvalReport:
    """A whole evaluation that is there. Raises InputError for one with other settings."""
    report = read_report(output)
    if report.config != recorded(config):
        raise InputError(
            f"resume: the evaluation in {output} had come to its end, with other settings; give another folder, or --overwrite true to "
            "replace it"
        )
    return report
