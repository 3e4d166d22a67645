"""Records → docs/time-to-effect.md and its picture."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.provenance import ROOT
from benchmarks.speed import load
from benchmarks.speed.scaling_page import screenshot
from benchmarks.time_to_effect.arrival import FIFTH, Point, Time, median, ratio, remaining_toxicity
from benchmarks.time_to_effect.runs import Record, point_of, points_of, read_record, time_to_effect

RESULTS = Path(__file__).parent / "results"
PAGE = ROOT / "docs" / "time-to-effect.md"
PICTURE = ROOT / "docs" / "time-to-effect.png"
TRL_DEFAULT = 1.41e-5
GOAL = 10.0
"""Times sooner, of issue 3."""


def read_records(results: Path) -> tuple[Record, list[Record]]:
    """The base's record, and those of the runs: softspoken first, then TRL by learning rate, each by seed."""
    base = read_record(results / "base.json")
    if base is None:
        raise SystemExit(f"nothing was measured yet: {results} has no base.json; run this without `page`")
    found = (read_record(path) for path in results.glob("*-seed*.json"))
    runs = [record for record in found if record and record["dialogues"] == base["dialogues"]]
    return base, sorted(runs, key=lambda one: (_rate(one) or 0.0, one["run"]["seed"]))


def best_rate(searched: list[Record], base: Point) -> float:
    """Of runs with one seed: the learning rate that arrived first or, where none did, that came furthest."""

    def rank(record: Record) -> tuple[float, ...]:
        time = time_to_effect(record, base)
        return (time.censored, remaining_toxicity(points_of(record), base) if time.censored else time.seconds)

    rate: float = min(searched, key=rank)["run"]["learning_rate"]
    return rate


