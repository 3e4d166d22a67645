"""Figures → docs/speed.md, as speed.md.j2 has it, and the same tables on the terminal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from benchmarks.pages import MISSING, draw, fill, plural
from benchmarks.provenance import ROOT
from benchmarks.records import read_lines
from benchmarks.speed.cells import MICRO_BATCH, MICRO_BATCH_TOKENS, Cell, Scope
from benchmarks.speed.figures import Figure, Results, legacy_of, mean
from benchmarks.speed.scaling_page import figure, scaling_section

RESULTS = Path(__file__).parent / "results"
PAGE = ROOT / "docs" / "speed.md"

SCOPES = {"all": "adapter everywhere", "decoder": "adapter in the decoder"}
SIDES = {"softspoken": "softspoken", "legacy": "TRL 0.11.4", "transformers": "transformers' `generate` alone"}
PHASES = ["sample", "reference", "score", "update", "other"]
FLOOR, MEMORY = 2.0, 0.45
"""Goals of issue 3 for the main comparison on a CPU: times its floor, and share of TRL's peak memory, at most."""
FASTER: dict[Scope, float] = {"all": 2.3, "decoder": 5.0}
"""Times, than TRL with its adapter everywhere."""
GPU_FASTER, GPU_DECODING = 8.0, 12.0
"""On a GPU: times, than TRL, and than transformers' eager generate."""
Check = tuple[str, str, str, bool]
"""What is judged, its goal, what was measured, whether that meets it."""


def against(results: Results, cell: Cell, scope: Scope) -> str:
    """How many times faster than TRL with its adapter where `scope` says; what does not train has no step to speak of."""
    legacy = legacy_of(cell, scope)
    return (
        MISSING if cell.side == "transformers" else "1" if cell == legacy else times(results.times_faster(cell, legacy))
    )


def name_of(cell: Cell) -> str:
    if cell.side == "transformers":
        return SIDES[cell.side]
    loop = ", one dialogue at a time" if cell.generation == "one_at_a_time" else ""
    return f"{SIDES[cell.side]}, {SCOPES[cell.scope]}{loop}"


def title_of(cell: Cell) -> str:
    where = f", {cell.dtype} on the GPU" if cell.device == "cuda" else ""
    return f"{cell.model}, batch {cell.batch}, {plural(cell.epochs, 'epoch')}{where}"


def by_title(results: Results) -> dict[str, list[Cell]]:
    """The cells of each kind of work, in the order in which they were measured; of one kind ours first."""
    found: dict[str, list[Cell]] = {}
    for cell in results.cells():
        found.setdefault(title_of(cell), []).append(cell)
    order = {"softspoken": 0, "legacy": 1, "transformers": 2}
    ranks = {cell: (order[cell.side], cell.generation != "batched", cell.scope) for cell in results.cells()}
    return {title: sorted(cells, key=ranks.__getitem__) for title, cells in found.items()}


def goals(results: Results) -> list[list[str]]:
    """Each goal of the issue beside what was measured, for the work there are figures of."""
    rows = []
    ours = [cell for cell in results.cells() if cell.side == "softspoken"]
    for cell in sorted(ours, key=lambda cell: (cell.model, cell.dtype, cell.scope)):
        if cell.device == "cuda" or cell == Cell("softspoken", model=cell.model, scope=cell.scope):
            for *check, met in _checks(results, cell):
                rows.append([title_of(cell), SCOPES[cell.scope], *check, "met" if met else "**missed**"])
    return rows


def _checks(results: Results, cell: Cell) -> list[Check]:
    legacy, on_gpu = legacy_of(cell, "all"), cell.device == "cuda"
    eager = replace(cell, side="transformers", scope="all")
    checks = _at_least(
        "times faster than TRL", GPU_FASTER if on_gpu else FASTER[cell.scope], results.times_faster(cell, legacy)
    )
    if on_gpu:
        decoding = results.times_faster(cell, eager, phase="sample")
        return checks + _at_least("times the tokens/s of transformers' eager `generate`", GPU_DECODING, decoding)
    if floor := results.times_floor(cell):
        checks.append(("times its floor", f"≤ {FLOOR}", times(floor), floor.mean <= FLOOR))
    if results.of(legacy):
        memory = results.peak(cell) / results.peak(legacy)
        checks.append(("peak memory, of TRL's", f"≤ {MEMORY:.0%}", f"{memory:.0%}", memory <= MEMORY))
    return checks


def _at_least(what: str, goal: float, found: Figure | None) -> list[Check]:
    return [(what, f"≥ {goal}", times(found), found.mean >= goal)] if found else []


def write_page() -> None:
    cpu, scaling = (read_lines(RESULTS / f"{name}.jsonl") for name in ("cpu", "scaling"))
    PAGE.write_text(page(Results(cpu), by_card(), scaling_section(scaling)), encoding="utf-8")
    draw(figure(scaling), PAGE.with_name("scaling.png"))
    print(f"wrote {PAGE.relative_to(ROOT)}")


def by_card() -> list[Results]:
    """What was measured on each GPU, the latest first: cuda.jsonl, cuda-h100.jsonl, …"""
    found = [Results(read_lines(path)) for path in RESULTS.glob("cuda*.jsonl")]
    return sorted(found, key=lambda results: max(each["started"] for each in results.samples.values()), reverse=True)


def page(cpu: Results, cards: list[Results], scaling: str) -> str:
    limits = {"MICRO_BATCH": MICRO_BATCH, "MICRO_BATCH_TOKENS": MICRO_BATCH_TOKENS}
    return fill(Path(__file__).with_name("speed.md.j2"), **globals() | limits, cpu=cpu, cards=cards, scaling=scaling)


def rates(results: Results) -> str:
    """Of matrix products, by model and precision."""
    found = {" ".join(key): mean(seen) for key, seen in sorted(results.rates().items())}
    return ", ".join(f"{key} {with_range(rate, lambda one: f'{one / 1e9:.0f}')} GFLOP/s" for key, rate in found.items())


def three_digits(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def times(figure: Figure | None) -> str:
    return MISSING if figure is None else with_range(figure, lambda value: f"{value:.2f}")


def with_range(figure: Figure, form: Callable[[float], str]) -> str:
    """One sample has no interval."""
    return form(figure.mean) + (f" ({form(figure.low)}–{form(figure.high)})" if figure.n > 1 else "")


def number(value: float | None) -> str:
    return MISSING if value is None else f"{value:.2f}" if value < 100 else f"{value:.0f}"
