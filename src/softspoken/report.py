"""A run's or an evaluation's folder → report.html, README.md (the model card) and the table in the terminal."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from rich.console import Console
from rich.table import Table as RichTable

from softspoken.charts import Chart, curves, distributions
from softspoken.data import PromptFormat
from softspoken.examples import read_rows
from softspoken.types import Comparison, EvalReport, InputError, Interval, SliceResult, SystemResult
from softspoken.verdict import remarks, toxicity, verdicts

EVAL_FILE = "eval.json"
REPORT_FILE = "report.html"
CARD_FILE = "README.md"
HEADLINE = [
    "toxicity",
    "toxicity_p99",
    "toxic_rate",
    "rouge1",
    "rouge2",
    "rougeL",
    "rougeL_nearer",
    "speakers_named",
    "length",
    "empty_rate",
]
SLICED = ["toxicity", "toxic_rate", "rougeL", "speakers_named", "length"]
NO_BREAK = "\N{NO-BREAK SPACE}"
DECODINGS = {"greedy": "Decoded greedily", "sampled": "Sampled at temperature 1"}


def _points(value: float) -> str:
    return f"{value:.1f}"


def _share(value: float) -> str:
    return f"{100 * value:.1f}{NO_BREAK}%"


METRICS: dict[str, tuple[str, Callable[[float], str]]] = {
    "toxicity": ("Toxicity", toxicity),
    "toxicity_p99": ("Toxicity, 99th percentile", toxicity),
    "toxic_rate": ("Toxic (above 0.5)", _share),
    "rouge1": ("ROUGE-1", _points),
    "rouge2": ("ROUGE-2", _points),
    "rougeL": ("ROUGE-L", _points),
    "rougeL_nearer": ("ROUGE-L, nearer reference", _points),
    "speakers_named": ("Speakers named", _share),
    "length": ("Length in words", _points),
    "empty_rate": ("Empty", _share),
}
"""Name and format; a metric that is not here is a probability: another label, or another judge's toxicity."""


@dataclass(frozen=True)
class Cell:
    text: str
    details: tuple[str, ...] = ()
    mark: str = ""
    """`better` or `worse` where the change is beyond chance and the metric has a good side."""


@dataclass(frozen=True)
class Table:
    title: str
    head: list[Cell]
    rows: list[tuple[str, list[Cell]]]


def read_report(folder: Path | str) -> EvalReport:
    """eval.json of a run or an evaluation."""
    path = Path(folder) / EVAL_FILE
    if not path.is_file():
        raise InputError(f"no {EVAL_FILE} in {folder}; give the folder of an evaluated run, or evaluate first")
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        systems = [
            SystemResult(
                **one
                | {
                    "metrics": _intervals(one["metrics"]),
                    "slices": {
                        name: SliceResult(part["n"], _intervals(part["metrics"]))
                        for name, part in one.get("slices", {}).items()
                    },
                }
            )
            for one in saved["systems"]
        ]
        comparisons = [
            Comparison(
                **one
                | {
                    "difference": Interval(**one["difference"]),
                    "ratio": Interval(**one["ratio"]) if one["ratio"] else None,
                }
            )
            for one in saved["comparisons"]
        ]
        return EvalReport(**saved | {"systems": systems, "comparisons": comparisons})
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is not an evaluation of softspoken ({error}); evaluate again with --overwrite true"
        ) from error


def _intervals(metrics: dict[str, dict[str, float]]) -> dict[str, Interval]:
    return {name: Interval(**interval) for name, interval in metrics.items()}


# --------------------------------------------------------------------------------------------------- report.html


