"""Our own reward server and the example's, each asked by our client."""

import asyncio
import importlib.util
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ports import reserved_port
from softspoken.rewards import served
from softspoken.rewards.served import load_served
from softspoken.rewards.server import address_of, app_of, rows_of
from softspoken.rewards.terms import WeightedReward, load_reward
from softspoken.types import Example, InputError, RunError

ROOT = Path(__file__).parents[3]
EXAMPLES = [Example("1", "ein Bus", "a bus", columns={"n": 2}), Example("2", "zwei")]


def test_score_serves_any_reward_of_ours_to_our_own_client() -> None:
    """The command itself, as a process: its answers are those of the reward asked here."""
    pytest.importorskip("uvicorn")
    spec = "length:1-2 + 0.5*helpers_reward:letters"
    with reserved_port() as port:
        process = subprocess.Popen(
            [sys.executable, "-m", "softspoken", "score", "--serve", f"127.0.0.1:{port}", "--reward", spec],
            cwd=ROOT / "tests",
        )
        try:
            while not _answers(port):
                assert process.poll() is None
                time.sleep(0.05)
            reward = load_served(f"http://127.0.0.1:{port}/score")
            assert reward(["a bus", "three words here"], EXAMPLES) == pytest.approx(
                load_reward(spec)(["a bus", "three words here"], EXAMPLES).total.tolist()
            )
            process.terminate()
            assert process.wait(120) == 0  # to be stopped is how a server ends
        finally:
            process.kill()
            process.wait()


def _answers(port: int) -> bool:
    with socket.socket() as knock:
        return knock.connect_ex(("127.0.0.1", port)) == 0


def ask(app: Any, body: bytes, on_answer: Callable[[], object] = lambda: None) -> tuple[int, dict[str, Any]]:
    """One request to the application itself, without a socket."""
    said: list[dict[str, Any]] = []
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "path": "/score", "raw_path": b"/score",
        "query_string": b"", "headers": [], "root_path": "", "scheme": "http",
    }  # fmt: skip

    async def run() -> None:
        pieces = [body[first : first + 1_000_000] for first in range(0, len(body), 1_000_000)] or [b""]
        sent = iter([{"type": "http.request", "body": piece, "more_body": piece is not pieces[-1]} for piece in pieces])

        async def receive() -> dict[str, Any]:
            return next(sent)

        async def send(message: dict[str, Any]) -> None:
            said.append(message)
            on_answer()

        await app(scope, receive, send)

    asyncio.run(run())
    return said[0]["status"], json.loads(b"".join(one.get("body", b"") for one in said))


def reward_of(function: Any) -> WeightedReward:
    return WeightedReward({"f": function}, {"f": 1.0})


def test_what_the_server_answers() -> None:
    pytest.importorskip("fastapi")
    sent = {"responses": ["a", "b"], "texts": ["x", "y"], "references": [["r", "s"], []], "columns": {"n": [3, None]}}
    seen: list[Example] = []

    def half(responses: list[str], examples: list[Example]) -> list[float | None]:
        seen.extend(examples)
        return [0.5, None]

    assert ask(app_of(reward_of(half)), json.dumps(sent).encode()) == (200, {"scores": [0.5, None]})
    assert [(one.text, one.references, dict(one.columns)) for one in seen] == [
        ("x", ["r", "s"], {"n": 3}), ("y", [], {"n": None}),
    ]  # fmt: skip
    assert ask(app_of(reward_of(half)), b'{"responses": []}') == (200, {"scores": []})

    def broken(responses: list[str], examples: list[Example]) -> list[float]:
        raise KeyError("colour")

    status, said = ask(app_of(reward_of(broken)), json.dumps(sent).encode())
    assert status == 500
    assert "'f' failed with KeyError: 'colour'" in said["error"]


def test_what_is_too_large_too_many_and_too_late_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fastapi")
    body = json.dumps({"responses": ["a"], "texts": ["x"]}).encode()

    answered = threading.Event()

    def slow(responses: list[str], examples: list[Example]) -> list[float]:
        answered.wait()
        return [1.0]

    status, said = ask(app_of(reward_of(slow), longest=0.05), body, answered.set)
    assert (status, said["error"]) == (503, "no scores within 0.05 s; send smaller batches")
    status, said = ask(app_of(reward_of(slow), most_waiting=0), body)
    assert (status, said["error"]) == (503, "0 requests are waiting")
    monkeypatch.setattr("softspoken.rewards.server.LARGEST_BODY", 1_500_000)
    status, said = ask(app_of(reward_of(slow)), b"x" * 3_000_000)
    assert status == 400
    assert "more than 1,500,000 bytes" in said["error"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{", "the request is not JSON"),
        (b"\xff", "is not UTF-8"),
        (b"[]", "must be an object"),
        (b"{}", "responses must be a list"),
        (b'{"responses": [1]}', "responses must be a list of texts"),
        (b'{"responses": ["a"], "texts": []}', "texts must be a list, one for each of its 1 responses"),
        (b'{"responses": ["a"], "references": [[1]]}', "references lists of texts"),
        (b'{"responses": ["a"], "columns": {"n": [1, 2]}}', "n must be a list, one for each"),
        (b"[" * 100_000, "nested too deep"),
    ],
)
def test_requests_that_are_not_in_the_form(body: bytes, says: str) -> None:
    with pytest.raises(InputError, match=says):
        rows_of(body)


def test_addresses() -> None:
    assert address_of("127.0.0.1:8000") == ("127.0.0.1", 8000)
    assert address_of(":8000") == ("127.0.0.1", 8000)
    assert address_of("[::1]:80") == ("::1", 80)
    for wrong in ("8000", "host:", "host:x", "host:0", "host:65536"):
        with pytest.raises(InputError, match="give HOST:PORT"):
            address_of(wrong)


def test_the_comet_example_with_a_model_that_is_made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "BACKOFF", 0.01)
    file = ROOT / "examples/comet_server/server.py"
    spec = importlib.util.spec_from_file_location("comet_server", file)
    assert spec
    assert spec.loader
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    asked: list[dict[str, str]] = []

    def stub(rows: list[dict[str, str]]) -> list[float]:
        asked.extend(rows)
        if rows[0]["mt"] == "boom":
            raise RuntimeError("out of memory")
        return [len(row["mt"]) / 10 for row in rows]

    server = example.serve(stub, True, "127.0.0.1", 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        reward = load_served(f"http://127.0.0.1:{server.server_port}/score#retries=1")
        assert reward(["a bus", "two"], EXAMPLES) == [0.5, None]  # the second has no reference
        assert asked == [{"src": "ein Bus", "mt": "a bus", "ref": "a bus"}]
        with pytest.raises(
            RunError, match=r"no answer after 2 tries in \d+ s \(it answers 500 \(RuntimeError: out of memory\)\)"
        ):
            reward(["boom"], EXAMPLES[:1])
    finally:
        server.shutdown()
        server.server_close()
    with pytest.raises(ValueError, match="one place for each response"):
        example.rows_of({"responses": ["a"], "texts": []}, False)
    assert example.rows_of({"responses": ["a"], "texts": ["x"]}, False) == [{"src": "x", "mt": "a"}]
