"""Numbers → Plotly figures as plain data: the page draws them; colours of text and grid come from its style sheet."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

PALETTE = ["#2f7fd6", "#8e5bd0", "#2a9d8f", "#c2456b", "#7a8f2b", "#4f5d95"]
"""Of tuned systems, in turn; legible on white and on near-black."""
SYSTEM_COLOURS = {"human": "#7d8b99", "base": "#dd7a1f"}
BINS = 10
"""Of the toxicity histogram, over 0 to 1."""


@dataclass(frozen=True)
class Chart:
    title: str
    note: str
    """What the axis means, in a line."""
    summary: str
    """The chart in words, for who cannot see it."""
    traces: list[dict[str, Any]]
    layout: dict[str, Any]


CURVES = [
    ("objective/score", "Score", "mean reward of the sampled summaries; higher is better"),
    ("objective/toxicity", "Toxicity", "1 − the judge's reward, of the sampled summaries; lower is better"),
    ("objective/kl", "KL to the reference", "nats a token (k1), with its standard error"),
    ("objective/entropy", "Entropy", "nats, of the next-token distribution; collapse shows as a fall to 0"),
    ("ppo/policy/clip_fraction", "Clip fraction", "share of tokens whose ratio was clipped"),
    ("tokens/response_mean", "Length", "tokens of a sampled summary"),
    ("ppo/grad_norm", "Gradient norm", "L2, before clipping"),
    ("ppo/value/explained_variance", "Explained variance", "of the returns, by the value head; 1 is perfect"),
    ("time/step", "Time", "seconds a step"),
]


def curves(metrics: list[dict[str, float]]) -> list[Chart]:
    """One chart for each metric that the run logged; a step without it (all its summaries dropped) is a gap."""
    return [_curve(metrics, *curve) for curve in CURVES if any(curve[0] in row for row in metrics)]


def _curve(metrics: list[dict[str, float]], key: str, title: str, note: str) -> Chart:
    steps = [row["step"] for row in metrics]
    values = [row.get(key) for row in metrics]
    traces = [_line(steps, values, title, PALETTE[0])]
    if key == "objective/kl":
        traces = _band(metrics, key, "objective/kl_stderr") + traces
    if key == "objective/score":
        terms = sorted({name for row in metrics for name in row if name.startswith("objective/score/")})
        if len(terms) > 1:  # each reward by its own name: hacking one shows in the others
            names = [escape(term.removeprefix("objective/score/")) for term in terms]
            colours = PALETTE[1:] * len(terms)
            traces += [
                _line(steps, [row.get(term) for row in metrics], name, colour, dash="dot")
                for term, name, colour in zip(terms, names, colours[: len(terms)], strict=True)
            ]
    known = [(step, value) for step, value in zip(steps, values, strict=True) if value is not None]
    low, high = min(value for _, value in known), max(value for _, value in known)
    (first, start), (last, end) = known[0], known[-1]
    summary = (
        f"{title} from {start:.3g} at step {first:g} to {end:.3g} at step {last:g}, between {low:.3g} and {high:.3g}."
    )
    layout = {"xaxis": {"title": {"text": "step"}}, "showlegend": len(traces) > 1 and key != "objective/kl"}
    return Chart(title, note, summary, traces, layout)


def _line(x: list[float], y: list[float | None], name: str, colour: str, dash: str = "solid") -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines+markers" if len(x) <= 3 else "lines",
        "x": x,
        "y": y,
        "name": name,
        "line": {"color": colour, "width": 2, "dash": dash},
        "hovertemplate": "step %{x}: %{y:.4g}<extra></extra>"
        if dash == "solid"
        else f"%{{y:.4g}}<extra>{name}</extra>",
    }


def _band(metrics: list[dict[str, float]], key: str, error: str) -> list[dict[str, Any]]:
    rows = [row for row in metrics if key in row and error in row]
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
            "y": upper + lower[::-1],
            "fill": "toself",
            "fillcolor": "rgba(47,127,214,0.18)",
            "line": {"width": 0},
            "hoverinfo": "skip",
            "name": "± standard error",
        }
    ]


def distributions(counts: dict[tuple[str, str | None], list[int]]) -> list[Chart]:
    """Toxicity histograms, one chart for each way of decoding; `counts`: (system, decoding) → summaries in each tenth."""
    titles = {"greedy": "Decoded greedily", "sampled": "Sampled at temperature 1"}
    return [
        _distribution({name: row for (name, how), row in counts.items() if how in (decoding, None)}, title)
        for decoding, title in titles.items()
        if any(how == decoding for _, how in counts)
    ]


def _distribution(counts: dict[str, list[int]], title: str) -> Chart:
    shares = {name: [count / max(1, sum(row)) for count in row] for name, row in counts.items()}
    labels = [f"{place / BINS:.1f}–{(place + 1) / BINS:.1f}" for place in range(BINS)]
    colours = system_colours(list(counts))
    traces = [
        {
            "type": "bar",
            "x": labels,
            "y": row,
            "name": escape(name),  # Plotly reads a little HTML in its texts
            "marker": {"color": colours[name]},
            "hovertemplate": f"toxicity %{{x}}: %{{y:.1%}}<extra>{escape(name)}</extra>",
        }
        for name, row in shares.items()
    ]
    ends = "; ".join(
        f"{name}: {row[0]:.0%} below 0.1, {sum(row[BINS // 2 :]):.0%} at 0.5 or above" for name, row in shares.items()
    )
    layout = {
        "barmode": "group",
        "bargap": 0.2,
        "xaxis": {"title": {"text": "toxicity of a summary"}, "type": "category", "tickangle": 0, "nticks": 5},
        "yaxis": {"tickformat": ".0%"},
        "showlegend": True,
    }
    return Chart(title, "share of the summaries in each tenth of the toxicity scale", f"{ends}.", traces, layout)


def system_colours(names: list[str]) -> dict[str, str]:
    tuned = [name for name in names if name not in SYSTEM_COLOURS]
    return SYSTEM_COLOURS | {name: PALETTE[place % len(PALETTE)] for place, name in enumerate(tuned)}
