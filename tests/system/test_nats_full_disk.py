"""The disk of a NATS server is really full: nothing is acknowledged that is not there, and all goes on with room."""

import asyncio
import subprocess
from collections.abc import Iterator

import pytest

from jobmaster.model.errors import AgentUnreachable, Indeterminate, Refused
from jobmaster.model.job import Job
from jobmaster.testing.agents.cases import claim, ids, new_job, put
from jobmaster_agents.nats import NatsAgent
from tests.servers import Nats
from tests.support import eventually

pytestmark = pytest.mark.asyncio

SMALL, LARGE = "24m", "96m"
DATA = b'"' + b"x" * 100_000 + b'"'


@pytest.fixture
def server() -> Iterator[Nats]:
    """A server that is not started yet, with a file system of its own for its jobs."""
    made = Nats()
    made.store.mkdir()
    size = f"size={SMALL},mode=777"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", made.store], capture_output=True, text=True)
    if mounted.returncode:
        made.remove()
        pytest.skip(f"a small file system can't be mounted here: {mounted.stderr.strip()}")
    yield made
    made.kill()
    subprocess.run(["umount", "-l", made.store], check=True)
    made.remove()


async def stored_until_refused(agent: NatsAgent, stored: list[Job]) -> None:
    while len(stored) < 1_000:
        job = await new_job(agent, data=DATA)
        await put(agent, job)
        stored.append(job)


async def test_a_full_disk_refuses_and_goes_on_with_room(server: Nats) -> None:
    await asyncio.to_thread(server.start)
    agent = NatsAgent(server.url, cluster="c", name="a", options={"monitor": server.monitor})
    await agent.open()
    try:
        stored: list[Job] = []
        with pytest.raises((Refused, Indeterminate, AgentUnreachable)) as refused:
            await stored_until_refused(agent, stored)
        assert "insufficient resources" in str(refused.value)
        assert 10 < len(stored) < 1_000

        subprocess.run(["mount", "-o", f"remount,size={LARGE}", server.store], check=True)  # noqa: ASYNC221 - at once
        # A server that could not write has put its streams out of service until it is started again.
        await asyncio.to_thread(server.restart)

        async def back() -> bool:
            job = await new_job(agent)
            try:
                await put(agent, job)
            except (Refused, Indeterminate, AgentUnreachable):
                return False
            stored.append(job)
            return True

        await eventually(back, within=20)
        claimed = {job_id for _ in range(3) for job_id in ids(await claim(agent, 1_000))}
        assert claimed >= {*ids(stored)}
    finally:
        await agent.close()
