"""The memory master passes the master contract."""

from collections.abc import AsyncIterator, Sequence

import pytest_asyncio

from jobmaster.contracts.master import MasterStore
from jobmaster.contracts.values import OutboxRecord
from jobmaster.master import open_master
from jobmaster.model.ids import new_id
from jobmaster.testing.clock import ManualClock
from jobmaster.testing.masters import MasterContract, MasterHarness


class MemoryHarness:
    restartable = False

    def __init__(self) -> None:
        self._clock = ManualClock()
        self._url = f"memory://{new_id()}"
        self._opened: list[MasterStore] = []

    async def open(self) -> MasterStore:
        master = open_master(self._url, cluster="test", clock=self._clock)
        await master.open()
        self._opened.append(master)
        return master

    async def restart(self) -> MasterStore:
        raise AssertionError("not restartable")

    async def advance(self, seconds: float) -> None:
        self._clock.advance(seconds)

    async def outbox(self, records: Sequence[OutboxRecord]) -> str | None:
        return None

    async def close(self) -> None:
        for master in self._opened:
            await master.close()


class TestMemoryMaster(MasterContract):
    @pytest_asyncio.fixture
    async def store(self) -> AsyncIterator[MasterHarness]:
        harness = MemoryHarness()
        yield harness
        await harness.close()
