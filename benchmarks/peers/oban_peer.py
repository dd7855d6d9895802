"""Oban for Python: psycopg 3 with its C part, one queue."""

from common import Peer, main
from oban import Oban, job
from oban.schema import install

CHUNK = 1_000
NOTE = {}


@job(queue="bench")
async def no_op(value):
    NOTE["meter"].ran()


class ObanPeer(Peer):
    async def open(self):
        NOTE["meter"] = self.meter
        self.pool = await Oban.create_pool(self.url, min_size=2, max_size=self.settings["pool"])
        await install(self.pool)
        queue = {"limit": self.settings["limit"], "debounce_interval": self.settings["debounce"]}
        self.oban = Oban(pool=self.pool, queues={"bench": queue})

    async def enqueue(self, n):
        for start in range(0, n, CHUNK):
            await self.oban.enqueue_many([no_op.new(1) for _ in range(min(CHUNK, n - start))])

    async def one(self):
        await self.oban.enqueue(no_op.new(1))

    async def start(self):
        await self.oban.start()

    async def finished(self):
        async with self.pool.connection() as connection:
            cursor = await connection.execute("select count(*) from oban_jobs where state = 'completed'")
            return (await cursor.fetchone())[0]

    async def close(self):
        await self.oban.stop()
        await self.pool.close()


if __name__ == "__main__":
    main(ObanPeer)