def write_report(folder: Path | str) -> Path:
    """report.html from whatever lies in the folder: an evaluation, a run's metrics and configuration, or all of them."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"no folder at {folder}; give the folder of a run or an evaluation")
    metrics = _metrics(folder / "metrics.jsonl")
    report = read_report(folder) if (folder / EVAL_FILE).is_file() else None
    if not metrics and not report:
        raise InputError(
            f"{folder} holds neither metrics.jsonl nor {EVAL_FILE}; give the folder of a run or an evaluation"
        )
    rows = read_rows(folder / report.rows, report) if report else None
    record = _record(folder)
    charts = {"curves": curves(metrics), "distributions": distributions(rows.histograms) if rows else []}
    page = _environment().get_template("report.html.j2").render(
        name=folder.resolve().name,
        report=report,
        verdicts=verdicts(report) if report else [],
        remarks=(remarks(report) if report else []) + _training_remarks(metrics),
        facts=_facts(report, record, metrics),
        tables=system_tables(report, "all", HEADLINE) if report else [],
        label_tables=system_tables(report, "all", _other_metrics(report)) if report else [],
        slices=[(name, system_tables(report, name, SLICED)) for name in _slices(report)] if report else [],
        charts=charts,
        plotly=_plotly_js() if any(charts.values()) else "",
        examples=rows.examples if rows else [],
        has_card=(folder / CARD_FILE).is_file(),
        config=record.get("config") or (report.config if report else {}),
        versions=record.get("versions") or (report.versions if report else {}),
        command=record.get("command", ""),
    )  # fmt: skip
    return _write(folder / REPORT_FILE, page)


def _metrics(path: Path) -> list[dict[str, float]]:
    """The run's steps; a line that a crash cut short, and a number that is none, are left out."""
    steps = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            step = json.loads(line)
        except json.JSONDecodeError:
            continue
        steps.append(
            {name: value for name, value in step.items() if isinstance(value, int | float) and math.isfinite(value)}
        )
    return [step for step in steps if "step" in step]


def _record(folder: Path) -> dict[str, Any]:
    path = folder / "config.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _training_remarks(metrics: list[dict[str, float]]) -> list[str]:
    skipped = sum(step.get("ppo/skipped", 0) for step in metrics)
    dropped = sum(step.get("tokens/dropped", 0) for step in metrics)
    found = []
    if skipped:
        found.append(
            f"Optimizer steps left out (the policy had moved too far, or a gradient was not finite): {skipped:g}."
        )
    if dropped:
        found.append(f"Sampled summaries left out of training, for they were too short: {dropped:g}.")
    return found


def _facts(report: EvalReport | None, record: dict[str, Any], metrics: list[dict[str, float]]) -> list[tuple[str, str]]:
    config = record.get("config") or (report.config if report else {})
    facts = [("Base model", str(config["model"]))] if "model" in config else []
    if report:
        split = f", {report.dataset['split']}" if report.dataset.get("split") else ""
        facts.append(("Evaluated on", f"{report.dataset['n']} dialogues of {report.dataset['id']}{split}"))
        facts.append(("Judged by", ", ".join(report.judges)))
    if metrics:
        seconds = sum(step.get("time/step", 0.0) for step in metrics)
        facts.append(
            ("Trained", f"{len(metrics)} steps in {_duration(seconds)}" if seconds else f"{len(metrics)} steps")
        )
    if "reward" in config:
        facts.append(("Reward", _reward(config["reward"])))
    return facts


def _reward(reward: str | dict[str, float]) -> str:
    return (
        reward
        if isinstance(reward, str)
        else " + ".join(name if weight == 1 else f"{weight:g}*{name}" for name, weight in reward.items())
    )


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )


# -------------------------------------------------------------------------------------------------------- tables


def system_tables(report: EvalReport, slice_name: str, metrics: list[str]) -> list[Table]:
    """A table for each way of decoding: systems side by side, and after each tuned one its change from the base."""
    return [
        table
        for decoding, title in DECODINGS.items()
        if any(one.decoding == decoding for one in report.systems)
        if (table := _system_table(report, slice_name, metrics, decoding, title)).rows
    ]


def _system_table(report: EvalReport, slice_name: str, metrics: list[str], decoding: str, title: str) -> Table:
    parts = [(one.name, _part(one, slice_name)) for one in report.systems if one.decoding in (decoding, None)]
    changes = {
        (one.b, one.metric): one for one in report.comparisons if (one.slice, one.decoding) == (slice_name, decoding)
    }
    columns = [(name, part, any(b == name for b, _ in changes)) for name, part in parts if part]
    columns.sort(key=lambda column: column[0] == "human")  # last: what matters is base against tuned
    head, rows = [], []
    for name, part, is_compared in columns:
        head += [Cell(name, (f"n = {part.n}",)), *([Cell("change", ("from base",))] if is_compared else [])]
    for metric in metrics:
        if not any(metric in part.metrics for _, part, _ in columns):
            continue
        label, form = METRICS.get(metric, (metric, toxicity))
        cells = []
        for name, part, is_compared in columns:
            cells.append(_value_cell(part.metrics.get(metric), form))
            if is_compared:
                cells.append(_change_cell(changes.get((name, metric)), metric, form))
        rows.append((label, cells))
    return Table(title, head, rows)


def _part(system: SystemResult, slice_name: str) -> SliceResult | None:
    return SliceResult(system.n, system.metrics) if slice_name == "all" else system.slices.get(slice_name)


