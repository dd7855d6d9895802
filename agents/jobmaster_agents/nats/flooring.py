"""Flooring: with the retention `limits` an acknowledged parcel stays, and what is done with is purged in bulk.

That spares the server a write, and a sync, for every acknowledgement; the price is that a job that runs long keeps the
parcels behind it in its line.
"""

from jobmaster_agents.nats import api
from jobmaster_agents.nats.store import Store

EVERY_SECONDS = 1.0


class Flooring:
    """Purges below what has been acknowledged, at most once a second for a handle."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._floors: dict[str, int] = {}
        self._next = 0.0

    async def sweep(self) -> None:
        """Does nothing where the server itself removes what is acknowledged."""
        store = self._store
        now = store.clock.mono()
        if store.options.retention != "limits" or now < self._next:
            return
        self._next = now + EVERY_SECONDS
        for info in await store.reader.consumers():
            name, floor = info["name"], int(info["ack_floor"]["stream_seq"])
            if floor <= self._floors.get(name, 0):
                continue
            subject = info["config"]["filter_subject"]
            await api.call(store.link, f"STREAM.PURGE.{store.subjects.jobs_stream}", filter=subject, seq=floor + 1)
            self._floors[name] = floor
