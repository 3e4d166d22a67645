"""The serving benchmark's arithmetic and page; no server runs here."""

import http.server
import itertools
import threading
from types import SimpleNamespace

import pytest

from benchmarks.pages import fill
from benchmarks.serving import load as loads
from benchmarks.serving.__main__ import TEMPLATE, _figures, _medians
from benchmarks.serving.load import Seen, arrivals, bodies_of, load

ROUND = {"rate": 10.0, "p50": 1.0, "p95": 2.0, "p99": 3.0}


def test_rates_and_quantiles_are_of_what_was_answered() -> None:
    seen = Seen(2.0, {200: [0.1, 0.2, 0.3, 0.4, 0.5], 429: [0.01, 0.02]}, lost=1)
    figures = _figures(seen)
    assert figures["rate"] == 2.5
    assert figures["p50"] == pytest.approx(300)
    assert figures["statuses"] == {"200": 5, "429": 2}
    assert (figures["lost"], figures["shed_p50"]) == (1, pytest.approx(20))
    assert _medians([{**ROUND, "rate": rate} for rate in (1.0, 9.0, 5.0)])["rate"] == 5.0


def test_clients_count_every_answer_and_every_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that goes on by a second whenever it is looked at: at the beginning, before a request and after its answer."""
    clock = map(float, itertools.count())
    answers = iter([200, 429, 200, None])

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            status = next(answers, 200)
            if status is not None:  # else the connection ends
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        with monkeypatch.context() as patch:
            patch.setattr(loads, "time", SimpleNamespace(perf_counter=lambda: next(clock), sleep=lambda seconds: None))
            seen = load(server.server_port, "/", bodies_of(["a"], plain=True), clients=1, seconds=20.5)
        assert seen.answers == {200: [1.0] * 5, 429: [1.0]}
        assert seen.lost == 1
        answers = iter([200, None, 429])
        came = arrivals(server.server_port, "/", bodies_of(["a"], plain=True), rate=50, seconds=0.1)
        server.shutdown()
    assert ({status: len(found) for status, found in came.answers.items()}, came.lost) == ({200: 3, 429: 1}, 1)


def test_the_page_says_what_was_measured() -> None:
    names = [f"{name}-{clients}" for name in ("plain", "ours", "unguarded") for clients in (1, 8, 64)]
    rounds = {name: {**ROUND, "rate": 40.0 if name == "ours-8" else 10.0} for name in names}
    at = {"machine": {"cpu": "A", "cores": 2, "threads": 2}, "commit": "c", "load_average": 1.0}
    refused = {"shed_p50": 7.0, "shed_p99": 9.0, "own": 0.002}
    overload = {
        **ROUND,
        **refused,
        "capacity": 20.0,
        "statuses": {"200": 5},
        "lost": 0,
        "memory_before": 1.0,
        "memory_after": 2.0,
    }
    one = {"system": "base", "n": 9, "toxic_before": 3, "toxic_after": 0, "mean_before": 0.3, "mean_after": 0.1}
    page = fill(
        TEMPLATE,
        speed={"rounds": rounds, "loops": {"1": 20.0, "8": 40.0}, "number": 1, "seconds": 2, **at},
        overload={**overload, **at},
        guard={"systems": [{**one, "decisions": {"retried": 3}, "decode_ms": 1.0, "guard_ms": 2.0}], **at},
    )
    assert "does 4.0 times what FastAPI around generate does" in page
    assert "2.00 times the loop of one at a time" in page
    assert "refused waited 7 ms (median; 99 % within\n9 ms; the server's own part 2.0 ms" in page
    assert "| base | 3 → 0 of 9 |" in page
    assert "**Soak**" not in page
