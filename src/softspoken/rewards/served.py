"""A reward behind HTTP, for what cannot live in this environment: COMET, a compiler in a sandbox, a model on another machine.

`http://HOST/PATH` is sent, with POST and as JSON, what is to be scored, one place a response in each list:

    {"responses": ["…"], "texts": ["…"], "references": [["…", …]], "columns": {"name": [value, …]}}

and answers `{"scores": [0.5, …]}`: as many numbers, higher is better, or null where it has no opinion. `references` are empty lists where
there are none, a column's value is null where a row has none, and what JSON does not have (a date, say) is its text. An answer
other than 200 may say why as `{"error": "…"}`. Settings stand after a `#`, which is not sent: `http://HOST/PATH#timeout=300&batch=16`.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urldefrag

import urllib3
from urllib3.exceptions import HTTPError
from urllib3.util import Retry, Timeout, parse_url

from softspoken.rewards.functions import columns_of
from softspoken.types import Example, InputError, RunError, first_line, printable

SETTINGS: dict[str, tuple[float, float, float]] = {
    "batch": (64, 1, 100_000),
    "concurrency": (4, 1, 256),
    "timeout": (60, 0.1, 86_400),
    "retries": (6, 0, 100),
}
"""Responses in a request, requests at a time, seconds that a request may take, and how often it is tried again: default, least, most."""
AGAIN = (408, 425, 429, 500, 502, 503, 504)
"""Answers after which another try may do better."""
BACKOFF, LONGEST_WAIT = 0.5, 30.0
"""Seconds before the second try, doubled for each that follows, with some chance in it; and the longest that a server may ask for."""
LONGEST_ANSWER = (65_536, 256)
"""Bytes: so many, and so many more for each response."""


class _Answer(Exception):
    """Why there was no usable answer, and whether another try may do better."""

    def __init__(self, why: str, *, again: bool, retry_after: float = 0.0) -> None:
        super().__init__(why)
        self.again, self.retry_after = again, retry_after


@dataclass(frozen=True)
class Served:
    url: str
    """As it was given, settings and all."""
    address: str
    batch: int
    concurrency: int
    timeout: float
    retries: int
    pool: urllib3.PoolManager = field(repr=False)

    def __call__(self, responses: list[str], examples: list[Example]) -> list[float | None]:
        """Raises RunError where the server stays away or answers otherwise than it must."""
        pieces = [slice(first, first + self.batch) for first in range(0, len(responses), self.batch)]

        def scores_of(piece: slice) -> list[float | None]:
            return self._scores(responses[piece], examples[piece])

        with ThreadPoolExecutor(self.concurrency) as threads:
            answers = threads.map(scores_of, pieces)
            return [score for scores in answers for score in scores]

    def _scores(self, responses: list[str], examples: list[Example]) -> list[float | None]:
        try:
            return self._scored(responses, examples)
        except _Answer as reason:
            raise RunError(f"reward {self.url}: {reason}; see to the server, then go on with --resume") from reason

    def reach(self) -> None:
        """An empty request. Raises InputError where nobody answers, or with an answer that no other can follow."""
        try:
            self._scored([], [])
        except _Answer as reason:
            raise InputError(f"reward {self.url}: {reason}; start the server, or check the address") from reason

    def _scored(self, responses: list[str], examples: list[Example]) -> list[float | None]:
        body = _request(responses, examples)
        policy = Retry(total=self.retries, backoff_factor=BACKOFF, backoff_jitter=BACKOFF, backoff_max=LONGEST_WAIT)
        began, tries = time.monotonic(), 0
        while True:
            tries += 1
            try:
                return self._ask(body, len(responses))
            except _Answer as reason:
                if not reason.again:
                    raise
                if not policy.total:
                    waited = time.monotonic() - began
                    raise _Answer(
                        f"no answer after {tries} tries in {waited:.0f} s ({reason})", again=False
                    ) from reason
                # Of urllib3's policy the count and the growing wait; the tries are ours, for an answer is read to its end in one.
                policy = policy.increment("POST", self.address, error=HTTPError(str(reason)))
                time.sleep(max(policy.get_backoff_time(), min(reason.retry_after, LONGEST_WAIT)) or BACKOFF / 2)

    def _ask(self, body: bytes, count: int) -> list[float | None]:
        """One try, whose answer is read within the time and the length that it may have."""
        end = time.monotonic() + self.timeout
        most = LONGEST_ANSWER[0] + LONGEST_ANSWER[1] * count
        try:
            answer = self.pool.request(
                "POST",
                self.address,
                body=body,
                headers={"Content-Type": "application/json", "Accept-Encoding": "identity"},
                timeout=Timeout(total=self.timeout),
                retries=False,
                redirect=False,
                preload_content=False,
            )
            try:
                content = _read(answer, most, end)
            finally:
                answer.close()  # to the end of it, the connection had gone back to be used again
        except (HTTPError, OSError) as error:
            raise _Answer(_in_words(error), again=True) from error
        if answer.status != 200:
            said = f"it answers {answer.status} ({_error_of(content)})"
            raise _Answer(said, again=answer.status in AGAIN, retry_after=_seconds(answer.headers.get("Retry-After")))
        return _scores_in(content, count)


def load_served(url: str) -> Served:
    """The server at an address, which is asked whether it is there. Raises InputError for an address or settings that are none."""
    address, settings = urldefrag(url)
    try:
        parts = parse_url(address)
    except HTTPError as error:
        raise InputError(
            f"reward {url!r} is not an address ({first_line(error)}); write http://HOST:PORT/PATH"
        ) from error
    if not parts.host:
        raise InputError(f"reward {url!r} names no host; write http://HOST:PORT/PATH")
    if parts.auth:
        raise InputError("reward: the address has a password in it, which a run's record would keep; leave it out")
    chosen = _settings(url, settings)
    pool = urllib3.PoolManager(maxsize=int(chosen["concurrency"]), block=False)
    served = Served(
        url,
        address,
        batch=int(chosen["batch"]),
        concurrency=int(chosen["concurrency"]),
        timeout=chosen["timeout"],
        retries=int(chosen["retries"]),
        pool=pool,
    )
    served.reach()
    return served


def is_served(spec: str) -> bool:
    return spec.startswith(("http://", "https://"))


def _settings(url: str, written: str) -> dict[str, float]:
    chosen = {name: default for name, (default, _, _) in SETTINGS.items()}
    for name, value in parse_qsl(written, keep_blank_values=True) or ([(written, "")] if written else []):
        if name not in SETTINGS:
            raise InputError(
                f"reward {url!r}: no setting {name!r}; there is {', '.join(SETTINGS)}, written #timeout=60&batch=16"
            )
        _, least, most = SETTINGS[name]
        try:
            chosen[name] = float(value)
        except ValueError:
            chosen[name] = math.nan
        if not least <= chosen[name] <= most or (name != "timeout" and not chosen[name].is_integer()):
            whole = "a number" if name == "timeout" else "a whole number"
            raise InputError(
                f"reward {url!r}: {name} {value!r} cannot be used: give {whole} from {least:g} to {most:,g}"
            )
    return chosen


def _request(responses: list[str], examples: list[Example]) -> bytes:
    references = [example.references for example in examples]
    columns = {str(name): [_plain(value) for value in values] for name, values in columns_of(examples).items()}
    sent = {
        "responses": responses,
        "texts": [example.text for example in examples],
        "references": references,
        "columns": columns,
    }
    return json.dumps(sent, ensure_ascii=False).encode("utf-8", "replace")


def _plain(value: Any) -> Any:
    """As JSON has it: what it does not have is its text, and no number is null."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return str(value)


