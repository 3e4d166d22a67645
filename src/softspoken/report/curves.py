"""metrics.jsonl → the curves of a run, or of several over each other, as charts and as a table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from html import escape
from typing import Any

from softspoken.report.charts import PALETTE, Chart, short
from softspoken.tasks.task import Words

MOST_POINTS = 2_000
"""Of one curve; longer runs are drawn every so many steps."""
MOST_ROWS = 100
"""Of the table of a run's curves."""
SMOOTH_FROM = 20
"""Steps from which a curve's running mean is drawn too."""
Metrics = list[dict[str, float]]

ALIKE, REPLACED = "groups/alike", "groups/replaced"
CURVES = [
    ("objective/score", "Reward", "mean score of the sampled {responses}; higher is better"),
    ("objective/toxicity", "Toxicity", "1 − the judge's reward, of the sampled {responses}; lower is better"),
    ("objective/kl", "KL to the reference", "nats a token (k1), with its standard error"),
    ("objective/entropy", "Entropy", "nats, of the next-token distribution; collapse shows as a fall to 0"),
    ("ppo/policy/clip_fraction", "Clip fraction", "share of tokens whose ratio was clipped"),
    ("tokens/response_mean", "Length", "tokens of a sampled {response}"),
    ("ppo/grad_norm", "Gradient norm", "L2, before clipping"),
    ("ppo/value/explained_variance", "Explained variance", "of the returns, by the value head; 1 is perfect"),
    (
        ALIKE,
        "Scored alike",
        "{texts} of a step whose sampled {responses} all scored the same: without a value head they leave the update",
    ),
    ("time/step", "Time", "seconds a step"),
]
COMPARED = CURVES[:7]
"""Those that say something about a run beside another."""


def curves(metrics: Metrics, words: Words) -> list[Chart]:
    """One chart for each metric that the run logged; a step without it (all its responses too short) is a gap."""
    return [_curve(metrics, *curve) for curve in _named(CURVES, words) if any(curve[0] in row for row in metrics)]


def _named(curves: list[tuple[str, str, str]], words: Words) -> list[tuple[str, str, str]]:
    """With the task's words in their notes."""
    return [(key, title, note.format(**asdict(words))) for key, title, note in curves]


def _curve(metrics: Metrics, key: str, title: str, note: str) -> Chart:
    traces = list(_lines(metrics, key, title, PALETTE[0]))
    if key == "objective/kl":
        traces = _band(metrics, key, "objective/kl_stderr") + traces
    if key == "objective/score":
        terms = sorted({name for row in metrics for name in row if name.startswith("objective/score/")})
        if len(terms) > 1:  # each reward by its own name: hacking one shows in the others
            for place, term in enumerate(terms):
                name = term.removeprefix("objective/score/")
                traces += _lines(metrics, term, name, PALETTE[1:][place % (len(PALETTE) - 1)], dash="dot")
    if key == ALIKE and any(
        REPLACED in row for row in metrics
    ):  # by dynamic sampling, before what is still alike was counted
        traces += _lines(metrics, REPLACED, "replaced", PALETTE[1], dash="dot")
    legend = len({trace["name"] for trace in traces}) > 1 and key != "objective/kl"
    return Chart(title, note, in_words(metrics, key, title), traces, over_steps(legend))


def overlaid_curves(runs: dict[str, Metrics], colours: dict[str, str], words: Words) -> list[Chart]:
    """The same for several runs: one line a run, in its colour."""
    charts = []
    for key, title, note in _named(COMPARED, words):
        have = {name: metrics for name, metrics in runs.items() if any(key in row for row in metrics)}
        if have:
            traces = [line for name, metrics in have.items() for line in _lines(metrics, key, name, colours[name])]
            said = " ".join(in_words(metrics, key, f"{title} of {name}") for name, metrics in have.items())
            charts.append(Chart(title, note.removesuffix(", with its standard error"), said, traces, over_steps(True)))
    return charts


