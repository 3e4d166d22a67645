"""What a model card's head says of an evaluation, in the hub's own form (model-index), so that the hub can show and compare it."""

from __future__ import annotations

from pathlib import Path

import yaml

from softspoken.report.measures import measure, task_of
from softspoken.report.page import template
from softspoken.types import EvalReport

TUNED = "tuned"
"""The system that a run's card speaks of."""


def results_index(report: EvalReport, name: str, system: str) -> str:
    """YAML: the system's objective and guards, for each way of decoding it was measured in. Empty where it was not measured."""
    from huggingface_hub.repocard_data import EvalResult, eval_results_to_model_index

    task = task_of(report)
    dataset = str(report.dataset.get("id") or "unnamed")
    wanted = (task.objective.metric, *(guard.metric for guard in task.guards))
    results = [
        EvalResult(
            task_type=task.tag,
            dataset_type=dataset,
            dataset_name=dataset,
            dataset_split=report.dataset.get("split"),
            metric_type=metric,
            metric_name=f"{measure(metric, report).label} ({one.decoding or 'as given'})",
            metric_value=round(one.metrics[metric].mean, 4),
        )
        for one in report.systems
        if one.name == system
        for metric in wanted
        if metric in one.metrics
    ]
    if not results:
        return ""
    return yaml.safe_dump({"model-index": eval_results_to_model_index(name, results)}, sort_keys=False).strip()


def export_card(**said: object) -> str:
    """README.md of an export; `said` is what the template names."""
    return template("export_card.md.j2").render(**said)


def evaluation_beside(adapter: str | Path | None) -> Path | None:
    """The run's folder that an adapter lies in, where that was evaluated."""
    folder = Path(adapter).resolve().parent if adapter else None
    return folder if folder and (folder / "eval.json").is_file() else None
