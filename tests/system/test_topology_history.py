"""What a cluster is made of leaves a history: who came, who went, what changed, by whom."""

from pathlib import Path
from typing import Any

import pytest

from jobmaster import Cluster, ClusterBuilder, JobContext, JobHandler

pytestmark = pytest.mark.asyncio


class Pay(JobHandler):
    async def execute(self, job: JobContext) -> None:
        """Nothing: what counts is that it is known."""


class PayAgain(JobHandler):
    name = "pay"
    version = 2

    @classmethod
    def upcast(cls, data: object, from_version: int) -> object:
        return data

    async def execute(self, job: JobContext) -> None:
        """The same."""


def shop(folder: Path, handler: type[JobHandler[Any]]) -> Cluster:
    config = ClusterBuilder("shop").ignore_environment().add_handlers(handler).log(level="error")
    config.use_sqlite_for_master(folder / "master.db")
    config.add_agent("mail").use_sqlite_for_agent(folder / "mail.db")
    config.add_worker("w1").agent("mail")
    return config.build()


async def test_workers_handlers_and_agents_leave_a_history(tmp_path: Path) -> None:
    async with shop(tmp_path, Pay).run() as runtime:
        (worker,) = runtime.workers
        worker_id = worker.id
        assert [entry.data_version for entry in await runtime.scheduler.topology.handlers()] == [1]
    # The same again changes nothing of the handler.
    async with shop(tmp_path, Pay).run():
        pass
    async with shop(tmp_path, PayAgain).run() as runtime:
        topology = runtime.scheduler.topology
        assert [event.kind for event in await topology.history("mail")] == ["agent.entered"]
        assert [event.kind for event in await topology.history("pay")] == ["handler.changed", "handler.defined"]
        assert [event.detail for event in await topology.history("pay")] == [{"data_version": 2}, {"data_version": 1}]
        left, joined = await topology.history(worker_id)
        assert (joined.kind, left.kind) == ("worker.joined", "worker.left")
        assert joined.detail["lanes"] == ["default"]
        assert joined.at <= left.at
        assert "@" in joined.who
        everything = await topology.history(limit=5)
        older = await topology.history(before=everything[-1].id)
        assert len(everything) == 5
        assert older
        assert older[0].id < everything[-1].id
        assert [entry.data_version for entry in await topology.handlers()] == [2]
