from __future__ import annotations

import asyncio
import threading
import time

import pytest

from server.errors import ApiError
from server.work import WorkPool


def test_work_does_not_block_the_event_loop() -> None:
    async def story() -> tuple[int, int]:
        pool = WorkPool("test", threads=1, waiting=1)
        ticks = 0
        running = asyncio.ensure_future(pool.run(lambda: time.sleep(0.3) or 7))
        while not running.done():
            ticks += 1
            await asyncio.sleep(0.01)
        pool.close()
        return ticks, await running

    ticks, result = asyncio.run(story())
    assert result == 7
    assert ticks > 5


def test_beyond_the_queue_a_call_is_refused_with_retry_after() -> None:
    async def story() -> None:
        pool = WorkPool("test", threads=1, waiting=2)
        gate = threading.Event()
        taken = [asyncio.ensure_future(pool.run(gate.wait)) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(ApiError) as raised:
            await pool.run(gate.wait)
        assert (raised.value.status, raised.value.code) == (503, "overloaded")
        assert int(raised.value.headers["Retry-After"]) >= 1
        gate.set()
        assert await asyncio.gather(*taken) == [True, True, True]
        assert await pool.run(lambda: "again") == "again"
        assert pool.pending == 0
        pool.close()

    asyncio.run(story())


def test_a_caller_that_gives_up_frees_its_place() -> None:
    async def story() -> None:
        pool = WorkPool("test", threads=1, waiting=1)
        gate = threading.Event()
        running = asyncio.ensure_future(pool.run(gate.wait))
        waiting = asyncio.ensure_future(pool.run(gate.wait))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.sleep(0.01)
        next_one = asyncio.ensure_future(pool.run(gate.wait))
        await asyncio.sleep(0)
        gate.set()
        assert await running and await next_one
        pool.close()

    asyncio.run(story())


def test_a_failure_reaches_its_caller_and_frees_the_place() -> None:
    async def story() -> None:
        pool = WorkPool("test", threads=1, waiting=0)
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                await pool.run(lambda: 1 // 0)
        pool.close()

    asyncio.run(story())
