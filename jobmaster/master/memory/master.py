"""MemoryMaster: its parts put together, opened and closed."""

import threading
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

from jobmaster.contracts.clock import Clock
from jobmaster.contracts.values import HistoryTables, ProbeReport
from jobmaster.master.memory.history import MemoryHistory
from jobmaster.master.memory.intake import MemoryIntake
from jobmaster.master.memory.jobs import MemoryJobs
from jobmaster.master.memory.operations import MemoryOperations
from jobmaster.master.memory.planning import MemoryPlanning
from jobmaster.master.memory.schedules import MemorySchedules
from jobmaster.master.memory.tables import Tables
from jobmaster.master.memory.topology import MemoryTopology

_shared: WeakValueDictionary[tuple[str, str], Tables] = WeakValueDictionary()
_shared_lock = threading.Lock()


class MemoryMaster(
    MemoryJobs, MemoryIntake, MemoryHistory, MemoryTopology, MemorySchedules, MemoryPlanning, MemoryOperations
):
    """A master that lives as long as its process. Masters of one `memory://NAME` and cluster share their rows for as
    long as one of them lives; `memory:` is always a new one. Store time is the given clock."""

    database_key: str | None = None
    history_tables: HistoryTables | None = None
    remote = False

    def __init__(self, clock: Clock, *, url: str = "memory:", cluster: str = "") -> None:
        name = urlsplit(url).netloc
        super().__init__(_tables(name, cluster) if name else Tables(), clock)

    async def open(self) -> ProbeReport:
        self._opened = True
        return await self.probe()

    async def close(self) -> None:
        self._opened = False

    async def probe(self) -> ProbeReport:
        with self._rows() as rows:
            return ProbeReport(
                incarnation=rows.incarnation,
                findings=("the memory master forgets everything when its process ends",),
                facts={"store": "memory"},
            )

    async def store_now_us(self) -> int:
        return self._clock.wall_us()


def _tables(name: str, cluster: str) -> Tables:
    with _shared_lock:
        return _shared.setdefault((name, cluster), Tables())
