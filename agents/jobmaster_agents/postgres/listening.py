"""Hints between processes: one connection that listens, and what is told through it.

All of it is hints. A notification may be lost, with the connection or behind a pooler, and nothing but speed depends on
it: whoever waits polls as well. So a listener that lost its connection tells everybody to look once it has a new one.
It also talks to itself now and then, because a connection through a pooler takes `LISTEN` and never hears anything.
"""

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from hashlib import blake2s

import asyncpg

from jobmaster.contracts.clock import Clock
from jobmaster.loop import Loop
from jobmaster.model.errors import AgentUnreachable
from jobmaster.waking import Hints
from jobmaster_agents.postgres.connection import Connection
from jobmaster_agents.postgres.notifying import ANY_END, ECHO, ENDS, LANES, MARK, WATCHED, Notifier, mark
from jobmaster_agents.postgres.store import Store

HEALTH_SECONDS = 15.0
"""How often the listener checks that it hears itself."""
ECHO_SECONDS = 5.0
DEAF_SECONDS = 60.0
"""How long one that does not is left alone."""
WATCHED_SECONDS = 30.0
"""How long ends are told after somebody said that he watches some job; he says it again before."""

_NOTIFY = "SELECT pg_notify($1, message) FROM unnest($2::text[]) AS message"
_TROUBLE = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)


