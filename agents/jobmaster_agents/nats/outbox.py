"""The outbox: the records of the outcome stream that are facts for the master, in order, behind what it has.

Nothing is deleted when it is confirmed: the last record of a job is its fence and its tombstone.
"""

from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

import msgspec
from msgspec import structs

from jobmaster.contracts.values import OutboxRecord, RecordKind
from jobmaster.model.errors import Indeterminate
from jobmaster_agents.nats.api import WRONG_LAST_SEQUENCE
from jobmaster_agents.nats.frames import header_block
from jobmaster_agents.nats.publisher import EXPECTED, read_ack
from jobmaster_agents.nats.reader import Stored
from jobmaster_agents.nats.recall import Recalled
from jobmaster_agents.nats.records import Confirmed, Record, decode_record, encode
from jobmaster_agents.nats.store import Store
from jobmaster_agents.nats.streams import MESSAGE_BYTES

PAGE = 1_000
MOST_READ_BYTES = 32 * MESSAGE_BYTES
"""Of records read for one answer: so many large ones are enough."""
ROUNDS = 20


class Fact(NamedTuple):
    """A record that is for the master."""

    seq: int
    record: Record | None
    """None: it can't be read."""
    at_us: int
    raw: bytes = b""
    read: int = 0
    """Bytes that were read for it; 0: it was here already."""


class Outbox:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._read: tuple[int, list[int]] = (0, [])
        """The facts that were read last, and the cursor they follow: who confirms need not read them again."""

    async def changes(self, limit: int, older_than_us: int) -> list[OutboxRecord]:
        store = self._store
        confirmed, recalled = await self._confirmed(limit)
        until_us = await store.now_us() - older_than_us if older_than_us else None
        beyond = frozenset(confirmed.beyond)
        found: list[OutboxRecord] = []
        facts: list[int] = []
        read = 0
        async for fact in self._facts(confirmed.cursor, min(limit, PAGE), recalled):
            facts.append(fact.seq)
            if fact.seq in beyond or (until_us is not None and fact.record is not None and fact.at_us > until_us):
                continue
            found.append(_outbox_record(fact, confirmed.base))
            read += fact.read
            # Looked at here and not before the next one, for which the stream would have to be read.
            if len(found) == limit or read >= MOST_READ_BYTES:
                break
        cursor, known = self._read
        # Who looks whether there is anything must not make another, who is about to confirm, read it all again.
        if confirmed.cursor != cursor or facts != known[: len(facts)]:
            self._read = confirmed.cursor, facts
        return found

    async def _confirmed(self, limit: int) -> tuple[Confirmed, list[Recalled]]:
        """How far the master is, and what this process wrote since, if the stream has it still: enough of it for that
        many facts."""
        reader, recall = self._store.reader, self._store.shared.recall
        newest = recall.newest
        if newest is None:
            confirmed, _ = await reader.confirmed()
            recall.forget(confirmed.cursor)
            return confirmed, []
        confirmed, nonce = await reader.confirmed_and_nonce(newest.seq)
        if nonce is not None and nonce != newest.nonce:
            recall.clear()
        recall.forget(confirmed.cursor)
        # A server that is behind has not heard of it yet, and what came since is not vouched for.
        return confirmed, recall.first(limit + len(confirmed.beyond), newest.seq) if nonce is not None else []

    async def confirm(self, seqs: Sequence[int]) -> None:
        if not seqs:
            return
        store = self._store
        for _ in range(ROUNDS):
            confirmed, at = await store.reader.confirmed()
            new = {
                *confirmed.beyond,
                *(seq - confirmed.base for seq in seqs if seq - confirmed.base > confirmed.cursor),
            }
            cursor = confirmed.cursor
            for seq in await self._following(cursor, max(new, default=0)):
                if seq not in new:
                    break
                cursor = seq
            after = structs.replace(confirmed, cursor=cursor, beyond=tuple(sorted(seq for seq in new if seq > cursor)))
            if after == confirmed:
                return
            headers = header_block((EXPECTED, str(at)))
            ack = read_ack(await store.link.ask(store.subjects.confirmed, encode(after), headers=headers))
            if ack is not None and ack.error is None:
                return
            if ack is not None and ack.error is not None and ack.error.err_code != WRONG_LAST_SEQUENCE:
                break
        raise Indeterminate("the confirmation was not taken", agent=store.name)

    async def _following(self, cursor: int, until: int) -> list[int]:
        """The facts after a cursor, up to that sequence."""
        start, facts = self._read
        if start == cursor and facts and facts[-1] >= until:
            return facts
        found = []
        async for fact in self._facts(cursor, PAGE, []):
            if fact.seq > until:
                break
            found.append(fact.seq)
        return found

    async def _facts(self, cursor: int, batch: int, recalled: Sequence[Recalled]) -> AsyncIterator[Fact]:
        """All after the cursor, in order. What lies between what is recalled is read; where nothing of it is there, as
        with a server that is behind, this ends: what is missing must not be passed over."""
        store, start, known = self._store, cursor + 1, deque(recalled)
        while True:
            while known and known[0].seq <= start:
                one = known.popleft()
                if one.seq == start:
                    start += 1
                    if one.fact is not None:
                        yield Fact(one.seq, one.fact, one.fact.at_us)
            most = min(batch, known[0].seq - start) if known else batch
            page, more = await store.reader.page(store.subjects.out_stream, store.subjects.outs, start, most)
            for stored in page:
                fact = _read_fact(stored)
                if fact.record is None or fact.record.kind:
                    yield fact
            if not page or (not more and not known):
                return
            start = page[-1].seq + 1


def _read_fact(stored: Stored) -> Fact:
    try:
        record = decode_record(stored.data)
    except msgspec.DecodeError:
        return Fact(stored.seq, None, stored.at_us, stored.data, len(stored.data))
    return Fact(stored.seq, record, record.at_us, b"", len(stored.data))


def _outbox_record(fact: Fact, base: int) -> OutboxRecord:
    record = fact.record
    if record is None:
        return OutboxRecord(seq=base + fact.seq, kind=RecordKind.PLAIN, at_us=fact.at_us, job=None, raw=fact.raw)
    return OutboxRecord(
        seq=base + fact.seq,
        kind=RecordKind(record.kind),
        at_us=record.at_us,
        job=record.job,
        run=record.run,
        revoked=record.revoked if record.job is None else None,
    )