def curve_rows(metrics: Metrics) -> tuple[list[str], list[list[str]]]:
    """The same as a table: step and every curve's value, every so many steps and the last one."""
    shown = [(key, title) for key, title, _ in CURVES if any(key in row for row in metrics)]
    stride = max(1, -(-len(metrics) // MOST_ROWS))
    rows = metrics[::stride] + (metrics[-1:] if (len(metrics) - 1) % stride else [])
    table = [[f"{row['step']:g}", *(f"{row[key]:.4g}" if key in row else "–" for key, _ in shown)] for row in rows]
    return ["Step", *(title for _, title in shown)], table


def smoothing(steps: int) -> int:
    """Steps in the running mean of a run so long; 0 where it has none."""
    return max(3, steps // 30 * 2 + 1) if steps >= SMOOTH_FROM else 0


def in_words(metrics: Metrics, key: str, title: str) -> str:
    known = [(row["step"], row[key]) for row in metrics if key in row]
    low, high = min(value for _, value in known), max(value for _, value in known)
    (first, start), (last, end) = known[0], known[-1]
    return (
        f"{title} from {start:.3g} at step {first:g} to {end:.3g} at step {last:g}, between {low:.3g} and {high:.3g}."
    )


def over_steps(legend: bool) -> dict[str, Any]:
    return {"xaxis": {"title": {"text": "step"}}, "showlegend": legend, "hovermode": "x unified"}


def _lines(metrics: Metrics, key: str, name: str, colour: str, dash: str = "solid") -> Iterator[dict[str, Any]]:
    """The values, which answer to the pointer, and in a long run their running mean over them."""
    stride = max(1, -(-len(metrics) // MOST_POINTS))
    x = [row["step"] for row in metrics][::stride]
    values = [row.get(key) for row in metrics]
    name = escape(name)  # Plotly reads a little HTML in its texts
    window = smoothing(len(metrics))
    yield {
        "type": "scatter",
        "mode": "lines+markers" if len(x) <= 3 else "lines",
        "x": x,
        "y": [short(value) for value in values[::stride]],
        "name": name,
        "legendgroup": name,
        "showlegend": not window,
        "opacity": 0.35 if window else 1.0,
        "line": {"color": colour, "width": 1.2 if window else 2, "dash": "solid" if window else dash},
        "hovertemplate": f"%{{y:.4g}}<extra>{name}</extra>",
    }
    if window:
        yield {
            "type": "scatter",
            "mode": "lines",
            "x": x,
            "y": [short(value) for value in _running_mean(values, window)[::stride]],
            "name": name,
            "legendgroup": name,
            "hoverinfo": "skip",
            "line": {"color": colour, "width": 2.4, "dash": dash},
        }


def _running_mean(values: list[float | None], window: int) -> list[float | None]:
    """Centred, over what there is at the ends; a gap stays a gap."""
    means: list[float | None] = []
    for place, value in enumerate(values):
        near = [one for one in values[max(0, place - window // 2) : place + window // 2 + 1] if one is not None]
        means.append(None if value is None else sum(near) / len(near))
    return means


def _band(metrics: Metrics, key: str, error: str) -> list[dict[str, Any]]:
    rows = [row for row in metrics if key in row and error in row]
    rows = rows[:: max(1, -(-len(rows) // MOST_POINTS))]
    if not rows:
        return []
    x = [row["step"] for row in rows]
    upper = [row[key] + row[error] for row in rows]
    lower = [row[key] - row[error] for row in rows]
    return [
        {
            "type": "scatter",
            "mode": "lines",
            "x": x + x[::-1],
            "y": [short(value) for value in upper + lower[::-1]],
            "fill": "toself",
            "fillcolor": "rgba(47,127,214,0.18)",
            "line": {"width": 0},
            "hoverinfo": "skip",
            "name": "± standard error",
        }
    ]
