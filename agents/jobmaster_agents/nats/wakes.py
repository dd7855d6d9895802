"""Wakes: who waits is told at once that a job became ready, or ended, wherever that was done.

The streams repeat the headers of what they store on subjects of core NATS: every put and every schedule that fires
rings by itself. A subscription ends with its first message, and is made anew when a wait returns: so a busy lane costs
a waiting process one message a wait, and what comes between two waits is not missed.
"""

from collections.abc import Awaitable, Callable, Iterable

from nats.aio.msg import Msg

from jobmaster.waking import Hints
from jobmaster_agents.nats.store import Store

Heard = Callable[[Msg], Awaitable[None]]

_EVERYTHING = "*"
"""The topic, and the word on the wire, for all lanes at once."""


class Wakes:
    """Of one handle, on the event loop that opened it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._hints = Hints()
        self._listening: set[str] = set()
        self._heard: dict[str, int] = {}

    async def ring(self, lanes: Iterable[str] | None) -> None:
        """Jobs of these lanes, or of all, may be ready: wake whoever waits for them, in every process."""
        subjects = self._store.subjects
        wakes = [subjects.wake_all] if lanes is None else [f"{subjects.wake(lane)}.0" for lane in lanes]
        await self._store.link.tell([(subject, b"", b"") for subject in wakes])

    async def wait(self, lanes: frozenset[str], seconds: float) -> None:
        topics = lanes | {_EVERYTHING}
        await self._listen(topics)
        with self._hints.waiting(topics, seconds) as waiter:
            if not self._news(topics) and seconds > 0:
                await waiter.wait(self._store.clock.sleep(seconds))
        self._news(topics)
        await self._listen(topics)

    async def watch(self, ids: frozenset[str], seconds: float) -> None:
        if seconds <= 0 or not ids:
            return
        client, subjects = self._store.link.client, self._store.subjects
        with self._hints.waiting(ids, seconds) as waiter:
            subscriptions = [await client.subscribe(subjects.ended(job_id), cb=self._ended(job_id)) for job_id in ids]
            try:
                await waiter.wait(self._store.clock.sleep(seconds))
            finally:
                for subscription in subscriptions:
                    await subscription.unsubscribe()

    async def _listen(self, topics: Iterable[str]) -> None:
        client, subjects = self._store.link.client, self._store.subjects
        for topic in topics:
            if topic in self._listening or not client.is_connected:
                continue
            self._listening.add(topic)
            subject = subjects.wake_all if topic == _EVERYTHING else f"{subjects.wake(topic)}.>"
            subscription = await client.subscribe(subject, cb=self._woken(topic))
            await subscription.unsubscribe(limit=1)

    def _woken(self, topic: str) -> Heard:
        async def heard(_: Msg) -> None:
            self._listening.discard(topic)
            self._hints.publish([topic])

        return heard

    def _ended(self, job_id: str) -> Heard:
        async def heard(_: Msg) -> None:
            self._hints.wake([job_id])

        return heard

    def _news(self, topics: Iterable[str]) -> bool:
        """Take note of what was heard; whether there was anything new."""
        counts = {topic: self._hints.count([topic]) for topic in topics}
        news = any(self._heard.get(topic, 0) != count for topic, count in counts.items())
        self._heard.update(counts)
        return news
