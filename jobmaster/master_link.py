"""MasterLink: the master as one process sees it, whether it answers or not.

Work must go on without the master, so nothing may wait for it for long. A call that is not answered in time ends as
`MasterUnavailable`, or as `Indeterminate` where its commit was under way. From then on the master counts as away: calls
fail at once, without being sent, while one loop asks again and again whether it is back.
"""

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any, TypeVar, cast

import structlog

from jobmaster.contracts.attempt import Attempt, waited_for
from jobmaster.contracts.clock import Clock
from jobmaster.contracts.master import MasterStore
from jobmaster.contracts.values import ProbeReport
from jobmaster.loop import Loop
from jobmaster.model.errors import Indeterminate, MasterSealed, MasterUnavailable

T = TypeVar("T")

PATIENCE_SECONDS = 1.5
"""How long somebody waits for one answer."""
PATIENCE_PER_ITEM = 0.002
"""And how much longer for each item of a bulk."""
GRACE_SECONDS = 0.2
"""Then what this process may have been too busy to read is read."""
OPENING_SECONDS = 3.0
CLOSING_SECONDS = 3.0
IDLE_SECONDS = 60.0

IN_THE_BACKGROUND: dict[str, float] = {
    **dict.fromkeys(
        ("apply", "move", "copy", "sweep", "prune", "plan", "overdue", "due", "hand_off", "backfill", "sync_profiles"),
        30.0,
    ),
    **dict.fromkeys(("page", "counts", "quarantined", "probe"), 10.0),
}
"""Calls of duties, and of lists that may have much to read: nobody's work waits for them."""

_log = structlog.get_logger("jobmaster.master")


def _nothing() -> None:
    return


class MasterLink:
    """One process's link to a master on a server. `store` is what everybody else uses; a master in this process or in a
    file is used as it is, as there is nothing in between that could be away."""

    def __init__(self, master: MasterStore, clock: Clock, rng: Random) -> None:
        self.returned: Callable[[], None] = _nothing
        """Called each time the master answers after having been away."""
        self.store = cast("MasterStore", _Linked(self, master)) if master.remote else master
        self._master = master
        self._clock = clock
        self._loop = Loop("master", self._look, clock=clock, rng=rng, idle=IDLE_SECONDS)
        self._opening: asyncio.Task[ProbeReport] | None = None
        self._opened = False
        self._problem: str | None = None
        self._away_since = 0.0
        self._abandoned: set[asyncio.Task[Any]] = set()

    @property
    def problem(self) -> str | None:
        """Why the master counts as away; None while it answers."""
        return self._problem

    async def open(self) -> bool:
        """Open the master; False where it does not answer, and then it is opened in the background. Raises what can't
        mend itself: `UnsafeStore`, `SchemaOutdated`, a refused password, a file that can't be opened."""
        if not self._master.remote:
            await self._master.open()
            return True
        try:
            await self._open()
        except MasterUnavailable as error:
            self._lost(error)
        self._loop.start()
        return self._problem is None

    async def close(self) -> None:
        """Give everything back, as far as a master that does not answer lets us. Never raises."""
        await self._loop.stop(grace=0.5)
        left = {task for task in (self._opening, *self._abandoned) if task is not None and not task.done()}
        for task in left:
            task.cancel()
        closing = asyncio.ensure_future(self._master.close())
        await asyncio.wait({closing, *left}, timeout=CLOSING_SECONDS if self._master.remote else None)
        if not closing.done():
            closing.cancel()
            _log.warning("master.not_closed", then="its connections end with this process")

    async def call(self, name: str, verb: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T:
        """A verb of the master, in limited time. Raises what the verb raises, `MasterUnavailable`, `Indeterminate`."""
        if self._problem is not None:
            raise MasterUnavailable(self._problem, "what needs it fails until it is back, all else goes on")
        try:
            return await self._in_time(verb, _patience(name, args), *args, **kwargs)
        except MasterSealed:
            # It answers, and reads go on.
            raise
        except MasterUnavailable as error:
            self._lost(error)
            raise

    async def _in_time(self, verb: Callable[..., Awaitable[T]], seconds: float, *args: Any, **kwargs: Any) -> T:
        attempt = Attempt()

        async def attempted() -> T:
            waited_for.set(attempt)
            return await verb(*args, **kwargs)

        task = asyncio.get_running_loop().create_task(attempted())
        try:
            for wait in (seconds, GRACE_SECONDS):
                if not task.done():
                    await asyncio.wait({task}, timeout=wait)
        except asyncio.CancelledError:
            attempt.give_up()
            self._abandon(task)
            raise
        if task.done():
            return task.result()
        applied_not = attempt.give_up()
        self._abandon(task)
        error = MasterUnavailable(f"it did not answer within {seconds:g} s", "check that the server runs")
        if applied_not:
            raise error
        self._lost(error)
        raise Indeterminate("the master did not answer in time whether it committed")

    def _abandon(self, task: "asyncio.Task[Any]") -> None:
        """Wait no longer. What a connection needs to come back, or to end, happens behind."""
        task.cancel()
        self._abandoned.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._abandoned.discard(task)
        if not task.cancelled():
            # Looked at, so that it is not reported as never retrieved.
            task.exception()

    def _lost(self, error: MasterUnavailable) -> None:
        if self._problem is None:
            self._away_since = self._clock.mono()
            _log.warning("master.away", error=str(error), then="work goes on; history follows once it is back")
            self._loop.wake()
        self._problem = error.problem

    async def _look(self) -> float:
        """One pass: is it back?"""
        if self._problem is None:
            return IDLE_SECONDS
        if self._opened:
            await self._in_time(self._master.store_now_us, PATIENCE_SECONDS)
        else:
            await self._open()
        self._problem = None
        _log.info("master.back", away_seconds=round(self._clock.mono() - self._away_since, 1))
        self.returned()
        return IDLE_SECONDS

    async def _open(self) -> None:
        """Never two at a time: one that hangs goes on, and is waited for again."""
        if self._opening is None:
            self._opening = asyncio.get_running_loop().create_task(self._master.open())
        await asyncio.wait({self._opening}, timeout=OPENING_SECONDS)
        if not self._opening.done():
            raise MasterUnavailable(f"it did not answer within {OPENING_SECONDS:g} s", "check that the server runs")
        opening, self._opening = self._opening, None
        opening.result()
        self._opened = True


class _Linked:
    """The master's verbs, each through the link."""

    def __init__(self, link: MasterLink, master: MasterStore) -> None:
        self._link = link
        self._master = master

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._master, name)
        if not asyncio.iscoroutinefunction(found):
            return found
        link = self._link

        async def verb(*args: Any, **kwargs: Any) -> Any:
            return await link.call(name, found, *args, **kwargs)

        # Kept, so that the next call finds it without asking here.
        self.__dict__[name] = verb
        return verb


def _patience(name: str, args: tuple[Any, ...]) -> float:
    items = len(args[0]) if args and isinstance(args[0], (list, tuple)) else 0
    return IN_THE_BACKGROUND.get(name, PATIENCE_SECONDS + PATIENCE_PER_ITEM * items)
