"""Syncer: what happened on an agent reaches the master's history.

Where both live in one database, plain records move over there and no row travels to this process; the others, on which
the master has to act, and all of a separate agent's, are read, applied and confirmed. All three steps may be repeated,
and several processes may do them at once.

Where records can only be confirmed up to a point, each batch moves a cursor on the master in the transaction that
applies it, by compare-and-set: of several processes that read the same records one applies them.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import cast

import structlog

from jobmaster.contracts.agent import AgentTransport, RememberingTransport
from jobmaster.contracts.clock import Clock
from jobmaster.contracts.entries import ApplyAnswer
from jobmaster.contracts.master import MasterStore
from jobmaster.contracts.values import OutboxRecord, RecordKind
from jobmaster.remembered import payload_bytes
from jobmaster.store_time import StoreTime

BATCH = 500
"""Records read at a time: each may carry a job's whole data."""
REMEMBERED_BATCH = 1_000
"""Records brought over at a time that are here already."""
ABREAST = 2
"""Such batches under way at once: while one is written on the master the other is confirmed on the agent."""
CURSOR_BATCH = 1_000
"""Records read at a time of a transport with a cursor, which gives fewer where they are large. Each statement of the
transaction waits for handlers that are at work, so one for 100 records takes hardly less than one for 1,000."""
LARGE_BYTES = 8 << 20
"""Fewer records than a batch, but with so many bytes of payload, may be all that the transport gives at a time."""
READ_SECONDS = 1.0
"""How long the outbox goes unread while there are such."""
MOVE_BATCH = 2_000
"""Records moved at a time where none of them comes here."""
POLL_SECONDS = 2.0
OTHERS_US = 5_000_000
"""How long another process's worker may take to bring over its own records."""
LINGER_SECONDS = 0.25
"""How long records may gather while more keep coming: under load every pass then has a batch worth its transaction."""
QUIET_SECONDS = 0.02
"""With no new record for this long there is nothing to wait for."""

_log = structlog.get_logger("jobmaster.syncer")


class Syncer:
    """Drains one agent's outbox.

    A record of another process's worker is left to that process while it is younger than 5 s: it is about to bring it
    over itself.
    """

    def __init__(
        self,
        master: MasterStore,
        agent: AgentTransport,
        time: StoreTime,
        clock: Clock,
        *,
        shared: bool,
        is_mine: Callable[[str], bool],
    ) -> None:
        """`shared`: master and agent are one database. `is_mine`: whether a worker is, or was, of this process."""
        self._master = master
        self._agent = agent
        self._time = time
        self._clock = clock
        self._is_mine = is_mine
        self._outbox = agent.traits.shared_outbox if shared else None
        self._next_pass = clock.mono()
        self._read_at = clock.mono()
        self._asked_at = clock.mono() - QUIET_SECONDS
        self._cursor: int | None = None
        """Where the master's is, as far as this process moved it last."""

    async def run(self) -> float:
        """One pass."""
        now = self._clock.mono()
        quiet = now - self._asked_at >= QUIET_SECONDS
        self._asked_at = now
        if now < self._next_pass and not quiet:
            return min(QUIET_SECONDS, self._next_pass - now)
        if await self.sync():
            return 0
        self._next_pass = self._clock.mono() + LINGER_SECONDS
        return POLL_SECONDS

    async def sync(self) -> bool:
        """Bring one batch over; whether there may be more."""
        if not self._agent.traits.confirm_by_id:
            return await self._advance()
        if self._outbox is None:
            return await self._apply(effects_only=False)
        report = await self._master.move(self._agent.name, self._outbox, MOVE_BATCH)
        if report.effects and await self._apply(effects_only=True):
            return True
        return report.more

    async def _apply_remembered(self) -> bool:
        """What this process has settled just now, without reading it back; whether there was any. If it does not get
        over, it is read from the outbox like all else."""
        agent = cast("RememberingTransport", self._agent)
        batches = [records for _ in range(ABREAST) if (records := agent.remembered(REMEMBERED_BATCH))]
        if not batches:
            return False
        for error in await asyncio.gather(*map(self._bring, batches), return_exceptions=True):
            if error is not None:
                raise error
        return True

    async def _bring(self, records: Sequence[OutboxRecord]) -> None:
        await self._confirm(records, await self._master.apply(self._agent.name, records))

    async def _apply(self, *, effects_only: bool) -> bool:
        brought = not effects_only and self._agent.traits.remembers_ends and await self._apply_remembered()
        if brought and self._clock.mono() < self._read_at:
            return True
        # However many ends keep coming: what is not remembered, as retries and effects, must not wait for a pause.
        self._read_at = self._clock.mono() + READ_SECONDS
        found = await self._agent.changes(BATCH)
        if effects_only:
            records = [record for record in found if record.kind is RecordKind.EFFECT]
        else:
            left_us = await self._time.fresh_us() - OTHERS_US
            records = [record for record in found if record.at_us <= left_us or self._concerns_us(record)]
        if not records:
            return brought
        await self._confirm(records, await self._master.apply(self._agent.name, records))
        return brought or len(found) == BATCH

    async def _advance(self) -> bool:
        # The cursor first: what is read after it was read can't be older than what it stands for.
        after, self._cursor = self._cursor, None
        if after is None:
            after = await self._master.cursor(self._agent.name)
        records = await self._agent.changes(CURSOR_BATCH)
        if not records:
            self._cursor = after
            return False
        answers = await self._master.apply(self._agent.name, records, after)
        if not answers:
            # Another process is at it. It goes on at once, this one looks again at its next pass.
            return False
        self._cursor = records[-1].seq
        await self._confirm(records, answers)
        return len(records) >= BATCH or sum(payload_bytes(each.job) for each in records if each.job) >= LARGE_BYTES

    async def _confirm(self, records: Sequence[OutboxRecord], answers: Sequence[ApplyAnswer]) -> None:
        await self._agent.confirm([record.seq for record in records])
        if quarantined := answers.count(ApplyAnswer.QUARANTINED):
            _log.error("syncer.quarantined", agent=self._agent.name, records=quarantined)

    def _concerns_us(self, record: OutboxRecord) -> bool:
        return record.run is None or self._is_mine(record.run.worker)
