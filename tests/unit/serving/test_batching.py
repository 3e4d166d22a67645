"""The queue between requests and the model: what shares a batch, what is refused, and that nothing accepted is lost."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from softspoken.serving import batching
from softspoken.serving.batching import Batcher, Shed, Work

Test = Callable[[Batcher], Awaitable[None]]
PATIENCE = 120.0
"""Seconds for what comes at once on a machine that has nothing else to do."""


def work(what: Any, length: int = 1, key: str = "k", seconds: float = PATIENCE, cost: int = 1) -> Work:
    loop = asyncio.get_running_loop()
    return Work(what, length, key, loop.time() + seconds, loop.create_future(), cost)


def take(batcher: Batcher, cost: int, seconds: float) -> None:
    with batcher.room(cost, seconds):
        pass


class Held:
    """A model that waits until it is let go, and remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.let_go = threading.Event()

    def __call__(self, key: Any, whats: list[Any]) -> list[Any]:
        self.batches.append(list(whats))
        assert self.let_go.wait(PATIENCE)
        return [ValueError(what) if what == "bad" else f"{what}!" for what in whats]


def run(test: Callable[[Batcher, Held], Awaitable[None]], **settings: Any) -> None:
    async def all_of_it() -> None:
        held = Held()
        batcher = Batcher(held, **{"workers": 1, "batch_size": 3, "queue_size": 6, **settings})
        batcher.start()
        try:
            await test(batcher, held)
        finally:
            held.let_go.set()
            await asyncio.wait_for(batcher.drain(), PATIENCE)

    asyncio.run(all_of_it())


async def begun(held: Held, batches: int) -> None:
    end = asyncio.get_running_loop().time() + PATIENCE
    while len(held.batches) < batches:
        assert asyncio.get_running_loop().time() < end, held.batches
        await asyncio.sleep(0.002)


def test_what_waits_shares_a_batch_with_the_nearest_in_length_and_the_oldest_is_in_it() -> None:
    async def test(batcher: Batcher, held: Held) -> None:
        first = work("first")
        batcher.submit([first])
        await begun(held, 1)
        rest = [work("long", 90), work("short", 3), work("longer", 99), work("other", 91, key="other"), work("mid", 80)]
        batcher.submit(rest)
        held.let_go.set()
        assert await first.done == "first!"
        assert await asyncio.gather(*(one.done for one in rest)) == ["long!", "short!", "longer!", "other!", "mid!"]
        assert held.batches[1] == ["long", "longer", "mid"]  # 0, 9 and 10 from the oldest's length
        assert held.batches[2:] == [["short"], ["other"]]

    run(test)


def test_beyond_the_queue_it_is_429_and_what_waits_is_answered() -> None:
    async def test(batcher: Batcher, held: Held) -> None:
        works = [work(number) for number in range(7)]
        batcher.submit(works[:1])
        await begun(held, 1)
        batcher.submit(works[1:])
        with pytest.raises(Shed, match="6 texts waiting, of 6 at most") as shed:
            take(batcher, 1, 5.0)
        assert shed.value.status == 429
        assert shed.value.retry_after >= 1
        held.let_go.set()
        assert [await one.done for one in works] == [f"{number}!" for number in range(7)]

    run(test)


def test_room_that_is_held_is_nobody_elses() -> None:
    async def test(batcher: Batcher, held: Held) -> None:
        with batcher.room(4, 5.0):
            take(batcher, 2, 5.0)
            with pytest.raises(Shed, match="4 texts waiting"):
                take(batcher, 3, 5.0)
        take(batcher, 6, 5.0)

    run(test)


def test_what_could_not_be_done_in_time_is_503_at_once() -> None:
    async def test(batcher: Batcher, held: Held) -> None:
        batcher.speed, batcher.batch_seconds = 2.0, 0.5
        take(batcher, 1, 1.43)  # 1 / 2 + 0.5 s, of which 0.7 may be planned with
        with pytest.raises(Shed, match=r"longer than the 1\.42 seconds") as shed:
            take(batcher, 1, 1.42)
        assert shed.value.status == 503

    run(test)


