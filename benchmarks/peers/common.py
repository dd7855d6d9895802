"""What every peer's program shares. It runs in that peer's own environment, so it imports nothing of JobMaster.

    python benchmarks/peers/<peer>.py '{"url": …, "what": "drain" | "latency", "n": 5000, "settings": {…}}'

prints one line of JSON. The clock of a drain runs from the start of the worker, connections open, until the last job's
completion is durable; that is asked of the database only once every handler has run, so asking costs the peer nothing.
"""

import asyncio
import json
import sys
import time
from abc import ABC, abstractmethod

PATIENCE = 10.0


class Meter:
    """Counts handlers that ran, and tells when."""

    def __init__(self):
        self.count = 0
        self.last = 0.0
        self.target = 0
        self.reached = asyncio.Event()

    def ran(self):
        self.last = time.perf_counter()
        self.count += 1
        if self.count == self.target:
            self.reached.set()

    async def wait(self, target, patience):
        """Return when `target` handlers ran; raises TimeoutError when none runs for `patience` seconds."""
        self.target = target
        self.reached.clear()
        while self.count < target:
            before = self.count
            try:
                await asyncio.wait_for(self.reached.wait(), patience)
            except TimeoutError:
                if self.count == before:
                    raise TimeoutError(f"stuck at {before} of {target} for {patience} s") from None


class Peer(ABC):
    """A peer's program: install, enqueue, run a worker whose handler calls `self.meter.ran()`."""

    def __init__(self, url, settings):
        self.url = url
        self.settings = settings
        self.meter = Meter()

    @abstractmethod
    async def open(self):
        """Connect and install what the peer needs in an empty database."""

    @abstractmethod
    async def enqueue(self, n):
        """Enqueue n jobs by the peer's fastest way."""

    @abstractmethod
    async def one(self):
        """Enqueue one job."""

    @abstractmethod
    async def start(self):
        """Start the worker, all in this process; returns while it runs."""

    @abstractmethod
    async def finished(self):
        """How many jobs are durably completed."""

    @abstractmethod
    async def close(self):
        """Stop the worker and disconnect."""


async def drain(peer, n):
    began = time.perf_counter()
    await peer.enqueue(n)
    enqueued = time.perf_counter() - began
    began = time.perf_counter()
    await peer.start()
    await peer.meter.wait(n, PATIENCE)
    handled = time.perf_counter() - began
    while (done := await peer.finished()) < n:
        if time.perf_counter() - began - handled > 3 * PATIENCE:
            raise TimeoutError(f"{done} of {n} completed, {3 * PATIENCE} s after the last handler")
        await asyncio.sleep(0.005)
    elapsed = time.perf_counter() - began
    assert peer.meter.count == n, (peer.meter.count, n)
    return {"enqueue_per_s": n / enqueued, "drain_per_s": n / elapsed, "handled_per_s": n / handled}


async def latency(peer, n):
    """Milliseconds, one job at a time on an idle worker: of the call, and from the call to the handler's first line."""
    await peer.start()
    calls, starts = [], []
    for number in range(n + 10):
        began = time.perf_counter()
        await peer.one()
        called = time.perf_counter()
        await peer.meter.wait(number + 1, PATIENCE)
        if number >= 10:
            calls.append((called - began) * 1e3)
            starts.append((peer.meter.last - began) * 1e3)
        await asyncio.sleep(0.02)
    calls.sort()
    starts.sort()
    return {"enqueue_p50_ms": calls[n // 2], "p50_ms": starts[n // 2], "p99_ms": starts[int(n * 0.99)]}


async def measure(kind, order):
    peer = kind(order["url"], order["settings"])
    await peer.open()
    try:
        return await {"drain": drain, "latency": latency}[order["what"]](peer, order["n"])
    finally:
        try:
            await asyncio.wait_for(peer.close(), 20)
        except Exception as fault:  # the measurement is done; how a peer stops is not what is measured
            print(f"closing: {fault!r}", file=sys.stderr)


def main(kind):
    order = json.loads(sys.argv[1])
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(measure(kind, order))), flush=True)
    # A peer may leave threads and tasks behind.
    sys.stdout.flush()
    import os

    os._exit(0)
