"""Several runs' folders → one page: a verdict each, their evaluations side by side, their curves over each other, and in what
their configurations differ."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from softspoken.report.charts import PALETTE, Chart, Styles, plane, system_styles
from softspoken.report.curves import overlaid_curves
from softspoken.report.measures import BASE, DECODINGS, HUMAN, overview, slice_label, task_of
from softspoken.report.page import Charts, render
from softspoken.report.report import REPORT_FILE, Run, evaluated_on, naming_what_is_damaged, read_run, titles
from softspoken.report.tables import Entry, Table, entries, part_of, systems_table, with_judges
from softspoken.report.verdict import Verdict, judged_systems, remarks, verdicts
from softspoken.storage.run_folder import saying_what_is_wrong, write_file
from softspoken.tasks.task import Words
from softspoken.types import EvalReport, InputError, counted

UNTOLD = ("output", "overwrite", "resume")
"""Settings that differ by their nature."""


@dataclass(frozen=True)
class Compared:
    """One run's part of the page."""

    name: str
    link: str
    """Its own report, as seen from the page; empty where it has none."""
    facts: str
    verdicts: list[Verdict]
    alarms: list[str]
    """In red, as on its own page."""
    remarks: list[str]


def compare(folders: Sequence[Path], output: Path) -> Path:
    """Write the page. Raises InputError for a folder that holds neither a run nor an evaluation."""
    if len(folders) < 2:
        raise InputError(
            "compare needs two folders of runs or evaluations, or more; for one there is softspoken report"
        )
    twice = [str(folder) for folder in folders if [one.resolve() for one in folders].count(folder.resolve()) > 1]
    if twice:
        raise InputError(f"{twice[0]} is given twice; give each run once")
    _require_free(output)
    runs = dict(zip(run_names(folders), map(_read, folders), strict=True))
    with naming_what_is_damaged(" or ".join(map(str, folders))):
        page = _page(runs, output)
    with saying_what_is_wrong(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        return write_file(output, page)


def _read(folder: Path) -> Run:
    with naming_what_is_damaged(folder):
        return read_run(folder)


def _page(runs: dict[str, Run], output: Path) -> str:
    reports = {name: run.report for name, run in runs.items() if run.report}
    tasks = {name: run.task for name, run in runs.items()}
    first = next(iter(tasks.values()))
    if other := next((name for name, task in tasks.items() if task.objective.metric != first.objective.metric), None):
        raise InputError(
            f"{other} is of task {tasks[other].name} and {next(iter(tasks))} of {first.name}; compare runs of one task"
        )
    colours = dict(zip(runs, PALETTE * len(runs), strict=False))
    charts: Charts = {
        "planes": _planes(reports, _styles(reports, colours)),
        "curves": overlaid_curves(
            {name: run.metrics for name, run in runs.items() if run.metrics}, colours, first.words
        ),
    }
    return render(
        "compare.html.j2",
        charts,
        runs=[_compared(name, run, output) for name, run in runs.items()],
        titles=titles(next(iter(reports.values()))) if reports else {},
        one=first.words.text,
        remarks=_doubts(reports),
        systems=list(_tables(reports)),
        differences=_differences(runs),
    )


def _require_free(output: Path) -> None:
    """Only a page of this kind is replaced."""
    with saying_what_is_wrong(output):
        if output.is_dir():
            raise InputError(f"output {output} is a folder; give the name of a file, such as {output / 'compare.html'}")
        if output.is_file():
            with output.open("rb") as file:
                if b"softspoken comparison</title>" not in file.read(100_000):
                    raise InputError(f"output {output} is there and no comparison of softspoken's; give another name")


def run_names(folders: Sequence[Path]) -> list[str]:
    """The folders' names, as many parts of their paths as it takes to tell them apart."""
    parts = [folder.resolve().parts for folder in folders]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len({*names}) == len(names):
            return names
    raise AssertionError("two folders of one path")


def _compared(name: str, run: Run, output: Path) -> Compared:
    page = run.folder / REPORT_FILE
    facts = [counted(len(run.metrics), "step", "steps")] if run.metrics else []
    facts += [f"evaluated on {evaluated_on(run.report)}"] if run.report else []
    return Compared(
        name,
        _link(page, output.parent) if page.is_file() else "",
        ", ".join(facts),
        verdicts(run.report) if run.report else [],
        run.report.alarms if run.report else [],
        remarks(run.report) if run.report else [],
    )


def _link(page: Path, folder: Path) -> str:
    """Relative, as a browser understands it: nothing in a folder's name is a scheme, a query or a fragment."""
    return "./" + quote(Path(os.path.relpath(page, folder)).as_posix())


def _doubts(reports: dict[str, EvalReport]) -> list[str]:
    """Why figures of one run may not stand beside another's."""
    found = []
    words = task_of(next(iter(reports.values()))).words if reports else Words()
    for what, values in {
        f"on different {words.texts}": {name: evaluated_on(report) for name, report in reports.items()},
        "by different judges": {name: ", ".join(report.judges[:1]) for name, report in reports.items()},
        f"with {words.responses} of different greatest length": {
            name: f"{limit} tokens"
            for name, report in reports.items()
            if (limit := report.config.get("max_new_tokens"))
        },
    }.items():
        if len({*values.values()}) > 1:
            said = "; ".join(f"{name}: {value}" for name, value in values.items())
            found.append(
                f"These runs were evaluated {what}, so their figures cannot be set against each other ({said})."
            )
    return found


def _entries(reports: dict[str, EvalReport], decoding: str) -> list[Entry]:
    """Every run's systems by `run: system`; references, a base and alternatives that are the same in all of them stand once."""
    found: list[Entry] = []
    for name, report in reports.items():
        for entry in entries(report, decoding):
            shared = all(_has_same(other, entry) for other in reports.values())
            if not shared:
                found.append(Entry(f"{name}: {entry.label}", report, entry.system, entry.note))
            elif report is next(iter(reports.values())):
                found.append(entry)
    return sorted(found, key=lambda entry: (entry.system.name != HUMAN, entry.system.name != BASE))


def _has_same(report: EvalReport, entry: Entry) -> bool:
    system = entry.system
    return system.name not in judged_systems(report) and any(
        (one.name, one.decoding, one.metrics) == (system.name, system.decoding, system.metrics)
        for one in report.systems
    )


def _tables(reports: dict[str, EvalReport]) -> Iterator[Table]:
    """For each way of decoding the whole set, and where all runs have it the part that tells most."""
    if not reports:
        return
    report = next(iter(reports.values()))
    metrics = with_judges(overview(report), *reports.values())
    part = task_of(report).telling_slice
    for decoding, title in DECODINGS.items():
        found = _entries(reports, decoding)
        if any(entry.system.decoding for entry in found):
            yield systems_table(found, decoding, metrics, title)
            if part and any(part_of(entry.system, part) for entry in found):
                what = f"{slice_label(part, report)[0].lower()} {task_of(report).words.texts} alone"
                yield systems_table(found, decoding, metrics, f"{title}, {what}", part)


def _planes(reports: dict[str, EvalReport], styles: Styles) -> list[Chart]:
    found = {decoding: _entries(reports, decoding) for decoding in DECODINGS}
    return [
        chart
        for decoding, systems in found.items()
        if any(entry.system.decoding for entry in systems)
        for chart in plane(systems, DECODINGS[decoding], styles)
    ]


def _styles(reports: dict[str, EvalReport], colours: dict[str, str]) -> Styles:
    """A run's systems in the colour of its curves, told apart by their symbols; what is in all runs as in a report."""
    styles = system_styles([one.name for report in reports.values() for one in report.systems])
    return styles | {
        f"{name}: {one.name}": (colours[name], styles[one.name][1])
        for name, report in reports.items()
        for one in report.systems
    }


def _differences(runs: dict[str, Run]) -> list[tuple[str, list[str]]]:
    """Settings, and versions of packages, that are not the same in all runs."""
    configs = [_told(run) for run in runs.values()]
    names = dict.fromkeys(name for config in configs for name in config if name not in UNTOLD)
    rows = [(name, [str(config.get(name, "–")) for config in configs]) for name in names]
    return [(name, values) for name, values in rows if len({*values}) > 1]


def _told(run: Run) -> dict[str, Any]:
    config = run.record.get("config") or (run.report.config if run.report else {})
    versions = run.record.get("versions") or (run.report.versions if run.report else {})
    return {**config, **{f"{package} (version)": version for package, version in versions.items()}}
