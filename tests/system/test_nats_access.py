"""Least privilege, TLS and tokens: the account of `deploy/nats` does for a whole cluster, and for no more than it."""

import asyncio
import os
import subprocess
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from jobmaster import ClusterBuilder, JobContext, JobHandler
from jobmaster.model.errors import AgentUnreachable
from jobmaster.testing.agents.cases import put_new
from jobmaster_agents.nats import NatsAgent, api, connection
from tests.servers import Nats
from tests.servers.certificates import make_certificates
from tests.servers.nats import binary

pytestmark = pytest.mark.asyncio

Start = Callable[..., Nats]
ACCOUNTS = Path(__file__).resolve().parents[2] / "deploy/nats/accounts.conf"
OWNER, WORKER = "owner-1", "worker-1"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is not let in gives up soon."""
    monkeypatch.setattr(connection, "OPENING_SECONDS", 1.5)


class Greet(JobHandler):
    async def execute(self, job: JobContext) -> str:
        return f"hello, {job.data['name']}"


@pytest.fixture
def guarded(own_nats: Start) -> SimpleNamespace:
    """A server with the accounts that we recommend."""
    text = ACCOUNTS.read_text().replace("$OWNER_PASSWORD", f'"{OWNER}"').replace("$WORKER_PASSWORD", f'"{WORKER}"')
    server = own_nats(settings={"accounts": text.partition("accounts")[2].strip()})
    at = f"127.0.0.1:{server.port}"
    return SimpleNamespace(
        server=server, owner=f"nats://owner:{OWNER}@{at}", worker=f"nats://worker:{WORKER}@{at}", anybody=f"nats://{at}"
    )


async def opened_once(guarded: SimpleNamespace) -> NatsAgent:
    agent = NatsAgent(guarded.owner, cluster="shop", name="transport-1", options={"monitor": guarded.server.monitor})
    await agent.open()
    return agent


async def test_a_worker_needs_no_more_than_its_account_allows(guarded: SimpleNamespace, tmp_path: Path) -> None:
    await (await opened_once(guarded)).close()
    config = ClusterBuilder("shop").ignore_environment().add_handlers(Greet).log(level="error")
    config.use_master(f"sqlite:///{tmp_path / 'master.db'}")
    config.add_agent("transport-1").use_nats_for_agent(guarded.worker, monitor=guarded.server.monitor)
    config.add_worker().agent("transport-1")
    async with config.build().run() as runtime:
        scheduler = runtime.scheduler
        jobs = [await scheduler.once_now(Greet, {"name": str(number)}) for number in range(20)]
        for number, job in enumerate(jobs):
            assert await job.result(timeout=30) == f"hello, {number}"
        gone = await scheduler.once_after(Greet, timedelta(minutes=1), {"name": "later"})
        assert await gone.cancel()
        agent = runtime.agents["transport-1"]
        assert [stats.lane for stats in await agent.stats()] in ([], ["default"])
        assert len(await agent.workers()) == 1
    assert "Permissions Violation" not in guarded.server.log
    assert "permissions violation" not in guarded.server.log.lower()


async def test_a_worker_can_neither_purge_nor_remove_what_others_need(guarded: SimpleNamespace) -> None:
    owner = await opened_once(guarded)
    worker = NatsAgent(guarded.worker, cluster="shop", name="transport-1", options={"monitor": guarded.server.monitor})
    await worker.open()
    try:
        await put_new(worker, 3)
        store = worker.verbs.store
        for request in ("STREAM.PURGE", "STREAM.DELETE"):
            for stream in (store.subjects.jobs_stream, store.subjects.out_stream):
                with pytest.raises(AgentUnreachable):
                    await api.call(store.link, f"{request}.{stream}", within=0.3)
        assert len(await owner.inventory("", 10)) == 3
    finally:
        await worker.close()
        await owner.close()


async def test_the_configuration_of_the_three_nodes_is_one_that_the_server_takes() -> None:
    names = {"NODE": "nats-1", "OWNER_PASSWORD": "p1", "WORKER_PASSWORD": "p2"}
    command = [str(binary()), "-t", "-c", str(ACCOUNTS.with_name("nats.conf"))]
    checked = await asyncio.to_thread(subprocess.run, command, env=os.environ | names, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


async def test_nobody_gets_in_without_a_name(guarded: SimpleNamespace, impatient: None) -> None:
    for url in (guarded.anybody, guarded.worker.replace(WORKER, "guessed")):
        agent = NatsAgent(url, cluster="shop", name="transport-1", options={"monitor": guarded.server.monitor})
        with pytest.raises(AgentUnreachable, match=r"(?i)authorization"):
            await agent.open()


async def test_the_way_to_the_server_is_encrypted_and_its_name_is_checked(own_nats: Start, impatient: None) -> None:
    # In a folder that the server, which may run as somebody else, can read.
    made = make_certificates(own_nats().folder)
    server = own_nats(settings={"tls": f'{{ cert_file: "{made.certificate}", key_file: "{made.key}" }}'})
    url = server.url.replace("nats://", "tls://")
    options = {"monitor": server.monitor}

    agent = NatsAgent(url, cluster="c", name="a", options=options | {"tls": {"ca": str(made.authority)}})
    try:
        await agent.open()
        await put_new(agent)
    finally:
        await agent.close()
    with pytest.raises(AgentUnreachable, match=r"(?i)certificate"):
        await NatsAgent(url, cluster="c", name="a", options=options).open()
