"""The server on a real socket, with a tiny model and the embedded judge: what it answers, refuses, bounds and never loses."""

import contextlib
import gc
import hashlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from softspoken.config import ServeConfig
from softspoken.inference.engines import cache_folder
from softspoken.inference.generator import Generator
from softspoken.serving import http as bounds
from softspoken.serving.serve import prepared
from softspoken.types import InputError
from tiny_adapters import add_adapter

TEXTS = ["Nora: Where are you?\nFelix: On the bus.", "Leon: hi", "Ines: You forgot the milk again, you fool."]
KEY = "a-long-random-key"
PATIENCE = 120.0
"""Seconds for what comes at once on a machine that has nothing else to do: waited for, not measured."""


class Running:
    """A server in a thread of its own."""

    def __init__(self, config: ServeConfig) -> None:
        self.server = prepared(config)
        self.service = self.server.config.app.app.state.service
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        while not self.server.started:
            assert self.thread.is_alive()
            time.sleep(0.005)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        content = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else None
        given = {"Content-Type": "application/json"} if content is not None else {}
        connection.request(
            method, path, content, {**given, **{name.replace("_", "-"): v for name, v in headers.items()}}
        )
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        is_json = answer.headers.get("content-type", "").startswith("application/json")
        return answer.status, json.loads(text) if is_json else text.decode(), dict(answer.headers)

    def generate(self, **body: Any) -> tuple[int, Any]:
        status, answer, _ = self.ask("POST", "/v1/generate", body)
        return status, answer

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()


