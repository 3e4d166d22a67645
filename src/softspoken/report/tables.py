"""Figures with their intervals → tables, as plain data that the page, the model card and the terminal each lay out."""

from __future__ import annotations

from dataclasses import dataclass

from softspoken.report.measures import (
    BASE,
    DECODINGS,
    HUMAN,
    JUDGES,
    LABELS,
    NO_BREAK,
    OTHER,
    TOXICITY,
    describe_system,
    mark_of,
    measure,
    metrics_of,
    other_judges,
    p_of,
    range_of,
    signed_as,
    slice_label,
    task_of,
    written,
)
from softspoken.tasks.task import Measure
from softspoken.types import Comparison, EvalReport, SliceResult, SystemResult


@dataclass(frozen=True)
class Change:
    """Of a system from the base."""

    text: str
    interval: str
    ratio: str
    """× 0.16 (0.07 to 0.26), for a toxicity; empty otherwise."""
    p: str
    """And n = 71, where the change is over fewer examples than the slice has."""
    mark: str
    """`better` or `worse` where the change is beyond chance and the metric has a good side."""


@dataclass(frozen=True)
class Cell:
    text: str
    interval: str = ""
    change: Change | None = None


@dataclass(frozen=True)
class Head:
    text: str
    note: str = ""


@dataclass(frozen=True)
class Row:
    label: str
    cells: list[Cell]
    note: str = ""
    """A line that explains the label."""
    group: str = ""
    """Rows of one group stand together, under its name."""


@dataclass(frozen=True)
class Table:
    title: str
    corner: str
    """What the first column lists."""
    head: list[Head]
    rows: list[Row]


@dataclass(frozen=True)
class Entry:
    """A row of a table of systems."""

    label: str
    report: EvalReport
    system: SystemResult
    note: str = ""


def decodings(report: EvalReport) -> dict[str, str]:
    """The ways of decoding that the report has, with their titles."""
    return {how: title for how, title in DECODINGS.items() if any(one.decoding == how for one in report.systems)}


def entries(report: EvalReport, decoding: str) -> list[Entry]:
    """Its systems, human first and base after it: what training is measured from."""
    systems = [one for one in report.systems if one.decoding in (decoding, None)]
    systems.sort(key=lambda one: (one.name != HUMAN, one.name != BASE))
    return [Entry(one.name, report, one, describe_system(one.name, report)) for one in systems]


def systems_table(found: list[Entry], decoding: str, metrics: list[str], title: str, slice_name: str = "all") -> Table:
    """One row a system, one column a metric, of those that any of them has."""
    parts = [(entry, part) for entry in found if (part := part_of(entry.system, slice_name))]
    shown = [metric for metric in metrics if any(metric in part.metrics for _, part in parts)]
    named = [next(measure(metric, entry.report) for entry, part in parts if metric in part.metrics) for metric in shown]
    head = [Head(known.label, known.explanation) for known in named]
    rows = [
        Row(entry.label, [_cell(entry, part, metric, decoding, slice_name) for metric in shown], _note(entry, part))
        for entry, part in parts
    ]
    return Table(title, "System", head, rows)


def with_judges(names: list[str], *reports: EvalReport) -> list[str]:
    """`names` with the metrics that hold the other judges' toxicity where JUDGES stands for them."""
    judges = list(dict.fromkeys(metric for report in reports for metric in other_judges(report).values()))
    return [metric for name in names for metric in (judges if name == JUDGES else [name])]


def metrics_table(report: EvalReport, decoding: str, metrics: list[str], title: str, slice_name: str = "all") -> Table:
    """One row a metric, one column a system; human last: what matters is base against the others."""
    columns = [(entry, part) for entry in entries(report, decoding) if (part := part_of(entry.system, slice_name))]
    columns.sort(key=lambda column: column[0].system.name == HUMAN)
    rows = []
    for metric in metrics:
        if any(metric in part.metrics for _, part in columns):
            known = measure(metric, report)
            cells = [_cell(entry, part, metric, decoding, slice_name) for entry, part in columns]
            rows.append(Row(known.label, cells, known.explanation, known.group))
    return Table(title, "Metric", [Head(entry.label, _n(entry, part)) for entry, part in columns], rows)


