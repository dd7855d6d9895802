"""JournalAgent: jobs in memory, every change in a file, replayed at the next start.

A line of the journal is one call: store time, verb, arguments. A call is applied, appended and synced, and only then
answered; so whoever got an answer will find it again after a crash, and a half-written last line is nobody's.
"""

import asyncio
import fcntl
import inspect
import os
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, TypeVarTuple
from urllib.parse import urlsplit

import msgspec

from jobmaster.contracts.clock import Clock, SystemClock
from jobmaster.contracts.values import ProbeReport, Traits
from jobmaster.model.errors import ConfigurationError, Indeterminate, Refused
from jobmaster_agents.memory import MemoryAgent, control, leasing, placing, reconciling, revoking
from jobmaster_agents.memory.store import Store, shared_store

Given = TypeVarTuple("Given")
Answer = TypeVar("Answer")

WRITES: Mapping[str, Callable[..., Any]] = {
    verb.__name__: verb
    for verb in (
        *(placing.put, placing.claim, placing.promote, placing.park, placing.amend),
        *(leasing.extend, leasing.settle, leasing.release, leasing.reap),
        *(revoking.revoke, revoking.withdraw, control.control, control.confirm, control.prune),
        *(reconciling.rebase, reconciling.adopt),
    )
}
"""What is written down. Workers' cards and hints are not: workers say again that they are there."""


class JournalClock:
    """Store time: stands still during a call, so that the journal can name the one instant it happened at."""

    def __init__(self, under: Clock) -> None:
        self.under = under
        self.now_us = 0

    def wall_us(self) -> int:
        return self.now_us

    def mono(self) -> float:
        return self.under.mono()

    async def sleep(self, seconds: float) -> None:
        await self.under.sleep(seconds)


class JournalStore(Store):
    """A memory store with its file. The file stays open, and locked, for as long as the store lives."""

    def __init__(self, agent: str, clock: Clock, path: Path) -> None:
        self.time = JournalClock(clock)
        super().__init__(agent, self.time)
        self.findings = (f"the journal {path} is replayed at every start and never shortened",)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        self._close = weakref.finalize(self, os.close, self.file)
        self.written = self.synced = 0
        self.broken = False
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._close()
            raise Refused(f"agent {agent!r}: {path} is open in another process; one at a time") from error
        self._replay(path)

    def _replay(self, path: Path) -> None:
        text = path.read_bytes()
        whole = text.rfind(b"\n") + 1
        os.ftruncate(self.file, whole)
        lines = text[:whole].splitlines()
        if not lines:
            self.append([self.incarnation])
            return
        [self.incarnation] = msgspec.json.decode(lines[0])
        for line in lines[1:]:
            self.time.now_us, name, given = msgspec.json.decode(line)
            verb = WRITES[name]
            hints = list(inspect.get_annotations(verb).values())
            verb(self, *(msgspec.convert(value, hint) for value, hint in zip(given, hints[1:], strict=False)))

    def append(self, entry: list[Any]) -> None:
        """One line, not yet synced."""
        line = msgspec.json.encode(entry) + b"\n"
        self._guarded(partial(os.write, self.file, line), len(line))
        self.written += 1

    def sync(self) -> None:
        """Everything appended before is on disk afterwards."""
        reached = self.written
        if self.synced < reached:
            self._guarded(partial(os.fsync, self.file), None)
            self.synced = max(self.synced, reached)

    def _guarded(self, write: Callable[[], int | None], expected: int | None) -> None:
        try:
            self.broken = self.broken or write() != expected
        except OSError:
            self.broken = True
        if self.broken:
            # Memory is ahead of the file now: only a restart brings them together again.
            raise Indeterminate("the journal could not be written; make room and restart", agent=self.agent)


class JournalAgent(MemoryAgent):
    """`journal:///folder`: one file per cluster and agent in it."""

    traits = Traits(cross_process=False, virtual_time=True)

    def __init__(
        self,
        url: str,
        *,
        cluster: str,
        name: str,
        clock: Clock | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme != "journal" or parts.netloc or not parts.path.strip("/"):
            raise ConfigurationError([f"agent {name!r}: {url!r} is no journal; expected journal:///folder"])
        super().__init__("memory:", cluster=cluster, name=name, clock=clock, options=options)
        self._path = Path(parts.path).absolute() / f"{cluster}.{name}.journal"
        self._real = clock or SystemClock()

    async def open(self) -> ProbeReport:
        try:
            return await super().open()
        except OSError as error:
            raise Refused(f"agent {self.name!r}: {self._path}: {error.strerror}; make the folder writable") from error

    def shared(self) -> Store:
        return shared_store(str(self._path), "", self.name, lambda: JournalStore(self.name, self._real, self._path))

    async def locked(self, verb: Callable[[Store, *Given], Answer], *args: *Given, insist: bool = False) -> Answer:
        def call(store: Store, *given: *Given) -> tuple[Answer, JournalStore]:
            assert isinstance(store, JournalStore)
            if store.broken:
                raise Refused(f"agent {self.name!r}: {self._path} could not be written; make room and restart")
            store.time.now_us = store.time.under.wall_us()
            answer = verb(store, *given)
            if verb.__name__ in WRITES and WRITES[verb.__name__] is verb:
                store.append([store.time.now_us, verb.__name__, given])
            return answer, store

        answer, store = await super().locked(call, *args, insist=insist)
        # Reads wait too: nobody may act on what a crash could still take back.
        await asyncio.to_thread(store.sync)
        return answer