def test_what_waited_past_its_deadline_is_told_so_and_not_computed() -> None:
    async def test(batcher: Batcher, held: Held) -> None:
        batcher.submit([work("first")])
        await begun(held, 1)
        late, timely = work("late", seconds=0.01), work("timely")
        batcher.submit([late, timely])
        await asyncio.sleep(0.02)
        held.let_go.set()
        assert await timely.done == "timely!"
        with pytest.raises(Shed, match="did not come within its deadline"):
            await late.done
        assert held.batches == [["first"], ["timely"]]

    run(test)


def test_what_nobody_waits_for_any_more_is_not_computed() -> None:
    async def test(batcher: Batcher, held: Held) -> None:
        first = work("first")
        batcher.submit([first])
        await begun(held, 1)
        gone, here = work("gone"), work("here")
        batcher.submit([gone, here])
        batcher.forget([gone])
        held.let_go.set()
        assert await here.done == "here!"
        assert held.batches == [["first"], ["here"]]

    run(test)


def test_one_that_fails_fails_alone_and_a_batch_that_fails_fails_whole() -> None:
    async def test(batcher: Batcher, held: Held) -> None:
        held.let_go.set()
        bad, good = work("bad"), work("good")
        batcher.submit([bad, good])
        assert await good.done == "good!"
        with pytest.raises(ValueError, match="bad"):
            await bad.done

        def broken(key: Any, whats: list[Any]) -> list[Any]:
            raise RuntimeError("no memory")

        batcher.compute = broken
        both = [work("a"), work("b")]
        batcher.submit(both)
        for one in both:
            with pytest.raises(RuntimeError, match="no memory"):
                await one.done

    run(test)


def test_draining_answers_what_was_taken_on_and_takes_nothing_more() -> None:
    async def test(batcher: Batcher, held: Held) -> None:
        works = [work(number) for number in range(5)]
        batcher.submit(works)
        await begun(held, 1)
        ending = asyncio.create_task(batcher.drain())
        await asyncio.sleep(0)
        with pytest.raises(Shed, match="shutting down"):
            take(batcher, 1, 5.0)
        held.let_go.set()
        await ending
        assert [one.done.result() for one in works] == [f"{number}!" for number in range(5)]

    run(test)


def test_idle_workers_share_what_waits() -> None:
    async def test(batcher: Batcher, held: Held) -> None:
        works = [work(number) for number in range(6)]
        batcher.submit(works)
        await begun(held, 2)
        held.let_go.set()
        await asyncio.gather(*(one.done for one in works))
        assert sorted(map(len, held.batches)) == [3, 3]

    run(test, workers=2, batch_size=8)


def test_whoever_was_just_answered_is_waited_for_and_one_alone_waits_for_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By a clock that stands still until it is told."""
    clock = [0.0]
    monkeypatch.setattr(batching, "time", SimpleNamespace(perf_counter=lambda: clock[0]))

    async def done(batcher: Batcher, *numbers: int) -> None:
        works = [work(number) for number in numbers]
        batcher.submit(works)
        await asyncio.gather(*(one.done for one in works))

    async def test(batcher: Batcher, held: Held) -> None:
        held.let_go.set()
        await done(batcher, 0, 1, 2)
        batcher.batch_seconds = 1.0  # a tenth of it, 0.05 s at most, may be waited
        first = asyncio.create_task(done(batcher, 3))
        for _ in range(3):  # of the worker's glances
            await asyncio.sleep(batching.GLANCE)
        assert held.batches == [[0, 1, 2]]
        await done(batcher, 4, 5)
        await first
        assert held.batches == [[0, 1, 2], [3, 4, 5]]
        batcher.batch_seconds = 1.0
        first = asyncio.create_task(done(batcher, 6))
        await asyncio.sleep(batching.GLANCE)
        clock[0] = 0.0499
        await asyncio.sleep(batching.GLANCE)
        assert len(held.batches) == 2
        clock[0] = 0.05  # nobody else has come
        await first
        for number in (7, 8):  # the last batch was of one: the clock stands, and none is waited for
            batcher.batch_seconds = 1.0
            await done(batcher, number)
        assert held.batches[2:] == [[6], [7], [8]]

    run(test)
