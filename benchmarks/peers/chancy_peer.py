"""Chancy: psycopg 3 with its C part, the asyncio executor; outcomes are flushed at an interval that we shorten."""

import logging

from chancy import Chancy, Queue, Worker
from chancy import job as chancy_job
from common import Peer, main

NOTE = {}


@chancy_job(queue="bench")
async def no_op(*, value: int):
    NOTE["meter"].ran()


class ChancyPeer(Peer):
    async def open(self):
        NOTE["meter"] = self.meter
        log = logging.getLogger("chancy-bench")
        log.setLevel(logging.ERROR)
        self.app = Chancy(self.url, log=log, max_connection_pool_size=self.settings["pool"])
        await self.app.__aenter__()
        await self.app.migrate()
        executor = "chancy.executors.asyncex.AsyncExecutor"
        # A worker declares this one if it is absent, with an executor that starts processes.
        await self.app.declare(Queue("default", executor=executor))
        poll, slots = self.settings["poll"], self.settings["concurrency"]
        await self.app.declare(Queue("bench", executor=executor, polling_interval=poll, concurrency=slots))

    async def enqueue(self, n):
        async for _ in self.app.push_many([no_op.job.with_kwargs(value=1)] * n, batch_size=2_000):
            pass

    async def one(self):
        await self.app.push(no_op.job.with_kwargs(value=1))

    async def start(self):
        self.worker = Worker(self.app, register_signal_handlers=False)
        self.worker.send_outgoing_interval = self.settings["flush"]
        await self.worker.start()

    async def finished(self):
        async with self.app.pool.connection() as connection:
            cursor = await connection.execute("select count(*) from chancy_jobs where state = 'succeeded'")
            return (await cursor.fetchone())[0]

    async def close(self):
        await self.worker.stop()
        await self.app.__aexit__(None, None, None)


if __name__ == "__main__":
    main(ChancyPeer)
