"""The evaluation that a run ends with: what it will need is looked at before the first step."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

from softspoken.config import EvaluateConfig, TrainConfig
from softspoken.config.naming import TUNED
from softspoken.config.rewards import factors, reward_weights
from softspoken.data.prompts import PromptFormat
from softspoken.data.reading import require_references
from softspoken.evaluation.earlier import recorded
from softspoken.evaluation.evaluate import measure_prepared, prepare, require_examples
from softspoken.evaluation.rows import OtherEvaluation, is_started, rows_bytes
from softspoken.evaluation.systems import both_ways
from softspoken.models.adapters import adapter_folder
from softspoken.models.pretrained import resolve_device
from softspoken.report.report import EVAL_FILE, read_report
from softspoken.rewards.terms import load_judge, load_reward
from softspoken.rl.policy import VALUE_HEAD_FILE
from softspoken.runtime import processes
from softspoken.storage.run_folder import RunFolder, require_room
from softspoken.tasks.task import Task, terms_of
from softspoken.training.start import ADAPTER, MODEL, Evaluated, judges_of

log = logging.getLogger(__name__)


def evaluation_of(
    config: TrainConfig, task: Task, prompt_format: PromptFormat, run: Path, at_end: Evaluated
) -> EvaluateConfig:
    same = config.eval_dataset is None or (
        isinstance(config.eval_dataset, str) and config.eval_dataset == config.dataset
    )
    start = [f"{_start_name(config.adapter)}={config.adapter}"] if config.adapter else []
    return EvaluateConfig(
        output=str(run),
        task=config.task,
        model=config.model,
        adapter=None if config.trains_whole_model else [*start, f"{TUNED}={run / ADAPTER}"],
        system=[f"{TUNED}={run / MODEL}"] if config.trains_whole_model else None,
        quantization=config.quantization,
        dataset=config.dataset if config.eval_dataset is None else config.eval_dataset,
        split=at_end.split,
        held_out=at_end.share,
        dataset_config=config.eval_dataset_config or (config.dataset_config if same else None),
        text_column=config.text_column,
        reference_column=config.reference_column,
        judge=judges_of(config, task) or None,
        reward=config.reward,
        measure=config.measure,
        baseline=(list(task.baselines) if config.eval_baseline is None else config.eval_baseline) or None,
        detoxify_sha256=config.detoxify_sha256,
        limit=config.eval_limit,
        on_bad_row=config.on_bad_row,
        samples=config.eval_samples,
        max_new_tokens=config.max_new_tokens,  # the base's own limit may be another, as may its prompt
        prompt_template=prompt_format.template,
        max_prompt_tokens=prompt_format.max_prompt_tokens,
        truncation_side=prompt_format.truncation_side,
        source_language=prompt_format.source_language,
        target_language=prompt_format.target_language,
        batch_size=config.eval_batch_size,
        device=config.device,
        seed=config.seed,
    )


def _start_name(adapter: str) -> str:
    """What the adapter that training went on from is called: a warm start is an alternative to all that came after it."""
    return "start" if (adapter_folder(adapter) / VALUE_HEAD_FILE).is_file() else "sft"


def require_evaluation(config: TrainConfig, evaluation: EvaluateConfig, task: Task) -> None:
    """Open what the evaluation after the training will need, and let it go again; the reward's own judges are opened anyway."""
    assert config.reward
    examples = require_examples(evaluation)
    device = str(resolve_device(config.device))
    opened = {factor for term in reward_weights(config.reward) for factor in factors(term)}
    for spec in {*(evaluation.judge or [])} - opened:
        load_judge(spec, device=device, detoxify_sha256=config.detoxify_sha256)
    for name, spec in terms_of(task, config.measure).items():
        reward = load_reward(spec, device=device, detoxify_sha256=config.detoxify_sha256)
        if reward.needs_references:
            require_references(examples, evaluation.dataset, f"{name} ({reward.needs_references[0]})")
    each = 2 * sum(both_ways(evaluation.samples).values())  # of the base and what is trained; there may be others
    if processes.first():  # which alone writes
        require_room(Path(evaluation.output), rows_bytes(examples, each), "its evaluation")


def evaluate_run(evaluation: EvaluateConfig, folder: RunFolder) -> None:
    """Unless a run that was stopped has it already, whole or in part. Raises FileNotFoundError where what was trained is gone."""
    if not any((folder.path / name).is_dir() for name in (ADAPTER, MODEL)):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder.path / ADAPTER))
    prepared = prepare(evaluation, say=not evaluation.held_out)  # of which the rest was trained on
    whole = folder.has(EVAL_FILE) and not is_started(folder.path)
    if processes.from_first(whole and read_report(folder.path).config == recorded(prepared.config)):
        return
    try:
        measure_prepared(prepared, folder, resume=True)
    except OtherEvaluation as error:
        log.warning("%s; measuring again", str(error).partition(";")[0])
        measure_prepared(prepared, folder, resume=False)