def slices_table(report: EvalReport, decoding: str, metric: str, slices: list[str]) -> Table:
    """One row a part of the examples, one column a system."""
    columns = entries(report, decoding)
    columns.sort(key=lambda entry: entry.system.name == HUMAN)
    columns = [
        entry for entry in columns if any((p := part_of(entry.system, name)) and metric in p.metrics for name in slices)
    ]
    rows = []
    for name in slices:
        parts = [part_of(entry.system, name) for entry in columns]
        if any(part and metric in part.metrics for part in parts):
            cells = [
                _cell(entry, part, metric, decoding, name) if part else Cell("–")
                for entry, part in zip(columns, parts, strict=True)
            ]
            label, note = slice_label(name, report)
            n = max(part.n for part in parts if part)
            rows.append(Row(label, cells, ", ".join(filter(None, [f"n{NO_BREAK}={NO_BREAK}{n}", note]))))
    return Table(
        measure(metric, report).label,
        task_of(report).words.texts.capitalize(),
        [Head(entry.label) for entry in columns],
        rows,
    )


def system_tables(report: EvalReport, metrics: list[str] | None = None) -> list[Table]:
    """A table of metrics for each way of decoding: what the model card and the terminal show."""
    metrics = metrics or [
        metric for metric in metrics_of(report) if measure(metric, report).group not in _NOT_ON_A_CARD
    ]
    return [metrics_table(report, how, metrics, title) for how, title in decodings(report).items()]


_NOT_ON_A_CARD = (LABELS, OTHER)


def part_of(system: SystemResult, slice_name: str) -> SliceResult | None:
    return SliceResult(system.n, system.metrics) if slice_name == "all" else system.slices.get(slice_name)


def slices_of(report: EvalReport) -> list[str]:
    """`all` and the others in the order they were measured; nothing where there are no parts."""
    parts = dict.fromkeys(name for system in report.systems for name in system.slices)
    return ["all", *parts] if parts else []


# --------------------------------------------------------------------------------------------------------- cells


def _cell(entry: Entry, part: SliceResult, metric: str, decoding: str, slice_name: str) -> Cell:
    interval = part.metrics.get(metric)
    if interval is None:
        return Cell("–")
    known = measure(metric, entry.report)
    ends = range_of(written(known, interval.low), "–", written(known, interval.high))
    change = find_change(entry.report, entry.system.name, decoding, slice_name, metric)
    return Cell(written(known, interval.mean), ends, change_of(change, known, part.n) if change else None)


def find_change(report: EvalReport, system: str, decoding: str, slice_name: str, metric: str) -> Comparison | None:
    key = (BASE, system, decoding, slice_name, metric)
    return next((one for one in report.comparisons if (one.a, one.b, one.decoding, one.slice, one.metric) == key), None)


def change_of(comparison: Comparison, known: Measure, n: int) -> Change:
    """`n`: the examples of the slice."""
    difference, ratio = comparison.difference, comparison.ratio
    fewer = f", n{NO_BREAK}={NO_BREAK}{comparison.n}"
    return Change(
        signed_as(difference.mean, known),
        range_of(signed_as(difference.low, known), "to", signed_as(difference.high, known)),
        f"× {ratio.mean:.2f} ({ratio.low:.2f} to {ratio.high:.2f})" if ratio and known.group == TOXICITY else "",
        p_of(comparison) + (fewer if comparison.n is not None and comparison.n < n else ""),
        mark_of(comparison, known),
    )


def _note(entry: Entry, part: SliceResult) -> str:
    return ", ".join(filter(None, [entry.note, _n(entry, part)]))


def _n(entry: Entry, part: SliceResult) -> str:
    seeds = entry.system.seeds
    n = f"n{NO_BREAK}={NO_BREAK}{part.n}"
    return f"{n}, {seeds}{NO_BREAK}seeds" if seeds > 1 else n
