"""Clients that each ask, wait for the answer and ask again; and such as no server wishes for."""

from __future__ import annotations

import asyncio
import http.client
import json
import random
import socket
import threading
import time
from dataclasses import dataclass, field

import numpy as np

KEPT_SECONDS = 2.0
"""For which an idle connection is used again: a server may close one that has been idle for some seconds, at any moment."""


@dataclass
class Seen:
    """Of one load: seconds of each answer, by status."""

    seconds: float = 0.0
    answers: dict[int, list[float]] = field(default_factory=dict)
    lost: int = 0
    """Requests whose connection ended without an answer."""

    @property
    def good(self) -> list[float]:
        return self.answers.get(200, [])

    @property
    def rate(self) -> float:
        return len(self.good) / self.seconds

    def quantile(self, share: float, status: int = 200) -> float:
        found = self.answers.get(status, [])
        return float(np.quantile(found, share)) if found else float("nan")


def load(port: int, path: str, bodies: list[bytes], *, clients: int, seconds: float) -> Seen:
    """`clients` at once for so many seconds; what is begun by then is waited for."""
    seen, lock = Seen(), threading.Lock()
    start = time.perf_counter()

    def client(number: int) -> None:
        draw = random.Random(number)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        while time.perf_counter() - start < seconds:
            before = time.perf_counter()
            try:
                connection.request("POST", path, draw.choice(bodies), {"Content-Type": "application/json"})
                answer = connection.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException):
                connection.close()
                with lock:
                    seen.lost += 1
                continue
            with lock:
                seen.answers.setdefault(answer.status, []).append(time.perf_counter() - before)
        connection.close()

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seen.seconds = time.perf_counter() - start
    return seen


def arrivals(port: int, path: str, bodies: list[bytes], *, rate: float, seconds: float) -> Seen:
    """So many requests a second, whatever becomes of those before them; what is begun is waited for. Connections are kept."""
    seen, draw = Seen(), random.Random(0)
    idle: list[tuple[float, asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def client(body: bytes) -> None:
        before = time.perf_counter()
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        try:
            fresh = idle and before - idle[-1][0] < KEPT_SECONDS
            reader, writer = idle.pop()[1:] if fresh else await asyncio.open_connection("127.0.0.1", port)
            writer.write(head.encode() + body)
            answer = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(answer.partition(b"content-length:")[2].split(b"\r\n")[0]))
            seen.answers.setdefault(int(answer.split(b" ", 2)[1]), []).append(time.perf_counter() - before)
            if answer.startswith(b"http/1.1") and b"connection: close" not in answer:
                idle.append((time.perf_counter(), reader, writer))
        except (OSError, EOFError):
            seen.lost += 1

    async def all_of_them() -> None:
        start, clients = time.perf_counter(), []
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, start + number / rate - time.perf_counter()))
            clients.append(asyncio.create_task(client(draw.choice(bodies))))
        seen.seconds = time.perf_counter() - start
        await asyncio.gather(*clients)
        for *_, writer in idle:
            writer.close()

    asyncio.run(all_of_them())
    return seen


def trouble(port: int, bodies: list[bytes], seconds: float, seed: int = 0) -> dict[str, int]:
    """Clients that are killed while they wait, that send slowly, and that send garbage; how many of each."""
    draw, start = random.Random(seed), time.perf_counter()
    counts = {"killed": 0, "slow": 0, "garbage": 0}
    while time.perf_counter() - start < seconds:
        kind = draw.choice(list(counts))
        counts[kind] += 1
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=15) as wire:
                body = draw.choice(bodies)
                head = f"POST /v1/generate HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
                if kind == "killed":
                    wire.sendall(head.encode() + body)
                    time.sleep(draw.random() * 0.2)
                elif kind == "slow":
                    for piece in (head.encode()[:40], head.encode()[40:], body[:10]):
                        wire.sendall(piece)
                        time.sleep(draw.random())
                else:
                    wire.sendall(draw.randbytes(draw.randrange(1, 4000)))
                    wire.settimeout(1)
                    wire.recv(1000)
        except OSError:
            pass
    return counts


def bodies_of(texts: list[str], plain: bool) -> list[bytes]:
    return [json.dumps({"text": text} if plain else {"texts": [text]}).encode() for text in texts]
