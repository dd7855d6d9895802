"""One process of a cluster with schedules: `planner` runs duties and no job, `worker` runs jobs and plans nothing.

    python schedule_node.py ROLE MASTER_URL [AGENT_URL]

Says `ready`, and ends when its standard input does.
"""

import asyncio
import sys

from jobmaster import ClusterBuilder, JobContext, JobHandler
from jobmaster.cluster import Cluster

NAME = "failover"


class Tick(JobHandler):
    async def execute(self, job: JobContext) -> None:
        """Nothing: what counts is that it ran."""


def build(role: str, url: str, agent_url: str | None = None) -> Cluster:
    """`agent_url`: None if the agent is in the database of the master."""
    config = ClusterBuilder(NAME).ignore_environment().add_handlers(Tick).use_master(url)
    config.add_agent("transport-1").use_agent(agent_url or url)
    config.log(level="warning")
    if role == "worker":
        config.add_worker().slots(20).mode("execution")
        return config.build()
    return config.build().without_workers()


async def main() -> None:
    async with build(*sys.argv[1:]).run():
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