@pytest.fixture(scope="module")
def adapters(tiny_t5: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapters")
    for seed, name in enumerate(("one", "two", "three"), start=1):
        add_adapter(tiny_t5, folder / name, seed)
    return folder


@pytest.fixture
def held(running: Running) -> Iterator[threading.Event]:
    """Until it is set, nothing is computed; and each text is a batch of its own."""
    batcher, held = running.service.batcher, threading.Event()
    compute, size, room = batcher.compute, batcher.batch_size, batcher.queue_size

    def computed(key: Any, whats: list[Any]) -> Any:
        assert held.wait(PATIENCE)
        return compute(key, whats)

    batcher.compute, batcher.batch_size = computed, 1
    yield held
    held.set()
    batcher.compute, batcher.batch_size, batcher.queue_size = compute, size, room


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.fixture(scope="module")
def running(tiny_t5: Path, adapters: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTSPOKEN_CACHE", str(tmp_path_factory.mktemp("cache")))
        shutil.copytree(adapters / "two", adapters / "changing")
        given = [str(adapters / "one"), f"other={adapters / 'changing'}"]
        config = ServeConfig(
            model=str(tiny_t5),
            adapter=given,
            port=0,
            most_body_bytes=20_000,
            most_texts=8,
            most_text_chars=5_000,
            workers=2,
            deadline=2 * PATIENCE,  # or what a loaded machine has shown of its speed is refused
        )
        server = Running(config)
        yield server
        server.stop()


# -------------------------------------------------------------------------------------------------------- answers


def test_answers_are_the_models_own(running: Running, tiny_t5: Path, adapters: Path) -> None:
    for name, folder in (("one", "one"), ("other", "two")):
        status, answer = running.generate(texts=TEXTS, adapter=name)
        assert status == 200
        own = Generator.from_pretrained(
            str(tiny_t5), adapter=str(adapters / folder), device="cpu", task="summarization"
        )
        first = [one["text"] if one["guard"] == "passed" else None for one in answer["responses"]]
        assert [text or own(TEXTS)[row] for row, text in enumerate(first)] == own(TEXTS)
        assert (answer["adapter"], answer["model"], answer["version"]) == (name, str(tiny_t5), "0.1.0")
        assert [one["input"] for one in answer["responses"]] == [0, 1, 2]
        assert all(one["truncated"] for one in answer["responses"])  # 12 tokens, which a random model does not end


def test_the_engine_gives_the_same_tokens_or_is_not_taken(running: Running) -> None:
    for served in running.service.models:
        assert served.choice.engine == "ctranslate2"
        assert "own tokens on the 32 texts of the self-check" in served.choice.why
    assert len(list(cache_folder().iterdir())) == 2


def test_settings_of_a_request(running: Running) -> None:
    _, short = running.generate(texts=TEXTS[:1], max_new_tokens=3)
    _, whole = running.generate(texts=TEXTS[:1])
    assert whole["responses"][0]["text"].startswith(short["responses"][0]["text"][:3])
    assert len(short["responses"][0]["text"]) < len(whole["responses"][0]["text"])
    _, drawn = running.generate(texts=TEXTS[:2], samples=3)
    assert [one["input"] for one in drawn["responses"]] == [0, 0, 0, 1, 1, 1]
    assert len({one["text"] for one in drawn["responses"]}) == 6
    assert running.generate(texts=TEXTS[:1], num_beams=2)[0] == 200


def test_a_response_comes_with_its_scores_and_score_gives_them_too(running: Running) -> None:
    _, answer = running.generate(texts=TEXTS[:1])
    one = answer["responses"][0]
    assert one["guard"] in ("passed", "retried", "masked", "refused")
    assert {"toxicity", "insult"} <= {*one["scores"]["mini"]}
    status, scored, _ = running.ask("POST", "/v1/score", {"texts": [one["text"], "you stupid idiot"]})
    assert status == 200
    assert scored["scores"][0]["mini"]["toxicity"] == pytest.approx(one["scores"]["mini"]["toxicity"], abs=1e-4)
    assert scored["scores"][1]["mini"]["toxicity"] > 0.5


def test_a_text_that_is_cut_is_said(running: Running) -> None:
    _, answer = running.generate(texts=["Leon: hi\n" * 500, "Leon: hi"])
    assert [one["text_cut"] for one in answer["responses"]] == [True, False]


def test_probes_metrics_and_how_to_ask(running: Running) -> None:
    assert running.ask("GET", "/health")[0] == 200
    assert running.ask("GET", "/ready")[1] == {"ready": True, "adapters": ["one", "other"]}
    metrics = running.ask("GET", "/metrics")[1]
    for name in ("phase_seconds_bucket", "batch_size_bucket", "guard_total", "queue_texts", "requests_total"):
        assert f"softspoken_{name}" in metrics
    schema = running.ask("GET", "/openapi.json")[1]
    assert schema["components"]["schemas"]["GenerateRequest"]["examples"][0]["texts"]


def test_the_page_that_says_how_to_ask_runs_nothing(running: Running) -> None:
    status, page, headers = running.ask("GET", "/docs")
    assert (status, headers["content-security-policy"][:20]) == (200, "default-src 'none'; ")
    assert f"curl -s http://127.0.0.1:{running.port}/v1/generate" in page
    assert not re.search(r"<script|//cdn|<link", page)
    assert running.ask("GET", "/redoc")[0] == 404


# ------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({}, 422, "texts: Field required"),
        ({"texts": "a"}, 422, "texts: Input should be a valid list"),
        ({"texts": ["a", 5]}, 422, "texts.1: Input should be a valid string"),
        ({"texts": ["a", " \n"]}, 422, "texts.1 is empty"),
        ({"texts": ["a"], "num_beam": 2}, 422, "num_beam: Extra inputs are not permitted; there is texts"),
        (
            {"texts": ["a"], "max_new_tokens": 257},
            422,
            "max_new_tokens 257 is more than this server gives; ask for 256",
        ),
        ({"texts": ["a"], "num_beams": 5}, 422, "ask for 4 or less"),
        ({"texts": ["a"], "samples": 9}, 422, "ask for 8 or less"),
        ({"texts": ["a"], "samples": 0}, 422, "samples: Input should be greater than or equal to 1"),
        ({"texts": ["a"], "samples": 2, "num_beams": 2}, 422, "ask for one of them"),
        ({"texts": ["a"], "adapter": "three"}, 422, "there is no adapter 'three'; there is one, other"),
        ({"texts": ["a"] * 9}, 413, "9 texts are more than a request may have; send 8"),
        ({"texts": ["a" * 5001]}, 413, "texts.0 has 5,001 characters"),
        (b"{", 422, "the body is not the JSON it should be"),
        (b"\xff\xfe", 422, "the body is not the JSON it should be"),
        (b"[" * 19_000, 400, "error parsing the body"),
        (b"x" * 20_001, 413, "a request may have 20,000 bytes"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_a_sentence(running: Running, body: Any, status: int, words: str) -> None:
    found, answer, _ = running.ask("POST", "/v1/generate", body)
    assert found == status
    assert words in answer["error"]
    assert "\n" not in answer["error"]
    assert len(answer["error"]) < 300


def test_a_page_of_the_web_cannot_ask_through_a_browser(running: Running) -> None:
    assert running.ask("POST", "/v1/generate", {"texts": ["a"]}, Content_Type="text/plain")[0] == 415
    status, answer, _ = running.ask("POST", "/v1/generate", {"texts": ["a"]}, Host="evil.example:80")
    assert (status, "its own machine alone" in answer["error"]) == (403, True)


def raw(running: Running, content: bytes) -> bytes:
    """What comes back for bytes on the wire, until the server closes."""
    with socket.create_connection(("127.0.0.1", running.port), timeout=PATIENCE) as wire:
        found = b""
        with contextlib.suppress(ConnectionError):  # closed before all of it was sent or read
            wire.sendall(content)
            while piece := wire.recv(65_536):
                found += piece
        return found


HEAD = b"POST /v1/generate HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nConnection: close\r\n"


def test_bodies_without_end_slow_ones_and_garbage(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    chunk = b"3e8\r\n" + b"x" * 1000 + b"\r\n"
    assert b" 413 " in raw(running, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 21)
    assert raw(running, b"\x16\x03\x01 garbage\r\n\r\n").startswith(b"HTTP/1.1 400")
    # In one piece over the wire: what comes after a connection is closed takes the answer with it.
    assert b" 40" in raw(running, b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n")
    with monkeypatch.context() as patch:
        patch.setattr(bounds, "BODY_SECONDS", 0.1)
        assert b" 408 " in raw(running, HEAD + b"Content-Length: 100\r\n\r\n{")
        patch.setattr(bounds, "HEAD_SECONDS", 0.1)
        assert raw(running, b"POST /v1/gen") == b""  # closed without a word
    assert running.generate(texts=TEXTS[:1])[0] == 200


def test_keys(tiny_t5: Path, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(hashlib.sha256(KEY.encode()).hexdigest() + "\n")
    running = Running(
        ServeConfig(model=str(tiny_t5), port=0, api_key_file=str(tmp_path / "keys"), engine="torch", guard=False)
    )
    try:
        assert running.ask("POST", "/v1/generate", {"texts": ["a"]})[0] == 401
        assert running.ask("GET", "/metrics")[0] == 401
        assert running.ask("GET", "/ready")[0] == 200
        assert running.ask("POST", "/v1/generate", {"texts": ["a"]}, Authorization="Bearer wrong")[0] == 401
        status, answer, _ = running.ask("POST", "/v1/generate", {"texts": TEXTS}, Authorization=f"Bearer {KEY}")
        assert status == 200
        assert [one["guard"] for one in answer["responses"]] == ["off"] * 3
        assert [one["text"] for one in answer["responses"]] == Generator.from_pretrained(
            str(tiny_t5), device="cpu", task="summarization"
        )(TEXTS)
        assert running.ask("POST", "/v1/score", {"texts": ["a"]}, Authorization=f"Bearer {KEY}")[0] == 404
    finally:
        running.stop()


# ---------------------------------------------------------------------------------------------- nothing is lost


def test_what_does_not_fit_is_shed_at_once_and_what_does_is_answered(running: Running, held: threading.Event) -> None:
    batcher = running.service.batcher
    batcher.queue_size = 4
    with ThreadPoolExecutor(16) as pool:
        try:
            asked = [pool.submit(running.generate, texts=[f"Leon: {number}"]) for number in range(2)]
            until(lambda: batcher._running == 2)
            asked += [pool.submit(running.generate, texts=[f"Leon: {number}"]) for number in range(2, 6)]
            until(lambda: len(batcher.waiting) == 4)
            late = [pool.submit(running.generate, texts=[f"Leon: late {number}"]) for number in range(10)]
            assert [one.result()[0] for one in late] == [429] * 10  # while nothing else is answered: at once
            status, answer, headers = running.ask("POST", "/v1/generate", {"texts": ["Leon: late"]})
            assert status == 429
            head = b"POST /v1/score HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n"
            with socket.create_connection(("127.0.0.1", running.port), timeout=30) as asking:
                asking.sendall(head)  # and no body: it is not waited for
                assert asking.recv(1 << 12).startswith(b"HTTP/1.1 429")
            assert re.fullmatch(r"there are 4 texts waiting, of 4 at most; ask again in \d+ s", answer["error"])
            assert int(headers["retry-after"]) >= 1
        finally:
            held.set()
        assert [one.result()[0] for one in asked] == [200] * 6


def test_a_client_that_goes_takes_its_work_along(
    running: Running, held: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    batcher = running.service.batcher
    gone = running.service.observed.gone._value
    before = gone.get()
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(running.generate, texts=[text]) for text in TEXTS[:2]]
        try:
            until(lambda: batcher._running == 2)
            body = json.dumps({"texts": TEXTS}).encode()
            with socket.create_connection(("127.0.0.1", running.port)) as wire:
                wire.sendall(HEAD + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
                until(lambda: len(batcher.waiting) == 3)
            until(lambda: not batcher.waiting and gone.get() == before + 1)
        finally:
            held.set()
        assert [one.result()[0] for one in asked] == [200, 200]
    gc.collect()
    assert caplog.text == ""  # nothing is left that asyncio would complain of


def test_another_adapter_takes_its_place_without_a_request_lost(
    running: Running, adapters: Path, tiny_t5: Path
) -> None:
    stop, statuses = threading.Event(), []

    def keep_asking() -> None:
        while not stop.is_set():
            statuses.append(running.generate(texts=TEXTS[:1], adapter="other"))

    thread = threading.Thread(target=keep_asking)
    thread.start()
    before = running.generate(texts=TEXTS, adapter="other")[1]
    weights = adapters / "changing" / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    status, answer, _ = running.ask("POST", "/v1/reload", {"adapter": "other"})
    assert status == 422
    assert "what was served is still served" in answer["error"]
    shutil.copy(adapters / "three" / "adapter_model.safetensors", weights)
    status, answer, _ = running.ask("POST", "/v1/reload", {"adapter": "other"})
    assert status == 200
    stop.set()
    thread.join()
    after = running.generate(texts=TEXTS, adapter="other")[1]
    assert {status for status, _ in statuses} == {200}
    assert before["weights"] != after["weights"] == answer["weights"]["other"]
    own = Generator.from_pretrained(str(tiny_t5), adapter=str(adapters / "three"), device="cpu", task="summarization")
    again = [one["text"] for one in after["responses"] if one["guard"] == "passed"]
    assert [text for text in own(TEXTS) if text in again] == again


def test_the_command_ends_well(tiny_t5: Path, tmp_path: Path) -> None:
    """SIGTERM while requests wait: all are answered, the exit status is 0 and there is no traceback."""
    command = [sys.executable, "-m", "softspoken", "serve", "--model", str(tiny_t5), "--port", "0"]
    options = ["--engine", "torch", "--guard", "false"]
    process = subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True, env=dict(os.environ))
    assert process.stderr
    body = json.dumps({"texts": ["Leon: so?"] * 4}).encode()
    head = (
        f"POST /v1/generate HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
    ).encode()

    def wait_for(words: str) -> str:
        said = [""]
        while words not in said[-1]:
            said.append(process.stderr.readline())
            assert said[-1], "".join(said)
        return said[-1]

    def taken_on(port: int) -> socket.socket:
        """A request that the server has begun to read, and whose body is still to come."""
        asking = socket.create_connection(("127.0.0.1", port), timeout=60)
        asking.sendall(head)
        assert asking.recv(1 << 16).startswith(b"HTTP/1.1 100")
        return asking

    try:
        port = int(wait_for("listening on").partition("127.0.0.1:")[2].partition(";")[0])
        process.send_signal(signal.SIGHUP)
        wait_for("softspoken: read again: base ")
        waiting = [taken_on(port) for _ in range(5)]
        process.send_signal(signal.SIGTERM)
        for asking in waiting:
            asking.sendall(body)
        assert [asking.recv(1 << 16).split(b"\r\n")[0] for asking in waiting] == [b"HTTP/1.1 200 OK"] * 5
        _, stderr = process.communicate(timeout=30)
        assert process.returncode == 0
        assert "Traceback" not in stderr
    finally:
        process.kill()


def test_what_cannot_be_had_is_said_before_it_listens(tiny_t5: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no adapter folder at"):
        prepared(ServeConfig(model=str(tiny_t5), adapter=[str(tmp_path / "none")], port=0, guard=False))
    twice = [f"a={tmp_path / 'x'}", f"a={tmp_path / 'y'}"]
    with pytest.raises(InputError, match="'a' is the name of two"):
        prepared(ServeConfig(model=str(tiny_t5), adapter=twice, port=0, guard=False))
