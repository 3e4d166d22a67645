"""The page that says how the server is asked."""

import html
import json
import re
import shlex

import pytest

from softspoken.serving.asking import page

SCHEMA = {
    "info": {"title": "softspoken", "version": "9", "description": "Answers <b>texts</b>."},
    "paths": {
        "/health": {"get": {"description": "Alive?", "responses": {"200": {}}}},
        "/v1/say": {
            "post": {
                "description": "Answer each text.",
                "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Asked"}}}},
                "responses": {
                    "200": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Said"}}}},
                    "429": {"description": "Too Many Requests"},
                },
            }
        },
    },
    "components": {
        "schemas": {
            "Asked": {
                "required": ["texts"],
                "examples": [{"texts": ["Felix: I'm late, <i>really</i>"]}],
                "properties": {
                    "texts": {"type": "array", "items": {"type": "string"}, "description": "what is answered"},
                    "most": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
                },
            },
            "Said": {
                "required": ["answers"],
                "properties": {"answers": {"type": "array", "items": {"$ref": "#/components/schemas/One"}}},
            },
            "One": {"properties": {"scores": {"type": "object", "additionalProperties": {"type": "number"}}}},
        }
    },
}


@pytest.mark.parametrize(("key", "header"), [(False, []), (True, ["-H", "Authorization: Bearer KEY"])])
def test_an_example_is_a_command_that_a_shell_takes(key, header):
    [command] = re.findall(r"<pre>(.*?)</pre>", page(SCHEMA, "http://127.0.0.1:8000/", key=key), re.DOTALL)
    words = shlex.split(html.unescape(command).replace("\\\n", " "))
    assert words[:-2] == ["curl", "-s", "http://127.0.0.1:8000/v1/say", "-H", "Content-Type: application/json", *header]
    assert json.loads(words[-1]) == SCHEMA["components"]["schemas"]["Asked"]["examples"][0]


def test_it_says_the_fields_their_kinds_and_what_goes_wrong():
    text = page(SCHEMA, "http://x", key=False)
    rows = re.findall(r"<tr><td><code>(\w+)</code>(.*?)</td><td>(.*?)</td><td>(.*?)</td>", text)
    assert rows == [
        ("texts", " *", "list of string", "what is answered"),
        ("most", "", "integer or null", ""),
        ("answers", "", "list of One", ""),
        ("scores", "", "object of number", ""),
    ]
    assert "with 429 (Too Many Requests)." in text
    assert "<h2><code>GET /health</code></h2>" in text


def test_nothing_is_run_or_fetched_and_all_is_escaped():
    text = page(SCHEMA, "http://<script>", key=False)
    assert "Answers &lt;b&gt;texts&lt;/b&gt;." in text
    assert not re.search(r"<(script|link|img|iframe|object)\b|@import|url\(|\bon\w+=|<[bi]>", text)
    assert re.findall(r'(?:href|src)="([^"]*)"', text) == ["openapi.json"]
