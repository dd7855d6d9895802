"""Procrastinate: psycopg 3 with its C part; one worker, its jobs kept or deleted on success."""

import asyncio
import logging

import procrastinate
from common import Peer, main

CHUNK = 1_000


class ProcrastinatePeer(Peer):
    async def open(self):
        logging.getLogger("procrastinate").setLevel(logging.ERROR)
        connector = procrastinate.PsycopgConnector(conninfo=self.url, min_size=4, max_size=self.settings["pool"])
        self.app = procrastinate.App(connector=connector)

        @self.app.task(name="no-op")
        async def no_op(value):
            self.meter.ran()

        self.task = no_op
        await self.app.open_async()
        await self.app.schema_manager.apply_schema_async()

    async def enqueue(self, n):
        for start in range(0, n, CHUNK):
            await self.task.batch_defer_async(*({"value": 1} for _ in range(min(CHUNK, n - start))))

    async def one(self):
        await self.task.defer_async(value=1)

    async def start(self):
        self.worker = asyncio.create_task(
            self.app.run_worker_async(
                concurrency=self.settings["concurrency"],
                delete_jobs=self.settings["delete"],
                fetch_job_polling_interval=0.1,
                install_signal_handlers=False,
            )
        )

    async def finished(self):
        row = await self.app.connector.execute_query_one_async(
            "select count(*) as left from procrastinate_jobs where status in ('todo', 'doing')"
        )
        return self.meter.count - row["left"]

    async def close(self):
        self.worker.cancel()
        await asyncio.gather(self.worker, return_exceptions=True)
        await self.app.close_async()


if __name__ == "__main__":
    main(ProcrastinatePeer)
