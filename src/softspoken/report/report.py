"""A run's or an evaluation's folder → report.html, README.md (the model card) and the table in the terminal."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from softspoken.data.prompts import PromptFormat
from softspoken.data.reading import is_given, is_one_set
from softspoken.report.card import TUNED, results_index
from softspoken.report.charts import Chart, Styles, distributions, plane, slice_chart, system_styles
from softspoken.report.curves import curve_rows, curves, smoothing
from softspoken.report.ended import collapsed, end_in_words, read_end
from softspoken.report.every_row import every_row
from softspoken.report.examples import read_rows
from softspoken.report.measures import BASE, HUMAN, measure, metrics_of, overview, reward_in_words, sliced, task_of
from softspoken.report.page import render, template
from softspoken.report.running import running_curves
from softspoken.report.tables import (
    Table,
    decodings,
    entries,
    slices_of,
    slices_table,
    system_tables,
    systems_table,
    with_judges,
)
from softspoken.report.verdict import judged_systems, remarks, verdicts
from softspoken.storage.run_folder import RunFolder
from softspoken.tasks.summarization import TASK as SUMMARIZATION
from softspoken.tasks.task import Task, Words, retold
from softspoken.types import (
    Comparison,
    EvalReport,
    InputError,
    Interval,
    SliceResult,
    SystemResult,
    counted,
    one_line,
    printable,
)

EVAL_FILE = "eval.json"
METRICS_FILE = "metrics.jsonl"
REPORT_FILE = "report.html"
CARD_FILE = "README.md"


def read_report(folder: Path | str) -> EvalReport:
    """eval.json of a run or an evaluation."""
    path = Path(folder) / EVAL_FILE
    if not path.is_file():
        raise InputError(f"no {EVAL_FILE} in {folder}; give the folder of an evaluated run, or evaluate first")
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        systems = [_system(one) for one in saved["systems"]]
        comparisons = [_comparison(one) for one in saved["comparisons"]]
        return EvalReport(**_known(EvalReport, saved) | {"systems": systems, "comparisons": comparisons})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path} is not an evaluation of softspoken ({error}); evaluate again with --overwrite true"
        ) from error


def _system(saved: dict[str, Any]) -> SystemResult:
    slices = {
        name: SliceResult(part["n"], _intervals(part["metrics"])) for name, part in saved.get("slices", {}).items()
    }
    return SystemResult(**_known(SystemResult, saved) | {"metrics": _intervals(saved["metrics"]), "slices": slices})


def _comparison(saved: dict[str, Any]) -> Comparison:
    ratio = Interval(**saved["ratio"]) if saved["ratio"] else None
    return Comparison(**_known(Comparison, saved) | {"difference": Interval(**saved["difference"]), "ratio": ratio})


def _known(kind: type, saved: dict[str, Any]) -> dict[str, Any]:
    """What this version knows of it: an eval.json of a later one may hold more."""
    return {field.name: saved[field.name] for field in dataclasses.fields(kind) if field.name in saved}


def _intervals(metrics: dict[str, dict[str, float]]) -> dict[str, Interval]:
    return {name: Interval(**interval) for name, interval in metrics.items()}


# --------------------------------------------------------------------------------------------------- report.html


@contextlib.contextmanager
def naming_what_is_damaged(folder: Path | str) -> Iterator[None]:
    """Whatever a page of the folder fails by is in its files, which may be cut, edited or a stranger's: an InputError says so."""
    try:
        yield
    except (InputError, OSError, MemoryError):
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        raise InputError(
            f"{folder} cannot be shown ({type(error).__name__}: {reason}): one of its files ({EVAL_FILE}, the rows, {METRICS_FILE}, "
            "config.yaml) is damaged or was edited; restore it, or evaluate again with --overwrite true"
        ) from error


