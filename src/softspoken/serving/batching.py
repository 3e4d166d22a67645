"""Texts of many requests in batches of similar length: a bounded queue, a deadline for each, and no more taken on than can be done.

All but `compute`, which threads call, runs in the event loop.
"""

from __future__ import annotations

import asyncio
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

GATHER, LONGEST_GATHER, GLANCE = 0.1, 0.05, 0.002
"""The share of a batch's time, and the seconds at most, for which a worker whose last batch was of several waits for as many again,
and how often it looks: whoever was just answered asks again, and half a batch takes nearly as long as a whole one."""
MARGIN = 0.7
"""The share of a deadline that the expected wait may take: the speed that is expected may fall."""
COMPUTES = 10
"""The nice value of threads that compute."""
SMOOTHING = 0.2
"""The weight of the latest batch in what is known of the speed."""


def give_way() -> None:
    """The thread that calls, and those that it will start, compute when those that answer have nothing to do."""
    if sys.platform == "linux":  # elsewhere threads of a process share its priority
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), COMPUTES)


class Shed(Exception):
    """Not taken on, or not in time."""

    def __init__(self, status: int, reason: str, retry_after: float) -> None:
        self.status, self.retry_after = status, max(1, math.ceil(retry_after))
        super().__init__(f"{reason}; ask again in {self.retry_after} s")


@dataclass(eq=False)
class Work:
    """One text of a request."""

    what: Any
    length: int
    """In tokens, or in anything that the work grows with."""
    key: Hashable
    """Works of one key may share a batch."""
    deadline: float
    """By the loop's clock."""
    done: asyncio.Future[Any]
    cost: int = 1
    came: float = field(default_factory=time.perf_counter)


Compute = Callable[[Hashable, list[Any]], Sequence[Any]]
"""A key and what is to be done → as many results; one that is an exception is raised where it is waited for."""


class Batcher:
    """Between `start` and `drain` it takes works on and does them."""

    def __init__(
        self,
        compute: Compute,
        *,
        workers: int,
        batch_size: int,
        queue_size: int,
        on_batch: Callable[[int, list[float]], None] = lambda size, waits: None,
    ) -> None:
        """`on_batch` is told of each batch its size and how long its works waited, in seconds."""
        self.compute, self.workers, self.batch_size, self.queue_size = compute, workers, batch_size, queue_size
        self.on_batch = on_batch
        self.waiting: list[Work] = []
        self.draining = False
        self.speed = 0.0
        """Cost done a second by one worker while it works; 0 before the first batch."""
        self.batch_seconds = 0.0
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="worker", initializer=give_way)
        self._came = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._running = self._reserved = 0

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._work()) for _ in range(self.workers)]

    # ---------------------------------------------------------------------------------------------------- taking on

    def require_room(self, cost: int, seconds: float) -> None:
        """Raises Shed where so much would not fit, or not be done within `seconds`."""
        if self.draining:
            raise Shed(503, "the server is shutting down", seconds)
        ahead = self._ahead()
        if ahead + cost > self.queue_size:
            raise Shed(429, f"there are {ahead} texts waiting, of {self.queue_size} at most", self.expected_wait(cost))
        if self.expected_wait(cost) > MARGIN * seconds:
            raise Shed(
                503, f"it would take longer than the {seconds:g} seconds that a request may", self.expected_wait(0)
            )

    @contextmanager
    def room(self, cost: int, seconds: float) -> Iterator[None]:
        """Inside it so much is held free, until it is submitted. Raises as `require_room`."""
        self.require_room(cost, seconds)
        self._reserved += cost
        try:
            yield
        finally:
            self._reserved -= cost

    def _ahead(self) -> int:
        return self._reserved + sum(work.cost for work in self.waiting)

    def expected_wait(self, more: int) -> float:
        """Seconds until all that waits and `more` are done, by the speed so far."""
        if not self.speed:
            return 0.0
        return (self._ahead() + more) / (self.speed * self.workers) + self.batch_seconds

    def submit(self, works: list[Work]) -> None:
        self.waiting += works
        self._came.set()

    def forget(self, works: list[Work]) -> None:
        """Whoever asked has gone: what is not begun is not done."""
        for work in works:
            work.done.cancel()
        self.waiting = [work for work in self.waiting if not work.done.cancelled()]

    async def drain(self) -> None:
        """Take nothing on any more; returns when all that was is done."""
        self.draining = True
        while self.waiting or self._running:
            await asyncio.sleep(0.01)
        for task in self._tasks:
            task.cancel()
        self._threads.shutdown(wait=True)

    # -------------------------------------------------------------------------------------------------------- doing

    async def _work(self) -> None:
        size = 1
        while True:
            await self._came.wait()
            until = time.perf_counter() + min(LONGEST_GATHER, GATHER * self.batch_seconds)
            while 0 < len(self.waiting) < size and time.perf_counter() < until:
                await asyncio.sleep(GLANCE)
            batch = self._next_batch()
            if not self.waiting:
                self._came.clear()
            if batch:
                size = len(batch)
                await self._do(batch)

    def _next_batch(self) -> list[Work]:
        """The oldest and those that are nearest to it in length."""
        now = asyncio.get_running_loop().time()
        live = []
        for work in self.waiting:
            if work.done.done():
                continue
            if work.deadline <= now:
                work.done.set_exception(Shed(503, "its turn did not come within its deadline", self.expected_wait(0)))
            else:
                live.append(work)
        self.waiting = live
        if not live:
            return []
        first = live[0]
        alike = sorted(
            (work for work in live if work.key == first.key), key=lambda work: abs(work.length - first.length)
        )
        idle = max(1, self.workers - self._running)
        batch = alike[: min(self.batch_size, max(1, -(-len(alike) // idle)))]
        if first not in batch:  # as near as others, and later in the sort
            batch[-1] = first
        taken = {id(work) for work in batch}
        self.waiting = [work for work in live if id(work) not in taken]
        return batch

    async def _do(self, batch: list[Work]) -> None:
        start = time.perf_counter()
        self.on_batch(len(batch), [start - work.came for work in batch])
        self._running += 1
        try:
            loop = asyncio.get_running_loop()
            results = await loop.run_in_executor(
                self._threads, self.compute, batch[0].key, [work.what for work in batch]
            )
        except Exception as error:
            results = [error] * len(batch)
        finally:
            self._running -= 1
        self._learn_speed(sum(work.cost for work in batch), time.perf_counter() - start)
        for work, result in zip(batch, results, strict=True):
            if work.done.done():
                continue
            if isinstance(result, Exception):
                work.done.set_exception(result)
            else:
                work.done.set_result(result)

    def _learn_speed(self, cost: int, seconds: float) -> None:
        speed = cost / max(seconds, 1e-6)
        known = self.speed > 0
        self.speed = speed if not known else (1 - SMOOTHING) * self.speed + SMOOTHING * speed
        self.batch_seconds = seconds if not known else (1 - SMOOTHING) * self.batch_seconds + SMOOTHING * seconds
