"""A process of claimers: each claims and settles until told to end, and what each got is printed as JSON at last.

python -m tests.system.mysql_claimer URL CLAIMERS
"""

import asyncio
import json
import sys

from jobmaster.testing.agents.cases import LONG_US, settlement
from jobmaster_agents.mysql import MysqlAgent

CLUSTER = "bench"


async def main(url: str, claimers: int, size: int, handler: str) -> None:
    agent = MysqlAgent(url, cluster=CLUSTER, name="transport-1", options={"pool": claimers + 2})
    await agent.open()
    print("open", flush=True)
    done = asyncio.Event()
    got: list[str] = []
    stale = 0

    async def work(name: str) -> None:
        nonlocal stale
        while True:
            ended = done.is_set()
            jobs = await agent.claim(name, {"default": size}, frozenset({handler}), size, LONG_US)
            got.extend(job.id for job in jobs)
            answers = await agent.settle([settlement(job, worker=name) for job in jobs])
            stale += sum(answer != "accepted" for answer in answers)
            if not jobs:
                if ended:
                    return
                await agent.wait(frozenset({"default"}), 0.02)

    await asyncio.to_thread(sys.stdin.readline)
    workers = [asyncio.create_task(work(f"w{number}")) for number in range(claimers)]
    await asyncio.to_thread(sys.stdin.read)
    done.set()
    await asyncio.gather(*workers)
    await agent.close()
    print(json.dumps({"got": got, "stale": stale}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]))