def _slices(report: EvalReport) -> list[str]:
    return list(dict.fromkeys(name for system in report.systems for name in system.slices))


def _other_metrics(report: EvalReport) -> list[str]:
    found = dict.fromkeys(metric for system in report.systems for metric in system.metrics)
    return [metric for metric in found if metric not in HEADLINE]


def _value_cell(interval: Interval | None, form: Callable[[float], str]) -> Cell:
    return Cell(form(interval.mean), (_range(form(interval.low), "–", form(interval.high)),)) if interval else Cell("–")


def _change_cell(comparison: Comparison | None, metric: str, form: Callable[[float], str]) -> Cell:
    if not comparison:
        return Cell("–")
    change = comparison.difference
    mark = ""
    if metric != "length" and (change.low > 0 or change.high < 0):
        more_is_better = metric.startswith("rouge") or metric == "speakers_named"
        mark = "better" if (change.mean > 0) == more_is_better else "worse"
    details = [_range(_signed(change.low, form), "to", _signed(change.high, form))]
    if comparison.ratio and (metric not in METRICS or metric in ("toxicity", "toxic_rate")):
        ratio = comparison.ratio
        details.append(f"× {ratio.mean:.2f} ({ratio.low:.2f} to {ratio.high:.2f})")
    details.append(f"p = {comparison.p_value:.3f}" if comparison.p_value >= 0.001 else "p < 0.001")
    return Cell(_signed(change.mean, form), tuple(details), mark)


def _range(low: str, to: str, high: str) -> str:
    """The unit once: 2.3 – 8.1 %."""
    return f"{low.partition(NO_BREAK)[0]} {to} {high}"


def _signed(value: float, form: Callable[[float], str]) -> str:
    text = form(abs(value)).replace("%", "pp")
    return text if value == 0 else ("+" if value > 0 else "−") + text


def print_table(report: EvalReport, console: Console) -> None:
    """Human, base and tuned side by side, for each way of decoding."""
    for table in system_tables(report, "all", HEADLINE):
        shown = RichTable(title=table.title, title_justify="left")
        shown.add_column("")
        for column in table.head:
            shown.add_column(column.text, justify="right")
        for label, cells in table.rows:
            shown.add_row(label, *(cell.text for cell in cells))
        console.print(shown)
    for verdict in verdicts(report):
        console.print(f"{verdict.headline}. {' '.join(verdict.sentences)}", markup=False, highlight=False)
    for remark in remarks(report):
        console.print(f"Note: {remark}", markup=False, highlight=False)


# ---------------------------------------------------------------------------------------------------- model card


def write_model_card(folder: Path | str) -> Path:
    """README.md of a run: what it is, how it was made, what it does, how to load it, where it ends."""
    folder = Path(folder)
    record = _record(folder)
    if not record:
        raise InputError(f"no config.yaml in {folder}; a model card needs the folder of a run")
    report = read_report(folder) if (folder / EVAL_FILE).is_file() else None
    config = record["config"]
    hub_ids = {
        name: config.get(name) if config.get(name) != "mini" and not Path(str(config.get(name))).exists() else None
        for name in ("model", "dataset")
    }
    card = _environment().get_template("model_card.md.j2").render(
        name=folder.resolve().name,
        config=config,
        versions=record.get("versions", {}),
        hub_ids=hub_ids,
        reward=_reward(config.get("reward", "")),
        report=report,
        verdicts=verdicts(report) if report else [],
        remarks=remarks(report) if report else [],
        tables=system_tables(report, "all", HEADLINE) if report else [],
        adapter=f"{folder.name if folder.is_absolute() else folder.as_posix()}/adapter",
        template=(PromptFormat.load(folder / "adapter") or PromptFormat()).template,
    )  # fmt: skip
    return _write(folder / CARD_FILE, card)


def _environment() -> Environment:
    """Summaries are other people's text: everything is escaped in HTML."""
    environment = Environment(
        loader=PackageLoader("softspoken"),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"toxicity": toxicity, "repr": repr, "chart_data": _chart_data}
    return environment


def _chart_data(charts: dict[str, list[Chart]]) -> dict[str, list[dict[str, Any]]]:
    return {
        group: [{"traces": chart.traces, "layout": chart.layout} for chart in found] for group, found in charts.items()
    }


def _plotly_js() -> str:
    from plotly.offline import get_plotlyjs

    return get_plotlyjs()


def _write(path: Path, text: str) -> Path:
    beside = path.with_name(f".{path.name}.saving")
    beside.write_text(text, encoding="utf-8")
    return beside.replace(path)
