"""The streams of a NATS agent are restored from an older copy, emptied or removed, while the cluster runs and while it
is stopped: see `test_rewound_sqlite`."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import nats
import pytest

from jobmaster import Cluster
from jobmaster_agents.nats.subjects import Subjects
from tests.servers import Nats
from tests.sizes import SIZES
from tests.system.rewound import AGENT, CLUSTER, begin, prepared, sorted_out

pytestmark = pytest.mark.slow

SUBJECTS = Subjects(CLUSTER, AGENT)


class Operator:
    """Somebody with access to the server and its disk, and a copy of it."""

    def __init__(self, server: Nats) -> None:
        self._server = server
        self._copy = server.folder / "copy"

    async def copy(self) -> None:
        """A backup is made of a server that stands still."""
        await asyncio.to_thread(self._swap, self._server.store, self._copy)

    async def older_copy(self) -> None:
        await asyncio.to_thread(self._swap, self._copy, self._server.store)

    async def remove_outcomes(self) -> None:
        await self._remove(SUBJECTS.out_stream)

    async def remove_all(self) -> None:
        await self._remove(SUBJECTS.jobs_stream, SUBJECTS.out_stream, SUBJECTS.ctl_stream)

    async def _remove(self, *streams: str) -> None:
        client = await nats.connect(self._server.url)
        for stream in streams:
            await client.jetstream().delete_stream(stream)
        await client.close()

    def _swap(self, source: Path, target: Path) -> None:
        self._server.stop()
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target)
        for path in (source, *source.rglob("*")):
            shutil.chown(target / path.relative_to(source), path.owner(), path.group())
        self._server.start()


HARMS = [Operator.older_copy, Operator.remove_outcomes, Operator.remove_all]
HARM = pytest.mark.parametrize("harm", HARMS)
WHILE_STOPPED = pytest.mark.parametrize("harm", HARMS if SIZES.name == "full" else HARMS[:1])


@pytest.fixture
def server(own_nats: Callable[..., Nats]) -> Nats:
    return own_nats()


@pytest.fixture
def operator(server: Nats) -> Operator:
    return Operator(server)


@pytest.fixture
def cluster(server: Nats, tmp_path: Path) -> Cluster:
    return begin(f"sqlite:///{tmp_path}/master.db", server.url, monitor=server.monitor)


@pytest.mark.asyncio
@HARM
async def test_while_it_runs(cluster: Cluster, operator: Operator, harm: Callable[[Operator], Awaitable[None]]) -> None:
    async with prepared(cluster, operator.copy) as before:
        await harm(operator)
        await sorted_out(before.runtime, before)


@pytest.mark.asyncio
@WHILE_STOPPED
async def test_while_it_is_stopped(
    cluster: Cluster, operator: Operator, harm: Callable[[Operator], Awaitable[None]]
) -> None:
    async with prepared(cluster, operator.copy) as before:
        pass
    await harm(operator)
    async with cluster.run() as runtime:
        await sorted_out(runtime, before)
