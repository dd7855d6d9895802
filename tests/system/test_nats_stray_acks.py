"""A message that somebody else acknowledged is gone without a record: its job is found missing and placed anew."""

from collections.abc import Callable
from pathlib import Path

import pytest

from jobmaster import ClusterBuilder, JobContext, JobHandler, JobState
from jobmaster.coordination import seeker
from jobmaster_agents.nats import NatsAgent, api
from tests.servers import Nats
from tests.support import eventually


class Greet(JobHandler):
    async def execute(self, job: JobContext) -> str:
        return f"hello, {job.data['name']}"


@pytest.mark.asyncio
async def test_a_job_whose_message_is_gone_is_placed_anew(
    own_nats: Callable[..., Nats], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seeker, "PASS_SECONDS", 0.5)
    server = own_nats()
    config = ClusterBuilder("shop").ignore_environment().add_handlers(Greet).log(level="error")
    config.use_master(f"sqlite:///{tmp_path / 'master.db'}")
    config.add_agent("transport-1").use_nats_for_agent(server.url, monitor=server.monitor)
    async with config.build().without_workers().run() as runtime:
        lost, kept = [await runtime.scheduler.once_now(Greet, {"name": name}) for name in ("lost", "kept")]

        async def copied() -> bool:
            found = await runtime.master.get([lost.id, kept.id])
            return all(job is not None and job.state is JobState.QUEUED for job in found)

        await eventually(copied, within=30, what="both are known to the master")
        stray = NatsAgent(server.url, cluster="shop", name="transport-1", options={"monitor": server.monitor})
        await stray.open()
        link, subjects = stray.verbs.store.link, stray.verbs.store.subjects
        await api.call(link, f"STREAM.PURGE.{subjects.jobs_stream}", filter=subjects.anywhere(lost.id))
        await stray.close()

        await runtime.add_worker(slots=2)

        assert await kept.result(timeout=30) == "hello, kept"
        assert await lost.result(timeout=60) == "hello, lost"
        await runtime.sync_history()
        info = await runtime.scheduler.get(lost.id)
        assert len(info.runs) == 1
