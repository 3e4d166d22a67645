"""How the server is asked: its schema (/openapi.json) as a page to read at /docs, with nothing in it that a browser fetches or runs."""

from __future__ import annotations

import json
import shlex
from typing import Any

from jinja2 import Environment, StrictUndefined

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""The page's Content-Security-Policy."""

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ schema.info.title }} {{ schema.info.version }}: how to ask</title>
<style>
:root { color-scheme: light dark; }
body { font: 16px/1.55 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; }
code, pre { font-family: ui-monospace, monospace; font-size: .9em; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; padding: .75rem; border: 1px solid #8886; border-radius: 6px; }
table { border-collapse: collapse; width: 100%; }
td { border-top: 1px solid #8886; padding: .3rem .6rem .3rem 0; vertical-align: top; overflow-wrap: anywhere; }
td:first-child { width: 12rem; } td:nth-child(2) { width: 13rem; }
h2 { margin-top: 2.5rem; }
</style>
{% macro fields(name, sent=false) %}
{% set part = schema.components.schemas[name] %}
<table>
{% for field, its in part.properties.items() %}
<tr><td><code>{{ field }}</code>{{ " *" if sent and field in part.required | default([]) }}</td><td>{{ its | kind }}</td><td>{{ its.description | default("") }}</td></tr>
{% endfor %}
</table>
{% endmacro %}
<h1>{{ schema.info.title }} {{ schema.info.version }}</h1>
<p>{{ schema.info.description }} The same for machines: <a href="openapi.json">openapi.json</a>.</p>
{% for path, ways in schema.paths.items() %}
{% for method, way in ways.items() %}
<h2><code>{{ method | upper }} {{ path }}</code></h2>
<p>{{ way.description }}</p>
{% if way.requestBody is defined %}
{% set asked = way.requestBody | named %}
{% for example in schema.components.schemas[asked].examples %}
<pre>{{ curl(path, example) }}</pre>
{% endfor %}
<h3>What is sent (* needed)</h3>
{{ fields(asked, sent=true) }}
<h3>What is answered</h3>
{{ fields(way.responses["200"] | named) }}
{% for part in schema.components.schemas[way.responses["200"] | named] | parts %}
<h3><code>{{ part }}</code></h3>
{{ fields(part) }}
{% endfor %}
<p>Otherwise <code>{"error": …}</code>, a sentence, with {% for status, its in way.responses.items() if status != "200" %}{{ status }} ({{ its.description }}){{ ", " if not loop.last }}{% endfor %}.</p>
{% endif %}
{% endfor %}
{% endfor %}
</html>
"""


def page(schema: dict[str, Any], address: str, *, key: bool) -> str:
    """HTML of an OpenAPI schema, with its examples as commands to `address`; `key`: whether one must be given."""

    def curl(path: str, example: Any) -> str:
        given = " -H 'Authorization: Bearer KEY'" if key else ""
        body = shlex.quote(json.dumps(example, ensure_ascii=False))
        place = shlex.quote(address.rstrip("/") + path)
        return f"curl -s {place} -H 'Content-Type: application/json'{given} \\\n  -d {body}"

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"kind": _kind, "named": _named, "parts": _parts}
    return environment.from_string(PAGE).render(schema=schema, curl=curl)


def _kind(schema: dict[str, Any]) -> str:
    """A field's type, in words."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(map(_kind, schema["anyOf"]))
    if schema.get("type") == "array":
        return f"list of {_kind(schema['items'])}"
    if isinstance(values := schema.get("additionalProperties"), dict):
        return f"object of {_kind(values)}"
    return str(schema.get("type", "anything"))


def _named(body: dict[str, Any]) -> str:
    """The part of the schema that a request's or an answer's body is."""
    return _kind(body["content"]["application/json"]["schema"])


def _parts(schema: dict[str, Any]) -> list[str]:
    """The parts that a part's lists are of."""
    items = (its.get("items", {}) for its in schema["properties"].values())
    return [_kind(one) for one in items if "$ref" in one]
