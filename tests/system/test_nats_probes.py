"""What opening and `doctor` say about real NATS servers."""

from collections.abc import Callable

import pytest

from jobmaster.contracts.values import Control, ControlKind, StoreMode
from jobmaster.model.errors import AgentUnreachable, ConfigurationError, SchemaOutdated, UnsafeStore
from jobmaster.testing.agents.cases import claimed_new, new_job, put_new, settle
from jobmaster_agents.nats import NatsAgent, api
from tests.servers import Nats

Start = Callable[..., Nats]


def agent_on(server: Nats, **options: object) -> NatsAgent:
    return NatsAgent(server.url, cluster="c", name="a", options=options)


@pytest.mark.asyncio
async def test_a_server_that_does_not_sync_is_refused_with_the_remedy(own_nats: Start) -> None:
    server = own_nats(sync="2m")
    with pytest.raises(UnsafeStore, match="sync_interval"):
        await agent_on(server, monitor=server.monitor).open()

    agent = agent_on(server, monitor=server.monitor, accept_unsafe=True)
    try:
        report = await agent.open()
        assert any("power cut" in finding for finding in report.findings)
    finally:
        await agent.close()
    # The same server, told to sync.
    server.sync = "always"
    server.restart()
    agent = agent_on(server, monitor=server.monitor)
    try:
        assert (await agent.open()).findings == ()
    finally:
        await agent.close()


@pytest.mark.asyncio
async def test_a_monitoring_that_does_not_answer_is_named(own_nats: Start) -> None:
    server = own_nats()
    with pytest.raises(AgentUnreachable, match="monitoring at http"):
        await agent_on(server, monitor="http://127.0.0.1:9").open()
    with pytest.raises(ConfigurationError, match="monitor"):
        agent_on(server, monitor="localhost:8222")


@pytest.mark.asyncio
async def test_a_payload_that_is_too_small_is_refused(own_nats: Start) -> None:
    server = own_nats(settings={"max_payload": "64KB"})
    with pytest.raises(UnsafeStore, match="max_payload"):
        await agent_on(server, monitor=server.monitor).open()


@pytest.mark.asyncio
async def test_drift_and_full_consumers_are_findings_and_a_removed_stream_is_an_old_schema(own_nats: Start) -> None:
    server = own_nats()
    agent = agent_on(server, monitor=server.monitor)
    await agent.open()
    try:
        await put_new(agent, 3)
        store = agent.verbs.store
        consumer = store.subjects.consumer("default", 2)
        stream = store.subjects.jobs_stream
        info = await api.call(store.link, f"CONSUMER.INFO.{stream}.{consumer}")
        config = info["config"] | {"max_ack_pending": 1}
        await api.call(store.link, f"CONSUMER.DURABLE.CREATE.{stream}.{consumer}", stream_name=stream, config=config)
        await claimed_new(agent)
        out = (await api.call(store.link, f"STREAM.INFO.{store.subjects.out_stream}"))["config"]
        await api.call(store.link, f"STREAM.UPDATE.{store.subjects.out_stream}", out | {"max_age": 3_600_000_000_000})

        found = (await agent.probe()).findings

        assert any(consumer in finding and "max_ack_pending" in finding for finding in found)
        assert any("max_age" in finding for finding in found)
        await api.call(store.link, f"STREAM.DELETE.{store.subjects.out_stream}")
        with pytest.raises(SchemaOutdated, match=r"OUT\+c\+a"):
            await agent.probe()
    finally:
        await agent.close()


@pytest.mark.asyncio
@pytest.mark.parametrize("read", [False, True], ids=["unread", "read"])
async def test_outcomes_that_somebody_purged_show_until_the_store_is_adopted(own_nats: Start, read: bool) -> None:
    server = own_nats()
    agent = agent_on(server, monitor=server.monitor)
    await agent.open()
    try:
        await settle(agent, await claimed_new(agent))
        if read:
            await agent.confirm([record.seq for record in await agent.changes(10)])
        assert not (await agent.probe()).emptied
        store = agent.verbs.store
        await api.call(store.link, f"STREAM.PURGE.{store.subjects.out_stream}")

        assert (await agent.probe()).emptied
        await agent.control(Control(ControlKind.QUARANTINE))
        report = await agent.adopt("another")

        assert (report.emptied, report.mode) == (False, StoreMode.OPEN)
        await agent.put([job := await new_job(agent)], job.created_us + 600_000_000)
        assert await agent.find([job.id]) != [None]
    finally:
        await agent.close()


@pytest.mark.asyncio
async def test_the_leader_tells_the_same_as_whoever_answers(own_nats: Start) -> None:
    server = own_nats()
    agent = agent_on(server, monitor=server.monitor)
    await agent.open()
    try:
        done, waiting = await claimed_new(agent), (await put_new(agent))[0]
        await settle(agent, done)
        reader = agent.verbs.store.reader

        found = await reader.lasts_at_leader([done.id, waiting.id])

        assert found == await reader.lasts([done.id, waiting.id])
        assert found.keys() == {done.id}
    finally:
        await agent.close()