def _read(answer: Any, most: int, end: float) -> bytes:
    """Piece by piece as they come: one that drips is given up in time, one without end at its length."""
    content = b""
    while piece := answer.read1(65_536, decode_content=False):
        content += piece
        if len(content) > most:
            raise _Answer(f"its answer has more than {most:,} bytes", again=False)
        if time.monotonic() > end:
            raise _Answer("its answer was not there in time", again=True)
    return content


def _scores_in(content: bytes, count: int) -> list[float | None]:
    wrong = f'it must answer {{"scores": [number, …]}}, one for each of {count} responses, and answers '
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _Answer(wrong + _shown(content), again=False) from error
    scores = answer.get("scores") if isinstance(answer, dict) else None
    if not isinstance(scores, list) or len(scores) != count:
        raise _Answer(wrong + _shown(content), again=False)
    for score in scores:
        number = isinstance(score, int | float) and not isinstance(score, bool)
        if score is not None and not (number and abs(score) < 1e30):
            raise _Answer(f"one of its scores is {score!r}, which is no number", again=False)
    return scores


def _error_of(content: bytes) -> str:
    try:
        answer = json.loads(content)
        said = answer.get("error") or answer.get("detail")
        return printable(str(said))[:300] if said else _shown(content)
    except (ValueError, RecursionError, AttributeError):
        return _shown(content)


def _shown(content: bytes) -> str:
    text = content[:200].decode("utf-8", "replace")
    return printable(text) + ("…" if len(content) > 200 else "") if text else "nothing"


def _seconds(retry_after: str | None) -> float:
    try:
        return max(0.0, float(retry_after or 0))
    except ValueError:  # a date
        return 0.0


def _in_words(error: BaseException) -> str:
    """urllib3 names its objects in what it says; why the operating system refused comes last."""
    return first_line(error).rpartition("): ")[2] or type(error).__name__