def write_report(folder: Path | str) -> Path:
    """report.html from whatever lies in the folder: an evaluation, a run's metrics and configuration, or all of them."""
    with naming_what_is_damaged(folder):
        page = report_page(Path(folder))
    with RunFolder(folder, add=True) as own:
        own.begin()
        return own.write(REPORT_FILE, page)


def report_page(folder: Path) -> str:
    run = read_run(folder)
    report, metrics, record = run.report, run.metrics, run.record
    rows = read_rows(_rows_file(folder, report), report) if report else None
    styles = system_styles([one.name for one in report.systems] if report else [])
    task = run.task
    charts = {
        "planes": planes(report, styles) if report else [],
        "distributions": distributions(rows.histograms, report, styles, _in_short(report)) if report and rows else [],
        "running": running_curves(metrics, task, run.end),
        "curves": curves(metrics, task.words),
        "slices": slice_charts(report, styles) if report else [],
    }
    return render(
        "report.html.j2",
        charts,
        name=folder.resolve().name,
        task=task,
        titles=titles(report) if report else {},
        report=report,
        verdicts=verdicts(report) if report else [],
        remarks=(remarks(report) if report else []) + _training_remarks(metrics, task.words),
        facts=_facts(run),
        collapse=end_in_words(run.end) if run.end and collapsed(run.end) else "",
        end=run.end,
        systems=overviews(report) if report else [],
        everything=system_tables(report, metrics_of(report)) if report else [],
        smoothing=smoothing(len(metrics)),
        curve_rows=curve_rows(metrics),
        slice_tables=_slice_tables(report) if report else [],
        examples=rows.examples if rows else [],
        table=every_row(_rows_file(folder, report), report) if report else None,
        styles=styles,
        has_card=(folder / CARD_FILE).is_file(),
        config=record.get("config") or (report.config if report else {}),
        versions=record.get("versions") or (report.versions if report else {}),
        command=record.get("command", ""),
    )


def _rows_file(folder: Path, report: EvalReport) -> Path:
    """Raises InputError for one that lies elsewhere: what a stranger's eval.json names would be copied into the page."""
    path = folder / report.rows
    if path.resolve().parent != folder.resolve():
        raise InputError(
            f"the rows of {folder / EVAL_FILE} are {report.rows!r}, which is not in its folder; name a file that lies beside it"
        )
    return path


@dataclasses.dataclass(frozen=True)
class Run:
    """What lies in a folder; each part may be absent."""

    folder: Path
    report: EvalReport | None
    metrics: list[dict[str, float]]
    record: dict[str, Any]
    """config.yaml: the configuration, the task, the versions and the command that made it."""
    end: dict[str, Any] | None = None
    """How the training ended; None where it has not."""

    @property
    def task(self) -> Task:
        if self.report:
            return task_of(self.report)
        return retold(self.record["task"]) if self.record.get("task") else SUMMARIZATION


def titles(report: EvalReport) -> dict[str, str]:
    """Of the sections whose names are the objective's."""
    objective, guards = task_of(report).objective.metric, task_of(report).guards
    label = measure(objective, report).label
    against = f" against {measure(guards[0].metric, report).label}" if guards else ""
    return {"plane": f"{label}{against}", "distribution": f"{label} before and after"}


def read_run(folder: Path) -> Run:
    if not folder.is_dir():
        raise InputError(f"no folder at {folder}; give the folder of a run or an evaluation")
    metrics = _metrics(folder / METRICS_FILE)
    report = read_report(folder) if (folder / EVAL_FILE).is_file() else None
    if not metrics and not report:
        raise InputError(
            f"{folder} holds neither {METRICS_FILE} nor {EVAL_FILE}; give the folder of a run or an evaluation"
        )
    return Run(folder, report, metrics, _record(folder), read_end(folder))


def overviews(report: EvalReport) -> list[Table]:
    """A table for each way of decoding, systems down and headline metrics across."""
    metrics = with_judges(overview(report), report)
    return [systems_table(entries(report, how), how, metrics, title) for how, title in decodings(report).items()]


