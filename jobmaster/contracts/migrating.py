"""One migration at a time in a process.

Alembic keeps the environment of the migration under way in module globals, so two of them, of two stores, would read
each other's. Whoever calls Alembic holds this: a thread of its own the lock itself, a coroutine `one_at_a_time`, as a
coroutine that blocked here would keep the one that holds the lock from going on.
"""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

ONE_AT_A_TIME = threading.Lock()
LOOK_SECONDS = 0.02


@asynccontextmanager
async def one_at_a_time() -> AsyncIterator[None]:
    """Hold the lock, without blocking the event loop while others do."""
    while not ONE_AT_A_TIME.acquire(blocking=False):  # noqa: ASYNC110 - other threads hold it too
        await asyncio.sleep(LOOK_SECONDS)
    try:
        yield
    finally:
        ONE_AT_A_TIME.release()
