"""What many tests need: waiting for a fact with a deadline."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

T = TypeVar("T")

POLL_SECONDS = 0.005


@overload
async def eventually(fact: Callable[[], Awaitable[T]], within: float = 10.0, what: str = "") -> T: ...
@overload
async def eventually(fact: Callable[[], T], within: float = 10.0, what: str = "") -> T: ...
async def eventually(fact: Callable[[], Any], within: float = 10.0, what: str = "") -> Any:
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
