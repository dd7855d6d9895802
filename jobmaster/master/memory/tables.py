"""What the memory master knows, as the SQL stores' tables would hold it, and the way in and out of it."""

import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from jobmaster.contracts.clock import Clock
from jobmaster.contracts.entries import AgentEntry, DefinitionEntry, Event, Placement, QuarantineEntry
from jobmaster.contracts.operating import Operation
from jobmaster.contracts.scheduling import Occurrence, Schedule, Term
from jobmaster.contracts.values import WorkerCard
from jobmaster.master.rules import newer
from jobmaster.model.errors import MasterUnavailable
from jobmaster.model.job import Job, Run
from jobmaster.model.states import JobState


class Tables:
    """One cluster's rows. Several handles may share them, from any thread, under the one lock."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.incarnation = secrets.token_hex(8)
        self.live: dict[str, Placement] = {}
        self.history: dict[str, Job] = {}
        self.runs: dict[str, dict[int, Run]] = {}
        self.quarantine: list[QuarantineEntry] = []
        self.definitions: dict[str, DefinitionEntry] = {}
        self.agents: dict[str, AgentEntry] = {}
        self.cursors: dict[str, int] = {}
        self.workers: dict[str, tuple[str, WorkerCard]] = {}
        self.events: dict[str, Event] = {}
        self.schedules: dict[str, Schedule] = {}
        self.occurrences: dict[tuple[str, int], Occurrence] = {}
        self.profiles: dict[str, int] = {}
        self.terms: dict[str, Term] = {}
        self.operations: dict[str, tuple[Operation, str, int]] = {}
        """With the node that carries it out, and until when."""

    def known(self, job_id: str) -> Job | None:
        """The newest of what is known of a job, history first."""
        ended, live = self.history.get(job_id), self.live.get(job_id)
        if live is None or (ended is not None and not newer(live.job, ended)):
            return ended
        return live.job

    def state_of(self, job_id: str) -> JobState | None:
        job = self.known(job_id)
        return None if job is None else job.state

    def write(self, job: Job, placement: Placement | None = None) -> None:
        """Make this the one row of the job: in the history if it has ended, else among the live ones."""
        if job.terminal:
            self.live.pop(job.id, None)
            self.history[job.id] = job
        else:
            self.history.pop(job.id, None)
            self.live[job.id] = placement or Placement(job)


class MemoryPart:
    """What the parts of the memory master stand on."""

    def __init__(self, tables: Tables, clock: Clock) -> None:
        self._tables = tables
        self._clock = clock
        self._opened = False

    @contextmanager
    def _rows(self) -> Iterator[Tables]:
        """The tables, locked: one transaction. Who writes checks first, since nothing is rolled back here."""
        if not self._opened:
            raise MasterUnavailable("the memory master is not open", "call open() first")
        with self._tables.lock:
            yield self._tables
