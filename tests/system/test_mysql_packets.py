"""What is sent to a MySQL server at once fits into a packet, however large a batch is."""

import pytest

from jobmaster.contracts.values import PutAnswer, SettleAnswer
from jobmaster.testing.agents.cases import claim, make_job, put, settlement
from jobmaster_agents.mysql import MysqlAgent

MIB = 1 << 20


@pytest.mark.asyncio
async def test_a_batch_may_be_larger_than_a_packet(mysql_url: str) -> None:
    agent = MysqlAgent(mysql_url, cluster="packets", name="transport-1")
    await agent.open()
    try:
        now_us = await agent.store_now_us()
        [[packet]] = await agent.verbs.store.database.ask("SELECT @@max_allowed_packet")
        data = b'"' + b"'" * (MIB - 2) + b'"'
        jobs = [make_job(now_us, data=data) for _ in range(packet // (2 * MIB) + 2)]
        assert await put(agent, *jobs) == [PutAnswer.STORED] * len(jobs)
        assert await put(agent, *jobs) == [PutAnswer.DUPLICATE] * len(jobs)
        claimed = await claim(agent, len(jobs))
        assert [job.data for job in claimed] == [data] * len(jobs)
        answers = await agent.settle([settlement(job, result=data) for job in claimed])
        assert answers == [SettleAnswer.ACCEPTED] * len(jobs)
        assert len(await agent.changes(100)) == len(jobs)
    finally:
        await agent.close()
