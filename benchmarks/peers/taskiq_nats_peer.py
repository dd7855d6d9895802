"""taskiq-nats: a pull-based JetStream broker; its receiver runs in this process, each acknowledged when executed."""

import asyncio
import contextlib
import uuid

from common import Peer, main
from nats.js.api import StreamConfig
from taskiq.receiver import Receiver
from taskiq_nats import PullBasedJetStreamBroker

CHUNK = 500


class TaskiqNatsPeer(Peer):
    async def open(self):
        self.name = f"taskiq{uuid.uuid4().hex[:8]}"
        self.broker = PullBasedJetStreamBroker(
            servers=self.url,
            subject=self.name,
            stream_name=self.name,
            durable=self.name,
            pull_consume_batch=self.settings["batch"],
            pull_consume_timeout=self.settings["timeout"],
            stream_config=StreamConfig(name=self.name, subjects=[self.name], retention="workqueue"),
        )

        @self.broker.task
        async def no_op(value):
            self.meter.ran()

        self.task = no_op
        self.broker.is_worker_process = True
        await self.broker.startup()

    async def enqueue(self, n):
        for start in range(0, n, CHUNK):
            await asyncio.gather(*(self.task.kiq(1) for _ in range(min(CHUNK, n - start))))

    async def one(self):
        await self.task.kiq(1)

    async def start(self):
        receiver = Receiver(self.broker, max_async_tasks=self.settings["tasks"], run_startup=False)
        self.stop = asyncio.Event()
        self.worker = asyncio.create_task(receiver.listen(self.stop))

    async def finished(self):
        info = await self.broker.js.stream_info(self.name)
        return self.meter.count - info.state.messages

    async def close(self):
        self.stop.set()
        self.worker.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.worker
        await self.broker.shutdown()


if __name__ == "__main__":
    main(TaskiqNatsPeer)
