"""Three NATS servers form the agent: one of them, then the leader, is killed under load."""

import asyncio
from pathlib import Path

import pytest

from jobmaster_agents.nats.subjects import Subjects
from tests.servers import NatsCluster
from tests.sizes import SIZES
from tests.system.fleet.accounts import Accounts, balanced
from tests.system.fleet.processes import fleet
from tests.system.fleet.test_nats_faults import LEASES, TTL, begins_anew

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(400)]

AGENT = "transport-1"


async def test_a_node_and_then_the_leader_are_killed_under_load(
    tmp_path: Path, postgres_url: str, nats_cluster: NatsCluster
) -> None:
    options = {AGENT: {"monitor": nats_cluster.monitors, "replicas": 3, "ack_wait": max(TTL, 2.0)}}
    subjects = Subjects("fleet", AGENT)
    # A follower of the outcomes, then whoever leads them, and in a long run whoever leads the jobs.
    streams = [None, subjects.out_stream, *([subjects.jobs_stream] if SIZES.name == "full" else [])]
    with fleet(tmp_path, postgres_url, {AGENT: nats_cluster.url}, LEASES, options) as shop:
        await shop.worker("--slots", "10")
        accounts = Accounts(shop)
        async with shop.cluster().run() as runtime:
            async with accounts.enqueuing(runtime):
                await begins_anew(accounts)
                for stream in streams:
                    leader = await asyncio.to_thread(nats_cluster.leader_of, stream or subjects.out_stream)
                    victim = leader if stream else next(node for node in nats_cluster.nodes if node is not leader)
                    await asyncio.to_thread(victim.kill)
                    await begins_anew(accounts)
                    await asyncio.to_thread(victim.start)
                    await asyncio.to_thread(nats_cluster.formed)
            figures = await balanced(accounts, postgres_url)
    print(f"a node and {len(streams) - 1} leaders killed: {figures}")
