"""A template and its figures → one page that opens from disk, with no network: style, scripts and Plotly are in it."""

from __future__ import annotations

import json
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template, select_autoescape
from markupsafe import Markup, escape

from softspoken.report.charts import Chart
from softspoken.report.every_row import as_json
from softspoken.report.measures import toxicity

Charts = dict[str, list[Chart]]
"""By section of the page."""


def render(template_name: str, charts: Charts, **content: Any) -> str:
    """The page; Plotly's four megabytes come along only where something is drawn."""
    plotly = _plotly_js() if any(charts.values()) else ""
    return template(template_name).render(charts=charts, plotly=plotly, **content)


def template(name: str) -> Template:
    """Summaries are other people's text: everything is escaped in HTML."""
    environment = Environment(
        loader=PackageLoader("softspoken.report"),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "toxicity": toxicity,
        "repr": repr,
        "quoted": _quoted,
        "chart_data": _chart_data,
        "breakable": _breakable,
        "as_json": as_json,
    }
    return environment.get_template(name)


def _quoted(text: str) -> str:
    """As a Python literal in double quotes."""
    return json.dumps(text, ensure_ascii=False)


def _chart_data(charts: Charts) -> dict[str, list[dict[str, Any]]]:
    return {
        group: [{"traces": chart.traces, "layout": chart.layout} for chart in found] for group, found in charts.items()
    }


def _breakable(name: str) -> Markup:
    """A line may end after an underscore: banned_|words."""
    return Markup(escape(name).replace("_", Markup("_<wbr>")))


def _plotly_js() -> str:
    from plotly.offline import get_plotlyjs

    return get_plotlyjs()
