"""Figures → docs/speed.md, and the same tables on the terminal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from benchmarks.provenance import ROOT
from benchmarks.speed.cells import MICRO_BATCH, MICRO_BATCH_TOKENS, Cell, Scope, read
from benchmarks.speed.figures import Figure, Results, legacy_of, mean
from benchmarks.speed.scaling_page import scaling_section

RESULTS = Path(__file__).parent / "results"
PAGE = ROOT / "docs" / "speed.md"

SCOPES = {"all": "adapter everywhere", "decoder": "adapter in the decoder"}
SIDES = {"softspoken": "softspoken", "legacy": "TRL 0.11.4", "transformers": "transformers' `generate` alone"}
PHASES = ["sample", "reference", "score", "update", "other"]
HEADER = [
    *("", "s a step", *PHASES, "samples/s", "tokens/s", "padding", "peak GB"),
    *("× TRL everywhere", "× TRL same scope", "× floor", "n"),
]


FLOOR, MEMORY = 2.0, 0.45
"""Goals of issue 3 for the main comparison on a CPU: times its floor, and share of TRL's peak memory, at most."""
FASTER: dict[Scope, float] = {"all": 2.3, "decoder": 5.0}
"""Times, than TRL with its adapter everywhere."""
GPU_FASTER, GPU_DECODING = 8.0, 12.0
"""On a GPU: times, than TRL, and than transformers' eager generate."""
Check = tuple[str, str, str, bool]
"""What is judged, its goal, what was measured, whether that meets it."""


def table(results: Results, cells: list[Cell]) -> str:
    rows = [HEADER, ["---"] + ["---:"] * (len(HEADER) - 1)]
    rows += [_row(results, cell) for cell in cells]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(results: Results, cell: Cell) -> list[str]:
    seconds = results.seconds(cell)
    generated = cell.batch * cell.new_tokens
    sampling = results.phase(cell, "sample")
    alone = cell.side == "transformers"  # it does not train: there is no step to speak of
    return [
        name_of(cell),
        _interval(seconds),
        *(_number(results.phase(cell, phase)) for phase in PHASES),
        "–" if alone else f"{cell.batch / seconds.mean:.3g}",
        f"{generated / sampling:.3g}" if sampling else "–",
        f"{results.padding_share(cell):.0%}",
        f"{results.peak(cell) / 1e9:.2f}",
        *(_against(results, cell, legacy_of(cell, scope)) for scope in ("all", cell.scope)),
        "–" if alone else _times(results.times_floor(cell)),
        str(seconds.n),
    ]


def _against(results: Results, cell: Cell, legacy: Cell) -> str:
    if cell.side == "transformers":
        return "–"
    return "1" if cell == legacy else _times(results.times_faster(cell, legacy))


def name_of(cell: Cell) -> str:
    if cell.side == "transformers":
        return SIDES[cell.side]
    loop = ", one dialogue at a time" if cell.generation == "one_at_a_time" else ""
    return f"{SIDES[cell.side]}, {SCOPES[cell.scope]}{loop}"


def title_of(cell: Cell) -> str:
    epochs = f"{cell.epochs} epoch{'s' if cell.epochs > 1 else ''}"
    where = f", {cell.dtype} on the GPU" if cell.device == "cuda" else ""
    return f"{cell.model}, batch {cell.batch}, {epochs}{where}"


def tables(results: Results) -> str:
    """A table for each kind of work, in the order in which they were measured."""
    by_title: dict[str, list[Cell]] = {}
    for cell in results.cells():
        by_title.setdefault(title_of(cell), []).append(cell)
    order = {"softspoken": 0, "legacy": 1, "transformers": 2}
    parts = []
    for title, cells in by_title.items():
        ordered = sorted(cells, key=lambda cell: (order[cell.side], cell.generation != "batched", cell.scope))
        measured = f"softspoken at {', '.join(results.commits(cells))}."
        parts.append(f"### {title}\n\n{table(results, ordered)}\n\n{measured}")
    return "\n\n".join(parts)


def goals(results: Results) -> str:
    """Each goal of the issue beside what was measured, for the work there are figures of."""
    rows = ["| work | adapter | | goal | measured | |", "|---|---|---|---:|---:|---|"]
    for cell in sorted(results.cells(), key=lambda cell: (cell.model, cell.dtype, cell.scope)):
        if cell.side == "softspoken" and (cell.device == "cuda" or _is_main(cell)):
            for what, aim, value, met in _checks(results, cell):
                verdict = "met" if met else "**missed**"
                rows.append(f"| {title_of(cell)} | {SCOPES[cell.scope]} | {what} | {aim} | {value} | {verdict} |")
    return "\n".join(rows)


def _is_main(cell: Cell) -> bool:
    return cell == Cell("softspoken", model=cell.model, scope=cell.scope)


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
        checks.append(("times its floor", f"≤ {FLOOR}", _times(floor), floor.mean <= FLOOR))
    if results.of(legacy):
        memory = results.peak(cell) / results.peak(legacy)
        checks.append(("peak memory, of TRL's", f"≤ {MEMORY:.0%}", f"{memory:.0%}", memory <= MEMORY))
    return checks


def _at_least(what: str, goal: float, found: Figure | None) -> list[Check]:
    return [(what, f"≥ {goal}", _times(found), found.mean >= goal)] if found else []