def planes(report: EvalReport, styles: Styles) -> list[Chart]:
    return [chart for how, title in decodings(report).items() for chart in plane(entries(report, how), title, styles)]


def _in_short(report: EvalReport) -> list[str]:
    """Before and after: all systems in one chart would lie over each other."""
    return [HUMAN, BASE, *judged_systems(report)[:3]]


def slice_charts(report: EvalReport, styles: Styles) -> list[Chart]:
    slices, found = slices_of(report), []
    for how, title in decodings(report).items():
        shown = [one for one in entries(report, how) if one.system.name in _in_short(report)]
        found += slice_chart(report, shown, slices, title, styles) if slices else []
    return found


def _slice_tables(report: EvalReport) -> list[tuple[str, list[Table]]]:
    """For each way of decoding, a table for each of a few metrics: parts of the examples down, systems across."""
    slices, found = slices_of(report), []
    for how, title in decodings(report).items():
        tables = [slices_table(report, how, metric, slices) for metric in with_judges(sliced(report), report)]
        found.append((title, [table for table in tables if table.rows]))
    return found if slices else []


def _metrics(path: Path) -> list[dict[str, float]]:
    """The run's steps; a line that a crash cut short, and a number that is none, are left out."""
    steps = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            step = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if not isinstance(step, dict):
            continue
        steps.append(
            {name: value for name, value in step.items() if isinstance(value, int | float) and math.isfinite(value)}
        )
    return [step for step in steps if "step" in step]


def _record(folder: Path) -> dict[str, Any]:
    path = folder / "config.yaml"
    record = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if not isinstance(record, dict):
        raise InputError(f"{path} is not a run's record; restore it")
    return record


def _training_remarks(metrics: list[dict[str, float]], words: Words) -> list[str]:
    skipped = sum(step.get("ppo/skipped", 0) for step in metrics)
    short = sum(step.get("tokens/short", 0) for step in metrics)
    found = []
    if skipped:
        found.append(
            f"Optimizer steps left out (the policy had moved too far, or a gradient was not finite): {skipped:g}."
        )
    if short:
        found.append(
            f"Sampled {words.responses} that were too short to be judged and scored below the rest: {short:g}."
        )
    return found


def _facts(run: Run) -> list[tuple[str, str]]:
    report, metrics = run.report, run.metrics
    config = run.record.get("config") or (report.config if report else {})
    facts = [("Base model", str(config["model"]))] if "model" in config else []
    if report:
        facts.append(("Evaluated on", evaluated_on(report)))
    if report and report.judges:
        facts.append(("Judged by", ", ".join(report.judges)))
    if metrics:
        seconds = sum(step.get("time/step", 0.0) for step in metrics)
        algorithm = f"{str(config['algorithm']).upper().replace('_', ' ')}, " if "algorithm" in config else ""
        took = f" in {_duration(seconds)}" if seconds else ""
        facts.append(("Trained", f"{algorithm}{counted(len(metrics), 'step', 'steps')}{took}"))
        facts += _ended(run.end, int(metrics[-1]["step"]), config.get("steps"))
    if "reward" in config:
        facts.append(("Reward", reward_in_words(config["reward"])))
    return facts


def _ended(end: dict[str, Any] | None, done: int, steps: Any) -> list[tuple[str, str]]:
    if end:
        return [("Ended", end_in_words(end))]
    return [("Ended", f"not yet: {done} of {steps} steps are done")] if isinstance(steps, int) and done < steps else []


def evaluated_on(report: EvalReport) -> str:
    words, name = task_of(report).words, report.dataset["id"] or "an unnamed set"
    split = f", {report.dataset['split']}" if report.dataset.get("split") else ""
    if report.config.get("held_out"):
        split = ", held out from training"
    return f"{counted(report.dataset['n'], words.text, words.texts)} of {name}{split}"


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.2g} s"
        if seconds < 10
        else f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )


