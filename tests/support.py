"""What many tests need: waiting for a fact with a deadline."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

from jobmaster import JobInfo, Scheduler

T = TypeVar("T")

POLL_SECONDS = 0.005


@overload
async def eventually(fact: Callable[[], Awaitable[T]], within: float = 30.0, what: str = "") -> T: ...
@overload
async def eventually(fact: Callable[[], T], within: float = 30.0, what: str = "") -> T: ...
async def eventually(fact: Callable[[], Any], within: float = 30.0, what: str = "") -> Any:
    """Poll until `fact` gives something true, and give that; fail with its last value after `within` seconds."""
    deadline = time.monotonic() + within
    while True:
        value = fact()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(
                f"not within {within} s: {what or inspect.getsource(fact).strip()}; last seen {value!r}"
            )
        await asyncio.sleep(POLL_SECONDS)


def until(fact: Callable[[], T], within: float = 30.0, what: str = "", every: float = 0.02) -> T:
    """`eventually` for code without an event loop."""
    deadline = time.monotonic() + within
    while not (value := fact()):
        if time.monotonic() > deadline:
            raise AssertionError(
                f"not within {within} s: {what or inspect.getsource(fact).strip()}; last seen {value!r}"
            )
        time.sleep(every)
    return value


async def paced(ended: asyncio.Event, seconds: float) -> bool:
    """The rhythm of a load: whether it is to end, which is asked at most for so long."""
    try:
        async with asyncio.timeout(seconds):
            return await ended.wait()
    except TimeoutError:
        return False


async def recorded(scheduler: Scheduler, job_id: str, runs: int = 1) -> JobInfo:
    """An ended job, once the history has its runs; they come through an outbox, a moment after the end."""

    async def found() -> JobInfo | None:
        info = await scheduler.get(job_id)
        return info if len(info.runs) >= runs else None

    info = await eventually(found, what=f"job {job_id} has {runs} runs in the history")
    assert info is not None
    return info