def write_page() -> None:
    cpu, gpu, scaling = (read(RESULTS / f"{name}.jsonl") for name in ("cpu", "cuda", "scaling"))
    PAGE.write_text(page(Results(cpu), Results(gpu), scaling_section(scaling)), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")


def page(cpu: Results, gpu: Results, scaling: str) -> str:
    sections = [INTRODUCTION]
    if cpu.machine:
        sections += [f"## On a CPU\n\n{_provenance(cpu)}", f"### Goals\n\n{goals(cpu)}", tables(cpu)]
    if gpu.machine:
        sections += [f"## On a GPU\n\n{_provenance(gpu)}", f"### Goals on a GPU\n\n{goals(gpu)}", tables(gpu)]
    else:
        sections.append(f"## On a GPU\n\n{NO_GPU}")
    if scaling:
        sections.append(f"## Scaling\n\n{scaling}")
    sections.append(METHOD)
    return "\n\n".join(sections) + "\n"


def _provenance(results: Results) -> str:
    machine = results.machine or {}
    memory = f"{machine['memory_gib']} GiB"
    gpu = f"{machine['gpu']}; " if machine.get("gpu") else ""
    lines = [
        f"Machine: {gpu}{machine['cpu']}, {machine['cores']} cores ({machine['vector']}), {memory}; {machine['threads']} "
        f"threads; torch {machine['torch']} with {machine['blas']}."
    ]
    for side, versions in sorted(results.versions().items()):
        lines.append(f"{SIDES[side]}: {', '.join(f'{name} {version}' for name, version in versions.items())}.")
    rates = [
        f"{model} {dtype} {_with_range(mean(seen), lambda rate: f'{rate / 1e9:.0f}')} GFLOP/s"
        for (model, dtype), seen in sorted(results.rates().items())
    ]
    lines.append(f"Rate of matrix products on the models' shapes: {', '.join(rates) or 'not measured'}.")
    lines.append(f"Samples dropped for other load: {results.dropped}.")
    return "\n".join(f"- {line}" for line in lines)


def _interval(figure: Figure) -> str:
    return _with_range(figure, lambda value: f"{value:.3g}" if value < 100 else f"{value:.0f}")


def _times(figure: Figure | None) -> str:
    return "–" if figure is None else _with_range(figure, lambda value: f"{value:.2f}")


def _with_range(figure: Figure, form: Callable[[float], str]) -> str:
    """One sample has no interval."""
    return form(figure.mean) + (f" ({form(figure.low)}–{form(figure.high)})" if figure.n > 1 else "")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}" if value < 100 else f"{value:.0f}"


INTRODUCTION = """# Speed

What a training step costs with softspoken and with TRL 0.11.4's `PPOTrainer`, the last one that takes encoder–decoder
models: the same work, on the same machine, in turn. Written by `.venv/bin/python -m benchmarks.speed page` from
`benchmarks/speed/results/`; `benchmarks/speed/README.md` says how to measure again."""

NO_GPU = """Not measured: there was no GPU. On a machine with one, `.venv/bin/python -m benchmarks.speed --device cuda` measures
flan-t5-base, batch 64, 60 new tokens, in float32 and bfloat16 — sampling against transformers' eager `generate`, the step
against TRL on the same card — and writes it here."""

METHOD = f"""## What is measured

- **The work.** FLAN-T5's architectures with random weights and its 32,128 logits. Prompts are random token ids, 151 on
  average and 382 at most, as SAMSum's dialogues have; each is answered with 48 sampled tokens (60 on a GPU). The end of
  sequence is never drawn, so the work is the same on every side and in every round. LoRA of rank 16 on q and v,
  mini-batches of 8 (16 on a GPU). On a CPU ours work through a mini-batch in pieces of similar length (the same gradient): at most
  {MICRO_BATCH_TOKENS:,} tokens with the adapter everywhere, {MICRO_BATCH} rows with it in the decoder; TRL takes a whole one, as it is used. Scoring
  the texts with a classifier is left out: it costs both sides the same.
- **A step** is softspoken's `generate_rollout`, `build_experience` and `update`, as `train.py` calls them; for TRL it is
  `generate`, decoding to text, and `step`. *reference* is our pass with the adapter off; in TRL's row it is `forward_pass`,
  which also computes the old log-probabilities that we record while sampling. *other* is what is left of the step.
- **TRL** generates the whole batch at once (its own default is four at a time) or, where the row says
  so, one dialogue at a time as the notebooks do. *everywhere* is TRL as people run it; *same scope* has its adapter on the
  same modules as ours. Our process keeps freed memory and, on AMD, takes other kernels of MKL, as `softspoken train` does
  (`src/softspoken/models/cpu.py`); TRL's has neither.
- **Turns.** The sides take one step each in turn, every other round backwards. While one works the others sleep. Processes
  live through all rounds and warm up first, except for flan-t5-base and batch 64, where each step has its own process. All
  cores are used. A sample during which anything else took more than 5 % of the machine is dropped and taken again.
- **Intervals** are 95 % by Student's t (of ratios: paired by round, in the logarithm); with two samples their range; with
  one there is none.
- **Padding** is the share of positions computed by the encoder, in all passes of a step, that hold no token. **Peak GB** is
  the process's high-water mark (`VmHWM`) or, on a GPU, of what torch holds of its memory. **tokens/s** are generated tokens over the
  seconds of sampling.
- **The floor** is the count of floating-point operations that the step needs, given where the adapter lies, over the rate
  of `torch.mm` on this model's shapes (`benchmarks/speed/floor.py` counts, and says what it leaves out). The rate is measured
  before each step of ours (on a GPU before the first), as the speed of a shared machine drifts, and counts for that round of the
  scope, TRL's steps included."""
