"""The floor on NATS: what hand-written nats-py loops do that keep the same promise of durability and nothing else.

Bulk enqueue by `publish_async`, and by atomic batches; a durable pull consumer that fetches 200, publishes an outcome
for each and acknowledges; and one job at a time to a parked fetch. No leases, no fences, no retries, no handler.

    python -m benchmarks.floors.nats_loop URL drain|latency N
"""

import asyncio
import json
import sys
import time
from typing import Any
from uuid import uuid4

import nats

from jobmaster.cli.eventloop import run_async
from jobmaster.model.ids import new_id

BATCH_OUT = 200
BATCH_IN = 1_000
PATIENCE = 30
DATA = b'{"value":1}'


async def streams(client: Any, n: int) -> tuple[Any, str]:
    """A stream of jobs with its consumer, and one of outcomes, of names of their own."""
    context = client.jetstream(publish_async_max_pending=n)
    name = f"floor{uuid4().hex[:8]}"
    config = {"name": name, "subjects": [f"{name}.job.*"], "retention": "workqueue", "allow_atomic": True}
    await client.request(f"$JS.API.STREAM.CREATE.{name}", json.dumps(config).encode())
    await context.add_stream(name=f"{name}-out", subjects=[f"{name}.out.*"])
    return context, name


async def enqueue(context: Any, name: str, n: int) -> float:
    """Jobs per second, each published and acknowledged."""
    began = time.perf_counter()
    acks = [await context.publish_async(f"{name}.job.{new_id()}", DATA) for _ in range(n)]
    await asyncio.wait_for(asyncio.gather(*acks), PATIENCE)
    return n / (time.perf_counter() - began)


async def enqueue_batches(client: Any, name: str, n: int) -> float:
    """Jobs per second, in atomic batches, one after the other."""
    began = time.perf_counter()
    for start in range(0, n, BATCH_IN):
        size, batch = min(BATCH_IN, n - start), uuid4().hex
        for number in range(1, size):
            headers = {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)}
            await client.publish(f"{name}.job.{new_id()}", DATA, headers=headers)
        last = {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(size), "Nats-Batch-Commit": "1"}
        answer = await client.request(f"{name}.job.{new_id()}", DATA, headers=last, timeout=PATIENCE)
        assert b"error" not in answer.data, answer.data
    return n / (time.perf_counter() - began)


async def drain(context: Any, name: str, n: int) -> float:
    """Jobs per second: fetched, an outcome stored for each, acknowledged."""
    pull = await context.pull_subscribe(f"{name}.job.*", durable="floor", stream=name)
    began = time.perf_counter()
    done = 0
    while done < n:
        messages = await pull.fetch(BATCH_OUT, timeout=PATIENCE)
        acks = [await context.publish_async(f"{name}.out.{one.subject.split('.')[2]}", one.data) for one in messages]
        await asyncio.wait_for(asyncio.gather(*acks), PATIENCE)
        for one in messages:
            await one.ack()
        done += len(messages)
    while (await context.stream_info(name)).state.messages:  # noqa: ASYNC110 - from outside there is no event
        await asyncio.sleep(0.002)
    return n / (time.perf_counter() - began)


async def latency(context: Any, name: str, n: int) -> dict[str, float]:
    """Milliseconds from the publish to the parked fetch's answer, one job at a time."""
    pull = await context.pull_subscribe(f"{name}.job.*", durable="floor", stream=name)
    times = []
    for _ in range(n):
        fetching = asyncio.create_task(pull.fetch(1, timeout=PATIENCE))
        await asyncio.sleep(0.02)
        began = time.perf_counter()
        await context.publish(f"{name}.job.{new_id()}", DATA)
        [message] = await fetching
        times.append((time.perf_counter() - began) * 1e3)
        await message.ack()
    times.sort()
    return {"p50_ms": times[n // 2], "p99_ms": times[int(n * 0.99)]}


async def measure(url: str, what: str, n: int) -> dict[str, float]:
    client = await nats.connect(url, pending_size=0)
    try:
        context, name = await streams(client, n)
        if what == "latency":
            return await latency(context, name, n)
        found = {"enqueue_per_s": await enqueue(context, name, n)}
        found["drain_per_s"] = await drain(context, name, n)
        _, other = await streams(client, n)
        found["batches_per_s"] = await enqueue_batches(client, other, n)
        return found
    finally:
        await client.close()


if __name__ == "__main__":
    print(json.dumps(run_async(measure(sys.argv[1], sys.argv[2], int(sys.argv[3])))))
