"""The link to a master that is there, away, or hangs."""

import asyncio
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import pytest
import pytest_asyncio

from jobmaster import master_link
from jobmaster.contracts.attempt import may_commit
from jobmaster.contracts.clock import SystemClock
from jobmaster.contracts.entries import Placement
from jobmaster.contracts.values import ProbeReport
from jobmaster.master.memory import MemoryMaster
from jobmaster.master_link import MasterLink
from jobmaster.model.errors import Indeterminate, MasterUnavailable, Refused, SchemaOutdated
from tests.support import eventually

pytestmark = pytest.mark.asyncio


class ServerMaster(MemoryMaster):
    """A master in memory that behaves as one on a server: it can be down, hang, and hang while it commits."""

    remote = True

    def __init__(self) -> None:
        super().__init__(SystemClock())
        self.down: Exception | None = None
        self.goes_on = asyncio.Event()
        self.goes_on.set()
        self.commit_goes_on = asyncio.Event()
        self.commit_goes_on.set()
        self.asked = 0
        self.committed = 0

    async def _answer(self) -> None:
        self.asked += 1
        await self.goes_on.wait()
        if self.down is not None:
            raise self.down

    async def open(self) -> ProbeReport:
        await self._answer()
        return await super().open()

    async def store_now_us(self) -> int:
        await self._answer()
        return await super().store_now_us()

    async def insert(self, placements: Any) -> Any:
        await self._answer()
        if not may_commit():
            raise Refused("nobody waits")
        await self.commit_goes_on.wait()
        self.committed += 1
        return []


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(master_link, "PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(master_link, "GRACE_SECONDS", 0.02)
    monkeypatch.setattr(master_link, "OPENING_SECONDS", 0.05)
    monkeypatch.setattr(master_link, "CLOSING_SECONDS", 0.1)


@pytest_asyncio.fixture
async def server() -> ServerMaster:
    return ServerMaster()


@pytest_asyncio.fixture
async def link(server: ServerMaster) -> AsyncIterator[MasterLink]:
    link = MasterLink(server, SystemClock(), Random(1))
    yield link
    server.goes_on.set()
    server.commit_goes_on.set()
    await link.close()


NONE: list[Placement] = []


async def test_a_master_that_answers_is_used_as_it_is(link: MasterLink, server: ServerMaster) -> None:
    assert await link.open()
    await link.store.insert(NONE)
    assert (server.committed, link.problem) == (1, None)


async def test_a_master_in_this_process_needs_no_link() -> None:
    master = MemoryMaster(SystemClock())
    assert MasterLink(master, SystemClock(), Random(1)).store is master


@pytest.mark.parametrize("how", ["down", "hangs"])
async def test_one_that_is_away_at_the_start_is_opened_when_it_comes(
    link: MasterLink, server: ServerMaster, how: str
) -> None:
    returned: list[str] = []
    link.returned = lambda: returned.append("back")
    if how == "down":
        server.down = MasterUnavailable("connection refused")
    else:
        server.goes_on.clear()
    assert not await link.open()
    with pytest.raises(MasterUnavailable, match="refused" if how == "down" else "did not answer"):
        await link.store.insert(NONE)
    server.down = None
    server.goes_on.set()
    await eventually(lambda: returned == ["back"])
    await link.store.insert(NONE)
    assert server.committed == 1


async def test_what_can_not_mend_itself_ends_the_start(link: MasterLink, server: ServerMaster) -> None:
    server.down = SchemaOutdated("postgresql://there/db", "r0001", "r0002")
    with pytest.raises(SchemaOutdated):
        await link.open()


async def test_one_that_hangs_is_given_up_in_time_and_then_not_asked(link: MasterLink, server: ServerMaster) -> None:
    await link.open()
    server.goes_on.clear()
    began = asyncio.get_running_loop().time()
    with pytest.raises(MasterUnavailable, match=r"did not answer within 0.05 s"):
        await link.store.insert(NONE)
    assert asyncio.get_running_loop().time() - began < 1
    assert link.problem is not None
    await eventually(lambda: server.asked >= 3, what="the loop asks whether it is back")
    for _ in range(100):
        before = server.asked
        with pytest.raises(MasterUnavailable):
            await link.store.insert(NONE)
        assert server.asked == before
    server.goes_on.set()
    await eventually(lambda: link.problem is None)
    # What was given up was not applied behind anybody's back.
    assert server.committed == 0
    await link.store.insert(NONE)
    assert server.committed == 1


async def test_a_call_given_up_before_its_commit_never_commits(link: MasterLink, server: ServerMaster) -> None:
    """Also by a store that ignores its cancellation."""
    await link.open()

    async def stubborn(placements: Any) -> Any:
        waiting = asyncio.ensure_future(server.goes_on.wait())
        while not waiting.done():
            try:
                await asyncio.shield(waiting)
            except asyncio.CancelledError:
                continue
        server.committed += may_commit()
        return []

    server.goes_on.clear()
    server.insert = stubborn  # type: ignore[method-assign]
    with pytest.raises(MasterUnavailable):
        await link.store.insert(NONE)
    server.goes_on.set()
    await eventually(lambda: not link._abandoned)
    assert server.committed == 0


async def test_one_that_hangs_while_it_commits_is_indeterminate(link: MasterLink, server: ServerMaster) -> None:
    await link.open()
    server.commit_goes_on.clear()
    with pytest.raises(Indeterminate):
        await link.store.insert(NONE)


async def test_a_refusal_of_one_call_does_not_make_it_count_as_away(link: MasterLink, server: ServerMaster) -> None:
    await link.open()
    server.down = Refused("value too long")
    with pytest.raises(Refused, match="too long"):
        await link.store.insert(NONE)
    assert link.problem is None


async def test_a_bulk_is_given_more_time(link: MasterLink, server: ServerMaster) -> None:
    assert master_link._patience("insert", ([None] * 1_000,)) > 1
    assert master_link._patience("insert", ([None],)) < 0.1
    assert master_link._patience("apply", ("a", [None])) == 30
    assert master_link._patience("store_now_us", ()) == 0.05


async def test_closing_does_not_wait_for_one_that_hangs(link: MasterLink, server: ServerMaster) -> None:
    await link.open()

    async def never() -> None:
        await asyncio.Event().wait()

    server.close = never  # type: ignore[method-assign]
    async with asyncio.timeout(5):
        await link.close()
