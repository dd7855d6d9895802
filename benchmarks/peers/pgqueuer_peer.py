"""PgQueuer: tables as `durable`, the asyncpg driver, several consumers in one process, each with its own connection."""

import asyncio

import asyncpg
from common import Peer, main
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.queries import Queries

CHUNK = 5_000


class PgQueuerPeer(Peer):
    async def open(self):
        self.side = await asyncpg.connect(self.url)
        self.queries = Queries(AsyncpgDriver(self.side))
        await self.queries.install()
        self.consumers = []
        self.tasks = []
        for _ in range(self.settings["consumers"]):
            consumer = PgQueuer(AsyncpgDriver(await asyncpg.connect(self.url)))

            @consumer.entrypoint("no-op")
            async def no_op(job):
                self.meter.ran()

            self.consumers.append(consumer)

    async def enqueue(self, n):
        for start in range(0, n, CHUNK):
            size = min(CHUNK, n - start)
            await self.queries.enqueue(["no-op"] * size, [b'{"value":1}'] * size, [0] * size)

    async def one(self):
        await self.queries.enqueue("no-op", b'{"value":1}')

    async def start(self):
        batch, tasks = self.settings["batch"], self.settings["tasks"]
        for consumer in self.consumers:
            run = consumer.run(batch_size=batch, max_concurrent_tasks=tasks)
            self.tasks.append(asyncio.create_task(run))

    async def finished(self):
        return await self.side.fetchval("select count(*) from pgqueuer_log where status = 'successful'")

    async def close(self):
        for consumer in self.consumers:
            consumer.shutdown.set()
        await asyncio.gather(*self.tasks, return_exceptions=True)


if __name__ == "__main__":
    main(PgQueuerPeer)
