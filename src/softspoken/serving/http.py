"""What stands between the network and the application: bounds on what is read and how long it may take, keys, a shutdown that
answers what was taken on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any

import uvicorn
from starlette.exceptions import HTTPException
from uvicorn.protocols.http.h11_impl import H11Protocol

from softspoken.config import ServeConfig
from softspoken.config.serving import is_loopback
from softspoken.serving.batching import Shed
from softspoken.serving.keys import Keys
from softspoken.serving.observed import Observed

log = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

HEAD_SECONDS = 10.0
"""For a connection's first request line and headers."""
BODY_SECONDS = 10.0
WRITE_SECONDS = 30.0
"""For a client to take an answer."""
HEAD_BYTES = 16_384
WORK_PATHS = ("/v1/generate", "/v1/score")
OPEN_PATHS = ("/health", "/ready", "/docs", "/openapi.json")
"""What needs no key: probes, and what says how to ask."""


class Gate:
    """ASGI: who may come in, and how much they may bring. Where there is no room for one text more, work is refused here, before
    its body is read: at ten times the requests that can be answered, refusing them must cost next to nothing."""

    def __init__(
        self, app: App, config: ServeConfig, keys: Keys | None, observed: Observed, require_room: Callable[[], None]
    ) -> None:
        """`require_room` raises Shed."""
        self.app, self.config, self.keys, self.observed, self.require_room = app, config, keys, observed, require_room
        self.loopback_alone = keys is None and is_loopback(config.host)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        refused = self._refusal(scope["path"], scope["method"], headers)
        counted = _Counted(send, scope["path"], self.observed)
        if refused:
            await _answer(counted, *refused)
            return
        if scope["path"] in WORK_PATHS:
            try:
                self.require_room()
            except Shed as shed:
                self.observed.sheds.labels(shed.status).inc()
                await _answer(counted, shed.status, str(shed), shed.retry_after)
                return
        await self.app(scope, _bounded(receive, self.config.most_body_bytes), counted)

    def _refusal(self, path: str, method: str, headers: dict[str, str]) -> tuple[int, str] | None:
        """A page of the web that asks this machine's own address in a browser's name is kept out by Host and Content-Type."""
        host = headers.get("host", "")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if self.loopback_alone and not is_loopback(name):
            return 403, "this server answers its own machine alone; ask http://127.0.0.1"
        if self.keys and path not in OPEN_PATHS and not self.keys.hold(headers.get("authorization")):
            return 401, "give a key of this server as Authorization: Bearer KEY"
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > self.config.most_body_bytes:
            return 413, f"a request may have {self.config.most_body_bytes:,} bytes; send fewer texts at once"
        if method == "POST" and headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return 415, "send JSON, with Content-Type: application/json"
        return None


def _bounded(receive: Receive, most: int) -> Receive:
    """The body within its bounds of size and time; after it, whatever comes (that the client has gone)."""
    read, whole, until = 0, False, asyncio.get_running_loop().time() + BODY_SECONDS

    async def bounded() -> Message:
        nonlocal read, whole
        if whole:
            return await receive()
        try:
            left = until - asyncio.get_running_loop().time()
            message = await asyncio.wait_for(receive(), max(0.0, left))
        except TimeoutError:
            raise HTTPException(
                408, f"the request did not arrive within {BODY_SECONDS:g} seconds; send it again"
            ) from None
        except asyncio.TimeoutError:
            raise HTTPException(
                408, f"the request did not arrive within {BODY_SECONDS:g} seconds; send it again"
            ) from None
        read += len(message.get("body", b""))
        whole = not message.get("more_body", False)
        if read > most:
            raise HTTPException(413, f"a request may have {most:,} bytes; send fewer texts at once")
        return message

    return bounded


class _Counted:
    """`send`, with a bound on how long a client may take, and the status counted."""

    def __init__(self, send: Send, path: str, observed: Observed) -> None:
        self.send, self.path, self.observed, self.start = send, path, observed, time.perf_counter()

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            known = self.path if self.path.startswith(("/v1/", *OPEN_PATHS, "/metrics")) else "other"
            self.observed.requests.labels(known[:40], message["status"]).inc()
            if message["status"] in (429, 503):
                self.observed.seconds.labels("shed").observe(time.perf_counter() - self.start)
        await asyncio.wait_for(self.send(message), WRITE_SECONDS)


async def _answer(send: Send, status: int, reason: str, retry_after: int | None = None) -> None:
    body = json.dumps({"error": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(b"retry-after", str(retry_after).encode())] if retry_after else []
    headers += [(b"www-authenticate", b"Bearer")] if status == 401 else []
    headers += [(b"connection", b"close")] if status == 413 else []  # its body is not read
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


# ------------------------------------------------------------------------------------------------------ the server


class _Protocol(H11Protocol):
    """A connection on which no request arrives in time is closed: uvicorn itself waits for ever for the first."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._late = self.loop.call_later(HEAD_SECONDS, self._close_if_silent)

    def connection_lost(self, exc: Exception | None) -> None:
        self._late.cancel()
        super().connection_lost(exc)

    def _close_if_silent(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.close()


class Server(uvicorn.Server):
    """Ends well: SIGTERM and Ctrl-C let what was taken on be answered, a second one ends at once."""

    def handle_exit(self, sig: int, frame: Any) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            log.info("listening on %s; how to ask is at /docs", self.address)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, but a signal that was heeded is not raised again: to be stopped is how a server ends."""
        try:
            before = {signum: signal.signal(signum, self.handle_exit) for signum in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:  # not the main thread: whoever started it stops it
            before = {}
        try:
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)

    @property
    def address(self) -> str:
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def server_of(app: App, config: ServeConfig) -> Server:
    return Server(
        uvicorn.Config(
            app,
            host=config.host,
            port=config.port,
            http=_Protocol,
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=config.connections,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=int(config.deadline) + 5,
            h11_max_incomplete_event_size=HEAD_BYTES,
        )
    )
