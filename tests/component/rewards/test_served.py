"""A reward behind HTTP, against server processes that are slow, fail, die and come back; and ours against our own client."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from ports import reserved_port
from softspoken.rewards import served
from softspoken.rewards.served import load_served
from softspoken.rewards.terms import load_reward
from softspoken.types import Example, InputError, RunError

SERVER = Path(__file__).parent / "reward_server.py"
RESPONSES = ["a", "bb", "?"]
EXAMPLES = [
    Example(
        "1",
        "one",
        "ref",
        further_references=("more",),
        columns={"when": date(2026, 1, 2), "nan": float("nan"), "tags": ("x",)},
    ),
    Example("2", "two", columns={"n": 3}),
    Example("3", "three"),
]


@pytest.fixture(autouse=True)
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "BACKOFF", 0.1)
    monkeypatch.setattr(served, "LONGEST_WAIT", 0.5)


@contextmanager
def server(way: str, folder: Path, port: int | None = None) -> Iterator[str]:
    with reserved_port() as free:
        command = [sys.executable, str(SERVER), str(port or free), way, str(folder)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout
                assert process.stdout.readline() == "listening\n"
                yield f"http://127.0.0.1:{port or free}/any/path"
            finally:
                process.kill()


def asked(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "asked").read_text().splitlines()]


def test_what_is_sent_and_what_comes_back(tmp_path: Path) -> None:
    with server("well", tmp_path) as url:
        scores = load_reward(f"0.5*{url}#batch=2 + length:1-9")(RESPONSES, EXAMPLES)
    assert scores.total.tolist() == [1.5, 2.0, 1.0]  # half of 1 and of 2; no opinion; and 1 each for the length
    assert scores.terms[f"{url}#batch=2"][2].isnan()
    empty, *batches = sorted(asked(tmp_path), key=lambda one: one["texts"])
    assert empty == {"responses": [], "texts": [], "references": [], "columns": {}}
    assert batches == [
        {
            "responses": ["a", "bb"],
            "texts": ["one", "two"],
            "references": [["ref", "more"], []],
            "columns": {"when": ["2026-01-02", None], "nan": [None, None], "tags": [["x"], None], "n": [None, 3]},
        },
        {"responses": ["?"], "texts": ["three"], "references": [[]], "columns": {}},
    ]


def test_one_that_fails_is_asked_again(tmp_path: Path) -> None:
    with server("fails_twice", tmp_path) as url:
        assert load_served(f"{url}#concurrency=1")(RESPONSES, EXAMPLES) == [1.0, 2.0, None]
    assert len(asked(tmp_path)) == 1 + 3


def test_one_that_is_slow_is_asked_again(tmp_path: Path) -> None:
    """The first try is never answered; on a loaded machine others may be too late as well."""
    with server("slow_once", tmp_path) as url:
        assert load_served(f"{url}#concurrency=1&timeout=0.5&retries=100")(RESPONSES, EXAMPLES) == [1.0, 2.0, None]
    assert len(asked(tmp_path)) >= 1 + 2


def test_one_that_dies_and_is_started_again(tmp_path: Path) -> None:
    with reserved_port() as port, ThreadPoolExecutor(1) as thread:
        with server("dies_once", tmp_path, port) as url:
            reward = load_served(f"{url}#retries=100")
            found = thread.submit(reward, RESPONSES, EXAMPLES)
            while len(asked(tmp_path)) < 2:
                time.sleep(0.02)
        with server("well", tmp_path, port):
            assert found.result() == [1.0, 2.0, None]


def test_one_that_stays_away_is_a_clear_end(tmp_path: Path) -> None:
    with server("well", tmp_path) as url:
        reward = load_served(f"{url}#retries=2")
    with pytest.raises(
        RunError, match=r"no answer after 3 tries in \d+ s \(.*refused.*\); see to the server, then go on with --resume"
    ):
        reward(RESPONSES, EXAMPLES)
    with (
        reserved_port() as port,
        pytest.raises(InputError, match=r"no answer after 1 tries in \d+ s .*; start the server, or check the address"),
    ):
        load_reward(f"http://127.0.0.1:{port}/score#retries=0")


@pytest.mark.parametrize(
    ("way", "says"),
    [
        ("few", r"it must answer ..scores.: .number, ….., one for each of 3 responses, and answers ..scores.: .1.0.."),
        ("words", "one of its scores is 'high', which is no number"),
        ("html", "and answers <html>hello</html>"),
        ("endless", "its answer has more than 66,304 bytes"),
        ("refuses", r"it answers 400 \(no such language\)"),
        ("moves", r"it answers 302 \(nothing\)"),
    ],
)
def test_an_answer_that_no_other_can_follow_ends_at_once(way: str, says: str, tmp_path: Path) -> None:
    with server(way, tmp_path) as url:
        reward = load_served(url)
        with pytest.raises(RunError, match=says):
            reward(RESPONSES, EXAMPLES)
    assert len(asked(tmp_path)) == 2


def test_one_that_drips_is_given_up_in_time(tmp_path: Path) -> None:
    with server("drips", tmp_path) as url:
        reward = load_served(url)
        hasty = replace(reward, timeout=0.4, retries=0)
        with pytest.raises(RunError, match="its answer was not there in time"):  # it drips until nobody listens
            hasty(RESPONSES, EXAMPLES)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://127.0.0.1:1/x#retires=3", "no setting 'retires'; there is batch, concurrency, timeout, retries"),
        ("http://127.0.0.1:1/x#batch=1.5", "batch '1.5' cannot be used: give a whole number from 1 to 100,000"),
        ("http://127.0.0.1:1/x#timeout=", "timeout '' cannot be used: give a number from 0.1"),
        ("http://127.0.0.1:1/x#fast", "fast"),
        ("http://me:secret@127.0.0.1:1/x", "the address has a password in it"),
        ("http:///x", "names no host"),
        ("http://127.0.0.1:port/x", "is not an address"),
    ],
)
def test_addresses_and_settings_that_are_none(url: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as raised:
        load_reward(url)
    assert "secret" not in str(raised.value)
