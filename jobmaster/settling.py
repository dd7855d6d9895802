"""Settling: `settle` and `release` on an agent on a database server.

Success and failure, which need nothing of the policy, are written for a whole batch by statements of the store's own.
All other outcomes, and whatever those passed over, go through the decisions one by one; so do leases given back.
"""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

from jobmaster.contracts import decisions
from jobmaster.contracts.values import Release, SettleAnswer, Settlement
from jobmaster.ledger import LEASED, Ledger, Standing, distinct
from jobmaster.model.outcome import RunOutcome
from jobmaster.telemetry.probes import probe

BY_STORE_ONLY = frozenset({RunOutcome.LAPSED, RunOutcome.CANCELLED})
BULK = frozenset({RunOutcome.SUCCEEDED, RunOutcome.FAILED})

ConnectionT = TypeVar("ConnectionT")
Stranger = tuple[int, str, int, int]
"""Number of the item, job, token, digest: of who holds no lease."""


class Flushed(Protocol):
    """A ledger that was."""

    gone: list[str]
    ready: set[str]


class Ended:
    """What a batch of settlements, releases or lapses did."""

    __slots__ = ("answers", "gone", "ready")

    def __init__(self, answers: list[SettleAnswer]) -> None:
        self.answers = answers
        self.gone: list[str] = []
        self.ready: set[str] = set()

    def take(self, ledger: Flushed) -> None:
        """What a flushed ledger did, too."""
        self.gone += ledger.gone
        self.ready |= ledger.ready


class Settling(ABC, Generic[ConnectionT]):
    """The verbs `settle` and `release` on one store. `ConnectionT` is one on which a transaction is open."""

    async def settle(self, items: Sequence[Settlement]) -> Ended:
        bulk: dict[str, Settlement] = {}
        others: list[int] = []
        seen: set[str] = set()
        for at, item in enumerate(items):
            if item.outcome in BY_STORE_ONLY:
                raise ValueError(
                    f"job {item.id}: outcome {item.outcome} is written by the store, not settled by a worker"
                )
            if item.id in seen or item.outcome not in BULK:
                others.append(at)
            else:
                bulk[item.id] = item
            seen.add(item.id)
        ended = Ended([SettleAnswer.ACCEPTED] * len(items))
        if bulk:
            ended.gone = await self._settle_bulk([bulk[job_id] for job_id in sorted(bulk)])
            if len(ended.gone) < len(bulk):
                missed = bulk.keys() - set(ended.gone)
                others = sorted({*others, *(at for at, item in enumerate(items) if item.id in missed)})
        if others:
            await self._settle_others(items, others, ended)
        return ended

    async def release(self, items: Sequence[Release]) -> Ended:
        async def release(connection: ConnectionT) -> Ended:
            done = Ended([SettleAnswer.ACCEPTED] * len(items))
            now_us = await self._checked_now_us(connection)
            for run in distinct(enumerate(items)):
                rows = await self._locked(connection, [item.id for _, item in run])
                ledger = self._ledger(connection, now_us)
                strangers: list[Stranger] = []
                for at, item in run:
                    row, digest = rows.get(item.id), decisions.release_digest(item)
                    if row is None or row.st != LEASED or row.job.token != item.token:
                        strangers.append((at, item.id, item.token, digest))
                    else:
                        ledger.end_lease(row, *decisions.released(row.job, item, now_us), digest)
                await ledger.flush()
                await self._repeated(connection, strangers, done)
                done.take(ledger)
            return done

        return await self._transact(release, after_commit="release.after_commit")

    async def _settle_others(self, items: Sequence[Settlement], others: Sequence[int], ended: Ended) -> None:
        async def settle(connection: ConnectionT) -> Ended:
            done = Ended(list(ended.answers))
            now_us = await self._checked_now_us(connection)
            for run in distinct((at, items[at]) for at in others):
                rows = await self._locked(connection, [item.id for _, item in run])
                ledger = self._ledger(connection, now_us)
                strangers: list[Stranger] = []
                for at, item in run:
                    row = rows.get(item.id)
                    if row is None or row.st != LEASED or row.job.token != item.token:
                        strangers.append((at, item.id, item.token, item.digest()))
                    else:
                        ledger.end_lease(row, *decisions.settled(row.job, item, now_us), item.digest())
                await ledger.flush()
                await self._repeated(connection, strangers, done)
                done.take(ledger)
            return done

        done = await self._transact(settle, before_commit="settle.before_commit", after_commit="settle.after_commit")
        ended.answers = done.answers
        ended.gone += done.gone
        ended.ready |= done.ready
        stale = ended.answers.count(SettleAnswer.STALE)
        if stale:
            probe("stale_settle", stale)

    async def _repeated(self, connection: ConnectionT, strangers: Sequence[Stranger], ended: Ended) -> None:
        """The answers to those who hold no lease: a repetition of what ended it, overtaken, or never heard of."""
        if not strangers:
            return
        ends: dict[str, set[tuple[int, int]]] = {}
        for job_id, token, digest in await self._ends(connection, [job_id for _, job_id, *_ in strangers]):
            ends.setdefault(job_id, set()).add((token, digest))
        for at, job_id, token, digest in strangers:
            known = ends.get(job_id)
            if known is None:
                ended.answers[at] = SettleAnswer.UNKNOWN
            elif (token, digest) not in known:
                ended.answers[at] = SettleAnswer.STALE
            else:
                ended.answers[at] = SettleAnswer.ACCEPTED

    @abstractmethod
    async def _settle_bulk(self, items: Sequence[Settlement]) -> list[str]:
        """Settle successes and failures that are leased by their token, given in order of id; the ids that were."""

    @abstractmethod
    async def _transact(
        self,
        change: Callable[[ConnectionT], Awaitable[Ended]],
        *,
        before_commit: str | None = None,
        after_commit: str | None = None,
    ) -> Ended:
        """A transaction around `change`, with failpoints of these names."""

    @abstractmethod
    async def _checked_now_us(self, connection: ConnectionT) -> int:
        """Store time, if the store is still the one that was opened."""

    @abstractmethod
    async def _locked(self, connection: ConnectionT, ids: Sequence[str]) -> Mapping[str, Standing]:
        """Those of these jobs that are here."""

    @abstractmethod
    def _ledger(self, connection: ConnectionT, now_us: int) -> Ledger[Any]: ...

    @abstractmethod
    async def _ends(self, connection: ConnectionT, ids: Sequence[str]) -> Sequence[tuple[str, int, int]]:
        """Last token and digest of these jobs, of those that are here and of those that have left; both where a job
        came again."""
