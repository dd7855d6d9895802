"""Running a coroutine from the command line: uvloop where it is installed, and Ctrl-C as a request, not as an axe."""

import asyncio
import gc
import signal
from collections.abc import Callable, Coroutine
from typing import Any, Self, TypeVar

T = TypeVar("T")

YOUNG_OBJECTS = 20_000
"""More than all jobs at hand in a worker are made of. What a run leaves behind is freed without the collector, which
looks for cycles only; at Python's own 700 it looked through every job several times, for a sixth of the time."""


def run_async(main: Coroutine[Any, Any, T]) -> T:
    """Like `asyncio.run`, on uvloop where present, in a process whose garbage collector is ours to tune."""
    gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])
    try:
        from uvloop import new_event_loop
    except ImportError:
        factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    else:
        factory = new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)


class StopSignals:
    """SIGINT and SIGTERM as events: the first asks for a graceful end, the second for an immediate one."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.insisted = asyncio.Event()

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._arrived)
        return self

    def __exit__(self, *_: object) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)

    def _arrived(self) -> None:
        (self.insisted if self.asked.is_set() else self.asked).set()