def page(base_record: Record, runs: list[Record]) -> str:
    base, machine = point_of(base_record["point"]), base_record["machine"]
    parts = [
        "# Time to effect",
        "Written by `python -m benchmarks.time_to_effect` from `benchmarks/time_to_effect/results`; not to be edited.",
        f"Seconds of training until mean toxicity on {base_record['dialogues']} dialogues of the embedded validation split "
        f"has fallen to {FIFTH:g} of the base's, decoded greedily and sampled alike, at ROUGE-L no more than one point below "
        f"the base's. {machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads, torch {machine['torch']}; "
        f"commit {', '.join(sorted({record['commit'] for record in runs}))}.",
        _headline(runs, base),
        "![Toxicity against seconds of training](time-to-effect.png)",
        "A star is an arrival. A line that goes below the dashed one without a star has lost its ROUGE-L there.",
        _table(runs, base),
        *_warnings(runs),
        NOTES.format(**runs[0]["defaults"]) if runs else "",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _headline(runs: list[Record], base: Point) -> str:
    """The medians over seeds, of TRL with its default and with its best learning rate, against ours."""
    ours = _times(runs, base, None)
    if not ours:
        return ""
    rows = [
        "| | learning rate | median time to effect | seeds | softspoken is sooner by |",
        "|---|---:|---:|---:|---:|",
    ]
    rows.append(
        f"| softspoken, its defaults | {runs[0]['defaults']['learning_rate']:g} | {median(ours)} | {len(ours)} | |"
    )
    first_seed = [record for record in runs if record["run"]["side"] == "legacy" and record["run"]["seed"] == 0]
    rates = {"its defaults": TRL_DEFAULT}
    if first_seed and (best := best_rate(first_seed, base)) != TRL_DEFAULT:
        rates["best learning rate of the grid"] = best
    goal = ""
    for words, rate in rates.items():
        if not (theirs := _times(runs, base, rate)):
            continue
        found = ratio(median(ours), median(theirs))
        rows.append(f"| TRL 0.11.4, {words} | {rate:g} | {median(theirs)} | {len(theirs)} | {found or '–'} |")
        reached = found is not None and found.value >= GOAL
        goal += f" Against TRL with {words}: {'reached' if reached else 'not shown' if found and found.at_least else 'missed'}."
    return "\n".join(rows) + f"\n\nThe goal is {GOAL:.0f}× sooner.{goal}"


def _table(runs: list[Record], base: Point) -> str:
    rows = ["| | learning rate | seed | time to effect | steps until then | s a step | trained | toxicity left |"]
    rows.append("|---|---:|---:|---:|---:|---:|---:|---:|")
    for record in runs:
        points, time = points_of(record), time_to_effect(record, base)
        step = next((str(point.step) for point in points if not time.censored and point.seconds == time.seconds), "–")
        pace = f"{record['seconds'] / record['steps']:.1f}" if record["steps"] else "–"
        ended = f"{record['seconds']:.0f} s" + (", diverged" if record["diverged"] else "")
        left = remaining_toxicity(points, base)
        fields = [
            *(
                _side(record) + _mark(record),
                f"{_rate(record) or record['defaults']['learning_rate']:g}",
                str(record["run"]["seed"]),
                str(time),
                step,
                pace,
                ended,
            ),
            f"{left:.2f}" if left < float("inf") else "–",
        ]
        rows.append(f"| {' | '.join(fields)} |")
    return "\n".join(rows)


def _warnings(runs: list[Record]) -> list[str]:
    loaded = [record for record in runs if record["others"] > load.LIMIT]
    if not loaded:
        return []
    most = max(record["others"] for record in loaded)
    return [
        f"\\* While such a run went on, anything else took more than {load.LIMIT:.0%} of the machine "
        f"(up to {most:.0%}): its seconds are too long."
    ]


def _mark(record: Record) -> str:
    return " \\*" if record["others"] > load.LIMIT else ""


def _side(record: Record) -> str:
    return "softspoken" if record["run"]["side"] == "softspoken" else "TRL 0.11.4"


def _rate(record: Record) -> float | None:
    rate: float | None = record["run"]["learning_rate"]
    return rate


def _times(runs: list[Record], base: Point, rate: float | None) -> list[Time]:
    return [time_to_effect(record, base) for record in runs if _rate(record) == rate]


# -------------------------------------------------------------------------------------------------------- picture


def draw(base_record: Record, runs: list[Record], picture: Path) -> None:
    """Toxicity against seconds of training, greedy and sampled; a line for each run, a star where it has arrived."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    from softspoken.report.charts import PALETTE

    base = point_of(base_record["point"])
    rates = list(dict.fromkeys(_rate(record) for record in runs))
    named: Counter[float | None] = Counter()
    figure = make_subplots(
        1, 2, subplot_titles=["decoded greedily", "sampled at temperature 1"], horizontal_spacing=0.05
    )
    for record in runs:
        rate, points, time = _rate(record), points_of(record), time_to_effect(record, base)
        label = _side(record) + (f", learning rate {rate:g}" if rate else "")
        colour = PALETTE[rates.index(rate) % len(PALETTE)]
        for column, decoding in enumerate(("greedy", "sampled"), start=1):
            x = [point.seconds for point in points]
            y = [getattr(point, decoding).toxicity for point in points]
            shown = {"name": label, "legendgroup": label, "showlegend": column == 1 and not named[rate]}
            line: dict[str, Any] = {"color": colour, "width": 2}
            figure.add_trace(
                go.Scatter(x=x, y=y, mode="lines+markers", marker={"size": 4}, line=line, **shown), 1, column
            )
            if not time.censored:
                star = {"symbol": "star", "size": 15, "color": colour}
                at = y[x.index(time.seconds)]
                figure.add_trace(
                    go.Scatter(x=[time.seconds], y=[at], mode="markers", marker=star, showlegend=False), 1, column
                )
        named[rate] += 1
    for column, figures in enumerate((base.greedy, base.sampled), start=1):
        figure.add_hline(figures.toxicity, line={"color": "#dd7a1f", "dash": "dot"}, row=1, col=column)
        figure.add_hline(FIFTH * figures.toxicity, line={"color": "#444", "dash": "dash"}, row=1, col=column)
    ticks = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000]
    figure.update_xaxes(
        type="log", tickvals=ticks, ticktext=[str(tick) for tick in ticks], title_text="seconds of training"
    )
    figure.update_yaxes(rangemode="tozero")
    figure.update_yaxes(title_text="mean toxicity (dotted: base; dashed: a fifth)", row=1, col=1)
    figure.update_layout(template="plotly_white", width=1600, height=620, margin={"t": 80, "b": 60, "l": 60, "r": 20})
    figure.update_layout(legend={"orientation": "h", "y": 1.15}, font={"size": 12})
    html = ROOT / ".work" / "time_to_effect" / "time-to-effect.html"
    html.parent.mkdir(parents=True, exist_ok=True)
    figure.write_html(html, include_plotlyjs=True, config={"staticPlot": True})
    screenshot(html, picture)


def write_page(results: Path) -> None:
    """And to the terminal; results that lie elsewhere than the project's own go there alone."""
    base, runs = read_records(results)
    text = page(base, runs)
    print(text)
    if results.resolve() != RESULTS.resolve():
        draw(base, runs, results / PICTURE.name)
        return
    PAGE.write_text(text, encoding="utf-8")
    draw(base, runs, PICTURE)


NOTES = """\
## How it is measured

- **Alike on both sides**: the embedded summarizer, the rank, scale and projections of its LoRA adapter, the dialogues of the train
  split in the same order, the prompts' token ids, the reward (softspoken's default one, by its own code), the summaries
  sampled a step ({batch_size} dialogues, {samples_per_prompt} of each), their longest length, the machine and all its cores.
- **softspoken** is `softspoken train` with no setting changed: its adapter lies where `--adapter_scope {adapter_scope}` puts it, and it makes {ppo_epochs} pass(es)
  over the samples.
  **TRL** is 0.11.4's `PPOTrainer` with
  `AutoModelForSeq2SeqLMWithValueHead` as public notebooks use it: the adapter in encoder and decoder, mini-batches of 8, 4 epochs, its adaptive KL control, its
  own defaults elsewhere. It generates the whole batch at once, which is faster than its default.
- **Time** is that of sampling, scoring and the update, step by step (`time/step` in ours); start-up, saving and evaluation do
  not count.
- **Snapshots** are evaluated whenever the steps have grown by 15 %: greedily, and with one sample of each dialogue, judged by
  the embedded classifier. A run has arrived at the first snapshot that meets the condition in both and whose next one
  meets it too.
- **A run that has not arrived** when the cap is reached is censored: its time is given as longer than what it was trained
  for, or than the cap where it diverged, and ranks after every arrival. Where the median is censored, the ratio is
  a lower bound. TRL's learning rate is searched with seed 0, on the same dialogues; the search itself costs TRL no time here.
- **Toxicity left** is the smallest share of the base's toxicity, the worse of the two ways of decoding, at a snapshot that
  had kept its ROUGE-L."""