# ------------------------------------------------------------------------------------------------ terminal


def print_table(report: EvalReport, console: Console) -> None:
    """The systems side by side, for each way of decoding; in brackets the change from base."""
    for table in overviews(report):
        shown = RichTable(title=table.title, title_justify="left")
        shown.add_column("")
        for column in table.head:
            shown.add_column(Text(one_line(column.text)), justify="right")
        for row in table.rows:
            cells = (f"{cell.text} ({cell.change.text})" if cell.change else cell.text for cell in row.cells)
            shown.add_row(Text(one_line(row.label)), *cells)  # a name is the user's: its brackets are no markup
        console.print(shown)
    for alarm in report.alarms:
        console.print(Text(printable(alarm), style="bold red"))
    for verdict in verdicts(report):
        _print(console, f"{verdict.headline}. {' '.join(verdict.sentences)}")
    for remark in remarks(report):
        _print(console, f"Note: {remark}")


def _print(console: Console, sentences: str) -> None:
    """With names in them that are other people's."""
    console.print(printable(sentences), markup=False, highlight=False)


# ---------------------------------------------------------------------------------------------------- model card


def model_card(folder: Path) -> str:
    """README.md of a run: what it is, how it was made, what it does, how to load it, where it ends."""
    record = _record(folder)
    if not record:
        raise InputError(f"no config.yaml in {folder}; a model card needs the folder of a run")
    report = read_report(folder) if (folder / EVAL_FILE).is_file() else None
    config = record["config"]
    hub_ids = {
        name: config.get(name) if config.get(name) != "mini" and not Path(str(config.get(name))).exists() else None
        for name in ("model", "dataset")
    }
    task = retold(record["task"]) if record.get("task") else SUMMARIZATION
    result = "model" if config.get("trained") in ("full", "last_layers") else "adapter"
    return template("model_card.md.j2").render(
        task=task,
        objective=measure(task.objective.metric, report).label.lower() if report else "",
        name=folder.resolve().name,
        config=config,
        versions=record.get("versions", {}),
        hub_ids=hub_ids,
        reward=reward_in_words(config.get("reward")),
        report=report,
        one_set=is_given(config.get("dataset")) or is_one_set(config.get("dataset")),
        evaluated_on=evaluated_on(report) if report else "",
        verdicts=verdicts(report) if report else [],
        remarks=remarks(report) if report else [],
        tables=system_tables(report) if report else [],
        index=results_index(report, folder.resolve().name, TUNED) if report else "",
        kind=what_was_trained(config),
        end=read_end(folder),
        whole=result == "model",
        place=config.get("push_to_hub") or f"{folder.name if folder.is_absolute() else folder.as_posix()}/{result}",
        template=(PromptFormat.load(folder / result) or PromptFormat(task.template)).template,
    )  # fmt: skip


def what_was_trained(config: dict[str, Any]) -> str:
    """By a run's settings, such as "LoRA, r = 8, alpha = 16" or "the last 2 layers"."""
    trained, layers = config.get("trained", "lora"), config.get("last_layers", 1)
    if trained == "full":
        return "all weights"
    if trained == "last_layers":
        return f"the last {layers} layers" if layers > 1 else "the last layer"
    if peft := config.get("peft_config"):
        return f"{peft.get('peft_type', 'LORA')} ({', '.join(f'{name} = {value}' for name, value in peft.items() if name != 'peft_type')})"
    if config.get("adapter"):
        return "as the adapter that training went on from"
    if trained == "ia3":
        return "IA³"
    kind = "DoRA" if config.get("use_dora") else "rank-stabilized LoRA" if config.get("use_rslora") else "LoRA"
    dropout = f", dropout = {config['lora_dropout']}" if config.get("lora_dropout") else ""
    return f"{kind}, r = {config.get('lora_r', '?')}, alpha = {config.get('lora_alpha', '?')}{dropout}"
