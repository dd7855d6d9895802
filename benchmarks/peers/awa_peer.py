"""awa-pg (its core is Rust): COPY enqueue, its queue storage or its canonical tables, one queue."""

from dataclasses import dataclass

import awa
from common import Peer, main

CHUNK = 5_000


@dataclass
class NoOp:
    value: int


class AwaPeer(Peer):
    async def open(self):
        self.client = awa.AsyncClient(self.url, max_connections=self.settings["pool"])
        await self.client.migrate()
        if self.settings["storage"] == "queue":
            await self.client.install_queue_storage(reset=True)

        @self.client.task(NoOp, queue="bench")
        async def no_op(job):
            self.meter.ran()

    async def enqueue(self, n):
        put = self.client.enqueue_many_copy if self.settings["storage"] == "queue" else self.client.insert_many_copy
        for start in range(0, n, CHUNK):
            await put([NoOp(1)] * min(CHUNK, n - start), queue="bench")

    async def one(self):
        await self.client.insert(NoOp(1), queue="bench")

    async def start(self):
        queues, poll = [("bench", self.settings["workers"])], self.settings["poll_ms"]
        await self.client.start(queues, poll_interval_ms=poll, leader_election_interval_ms=500)

    async def finished(self):
        # Its own `queue_stats` answers from a snapshot that is up to ten seconds old.
        transaction = await self.client.transaction()
        row = await transaction.fetch_one("select count(*)::bigint as done from awa.jobs where state = 'completed'")
        await transaction.rollback()
        return row["done"]

    async def close(self):
        await self.client.shutdown()
        await self.client.close()


if __name__ == "__main__":
    main(AwaPeer)