class Listening:
    """What one handle and its companions hear and tell. `publish` and `gone` may be called from any thread, and send
    nothing before they return."""

    def __init__(self, store: Store, clock: Clock) -> None:
        prefix = store.tables.prefix
        self.channel = f"jm_{blake2s(prefix.encode(), digest_size=20).hexdigest()}"
        self.hints = Hints()
        self._agent = store.agent
        self._database = store.database
        self._clock = clock
        self._origin = os.urandom(4).hex()
        self._notifier = Notifier(self._send, clock)
        self._seen: dict[frozenset[str], int] = {}
        self._loop: Loop | None = None
        self._ear: Connection | None = None
        self._turn = asyncio.Lock()
        self._echo: asyncio.Future[None] | None = None
        self._hearing = False
        self._settled = asyncio.Event()
        self._watched_until = float("-inf")
        self._told_watching = float("-inf")

    @property
    def hearing(self) -> bool:
        """Whether what other processes tell arrives."""
        return self._hearing

    async def start(self) -> None:
        """Tell from now on; and hear, unless there is a pooler between, which gives each transaction another session.
        Waits for the first attempt to end, whatever came of it."""
        self._notifier.start()
        if self._database.pooled:
            return
        rng = random.Random()  # noqa: S311 - jitter
        self._loop = Loop("postgres.listen", self._listen, clock=self._clock, rng=rng, idle=DEAF_SECONDS)
        self._loop.start()
        await self._settled.wait()

    async def stop(self) -> None:
        """Nothing is told or heard any more. Never raises."""
        await self._notifier.stop()
        if self._loop is not None:
            await self._loop.stop(grace=0.1)
        self._drop()

    def publish(self, lanes: Iterable[str]) -> None:
        """These lanes may have ready jobs: everybody who waits for them is woken, in every process."""
        self.hints.publish(map(_lane_topic, lanes))
        self._notifier.tell_lanes(lanes)

    def look_again(self, lanes: Iterable[str]) -> None:
        """These lanes may have more ready jobs than was seen: who waits for them in this process is woken."""
        self.hints.publish(map(_lane_topic, lanes))

    def gone(self, ids: Sequence[str]) -> None:
        """These jobs are here no more: whoever watches them is woken."""
        self.hints.wake(map(mark, ids))
        if self._clock.mono() < self._watched_until:
            self._notifier.tell_ends(ids)

    async def wait(self, lanes: frozenset[str], seconds: float) -> None:
        """Return early if one of the lanes was published since the last wait for them; else after `seconds`."""
        topics = frozenset(map(_lane_topic, lanes))
        seen = self._seen.get(lanes, 0)
        with self.hints.waiting(topics, 0.0) as waiter:
            if self.hints.count(topics) == seen and seconds > 0:
                await waiter.wait(self._clock.sleep(seconds))
        self._seen[lanes] = self.hints.count(topics)

    async def watch(self, ids: frozenset[str], seconds: float, any_ended: Callable[[], Awaitable[bool]]) -> None:
        """Return early if one of the jobs may have ended; `any_ended` asks the store."""
        if seconds <= 0:
            return
        with self.hints.waiting(frozenset({ANY_END, *map(mark, ids)}), 0.0) as waiter:
            self._say_watching()
            if not await any_ended():
                await waiter.wait(self._clock.sleep(seconds))

    def _say_watching(self) -> None:
        # Ends are told only to those who want to hear of them: at full speed they are thousands a second.
        now = self._clock.mono()
        if now >= self._told_watching + WATCHED_SECONDS / 3:
            self._told_watching = now
            self._notifier.tell(WATCHED)

    async def _listen(self) -> float:
        """One pass of the loop: be connected, and hear oneself."""
        try:
            fresh = self._ear is None or self._ear.is_closed()
            if fresh:
                self._hearing = False
                self._ear = await self._open_ear()
            self._hearing = await self._hears_itself()
        except _TROUBLE as error:
            self._drop()
            raise AgentUnreachable(self._agent, f"listening failed: {type(error).__name__}: {error}") from error
        except BaseException:
            self._drop()
            raise
        finally:
            self._settled.set()
        if fresh:
            # Whatever was told while nobody listened.
            self.hints.look(changed=True)
        if self._hearing:
            return HEALTH_SECONDS
        self._drop()
        return DEAF_SECONDS

    async def _open_ear(self) -> Connection:
        ear: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(**self._database.settings())
        try:
            # Only hints are written here, so no commit need wait for a disk.
            await ear.execute("SET synchronous_commit = off")
            await ear.add_listener(self.channel, self._heard)
            ear.add_termination_listener(self._lost)
        except BaseException:
            ear.terminate()
            raise
        return ear

    def _lost(self, ear: Connection) -> None:
        if ear is self._ear and self._loop is not None:
            self._hearing = False
            self._loop.wake()

    def _drop(self) -> None:
        ear, self._ear = self._ear, None
        self._hearing = False
        if ear is not None:
            ear.terminate()

    async def _hears_itself(self) -> bool:
        self._echo = asyncio.get_running_loop().create_future()
        try:
            await self._send([ECHO])
            async with asyncio.timeout(ECHO_SECONDS):
                await self._echo
        except TimeoutError:
            return False
        finally:
            self._echo = None
        return True

    async def _send(self, messages: list[str]) -> None:
        payloads = [self._origin + message for message in messages]
        ear = self._ear
        if ear is None:
            await self._database.fetch(_NOTIFY, self.channel, payloads)
            return
        try:
            async with self._turn:
                await ear.execute(_NOTIFY, self.channel, payloads)
        except _TROUBLE as error:
            raise AgentUnreachable(self._agent, f"a notification was not sent: {error}") from error

    def _heard(self, _ear: Connection, _pid: int, _channel: str, payload: object) -> None:
        text = str(payload)
        origin, kind, body = text[: len(self._origin)], text[len(self._origin) :][:1], text[len(self._origin) + 1 :]
        if origin == self._origin:
            if kind == ECHO and self._echo is not None and not self._echo.done():
                self._echo.set_result(None)
            return
        if kind == LANES:
            self.hints.publish(map(_lane_topic, body.split(",")))
        elif kind == ENDS:
            self.hints.wake(body[at : at + MARK] for at in range(0, len(body), MARK))
        elif kind == ANY_END:
            self.hints.wake([ANY_END])
        elif kind == WATCHED:
            now = self._clock.mono()
            if now >= self._watched_until:
                # What ended before this was heard was not told.
                self._notifier.tell(ANY_END)
            self._watched_until = now + WATCHED_SECONDS


def _lane_topic(lane: str) -> str:
    # No mark of an id holds a colon.
    return f"lane:{lane}"
