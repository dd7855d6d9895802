"""put: jobs into the store.

Mostly all of them are new: they are inserted, and only then is looked for tombstones, by a statement of its own, so
that a job being settled meanwhile is seen as a row or as a tombstone. Where one is known already, the insert fails, and
each gets its own answer under locks.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

import pymysql

from jobmaster.contracts.mysql_text import chunks, literal, often, row, sql
from jobmaster.contracts.values import PutAnswer
from jobmaster.model.errors import Refused
from jobmaster.model.job import Job
from jobmaster.telemetry.probes import probe
from jobmaster_agents.mysql.connection import Later, duplicate_key
from jobmaster_agents.mysql.rows import COLUMNS, LINE, standing
from jobmaster_agents.mysql.session import Session
from jobmaster_agents.mysql.store import CLOSED_TO_NEW, Meta, Store
from jobmaster_agents.mysql.tables import DELAYED, LEASED, READY

_ALWAYS = (
    *("id", "handler", "lane", "priority", "epoch", "claim_seq", "version"),
    *("created_us", "original_due_us", "due_us", "policy", "data"),
)
_FULL = ("worker", *(name for name in COLUMNS if name not in (*_ALWAYS, "worker")))
_LAST = ("last_token", "last_digest")
_always_of, _seldom_of = attrgetter(*_ALWAYS), attrgetter(*_FULL)
_USUAL = _seldom_of(Job(id="", handler="", created_us=0, original_due_us=0, due_us=0))
"""What few jobs bring (`_FULL`) is sent only if some job of a batch does."""

_Kept = Mapping[str, tuple[int, int]]
"""The last token and digest of rows that are replaced, by id."""


class KnownError(Exception):
    """Some of the jobs are known here, or may not come."""


class Putting:
    """The verb `put` on one store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        t = store.tables
        self._insert = f"INSERT INTO {t.job} "
        self._buried = f"SELECT id, epoch FROM {t.tombstone} FORCE INDEX (PRIMARY) WHERE id IN ?"
        self._rows = f"""
            SELECT j.id, j.epoch, j.st, j.handler, coalesce(j.first_data, j.data), j.last_token, j.last_digest, j.lane
            FROM {t.job} AS j FORCE INDEX (PRIMARY) WHERE j.id IN ? ORDER BY j.id FOR UPDATE"""

    async def put(self, jobs: Sequence[Job], deadline_us: int) -> list[PutAnswer]:
        """In a transaction of its own."""
        if not jobs:
            return []
        write = self.store.database.write
        try:
            await write(
                lambda session: self.put_new(session, jobs, deadline_us),
                before_commit="enqueue.before_commit",
                after_commit="enqueue.after_commit",
            )
        except KnownError:
            answers = await write(
                lambda session: self.put_known(session, jobs, deadline_us),
                before_commit="enqueue.before_commit",
                after_commit="enqueue.after_commit",
            )
            duplicates = answers.count(PutAnswer.DUPLICATE)
            if duplicates:
                probe("duplicate_put", duplicates)
            return answers
        return [PutAnswer.STORED] * len(jobs)

    async def put_new(self, session: Session, jobs: Sequence[Job], deadline_us: int) -> None:
        """Store them all. Raises `KnownError`, and the transaction must be rolled back, if that can't be."""
        meta, first, _ = await self.store.checked_places(session)
        if meta.now_us > deadline_us or meta.mode in CLOSED_TO_NEW:
            raise KnownError
        epochs = {job.id: job.epoch for job in jobs}
        try:
            _, stones = await self._store_new(session, jobs, meta, first, {})
        except pymysql.err.IntegrityError as error:
            if not duplicate_key(error):
                raise
            raise KnownError from error
        if any(epoch >= epochs[job_id] for job_id, epoch in stones):
            raise KnownError

    async def put_known(self, session: Session, jobs: Sequence[Job], deadline_us: int) -> list[PutAnswer]:
        """Each gets its own answer, found before anything is stored."""
        meta, first, _ = await self.store.checked_places(session)
        ids = [job.id for job in jobs]
        rows = {found[0]: found[1:] for found in await session.fetch(self._rows, ids)}
        stones: dict[str, int] = dict(await session.fetch(self._buried, ids))
        answers: list[PutAnswer] = []
        new: dict[str, Job] = {}
        for job in jobs:
            answer = answer_to(
                job, new.get(job.id), rows.get(job.id), stones.get(job.id), late=meta.now_us > deadline_us
            )
            if answer is PutAnswer.STORED:
                if meta.mode in CLOSED_TO_NEW:
                    raise Refused(
                        f"agent {self.store.agent!r} is {meta.mode} and takes no new job: put job {job.id} elsewhere, "
                        "or resume the agent"
                    )
                new[job.id] = job
            answers.append(answer)
        if new:
            await self._replace(session, new, rows, meta, first, answers, ids)
        return answers

    async def _replace(
        self,
        session: Session,
        new: Mapping[str, Job],
        rows: Mapping[str, Any],
        meta: Meta,
        first: int,
        answers: list[PutAnswer],
        ids: Sequence[str],
    ) -> None:
        """Store the new ones, over the rows of earlier epochs, which are locked."""
        replaced = sorted(new.keys() & rows.keys())
        counts: Counter[tuple[str, int]] = Counter()
        for job_id in replaced:
            counts[rows[job_id][6], rows[job_id][1]] -= 1
        if replaced:
            await session.script(*session.dialect.removal(self.store.tables.job, replaced))
        kept = {job_id: (rows[job_id][4], rows[job_id][5]) for job_id in replaced}
        try:
            places, stones = await self._store_new(session, list(new.values()), meta, first, kept, counts)
        except pymysql.err.IntegrityError as error:
            if not duplicate_key(error):
                raise
            # One came at the same time. Whoever asks again learns what has become of it.
            raise Later(f"agent {self.store.agent!r}: a job came twice at the same time") from error
        # One that came and ended between the first look and now.
        ended = {job_id for job_id, epoch in stones if epoch >= new[job_id].epoch}
        if ended:
            await session.script(*session.dialect.removal(self.store.tables.job, sorted(ended)))
            lost: Counter[tuple[str, int]] = Counter()
            lost.subtract(places[job_id] for job_id in ended)
            await session.script(*self.store.counting(lost))
            for at, job_id in enumerate(ids):
                if job_id in ended and answers[at] is PutAnswer.STORED:
                    answers[at] = PutAnswer.TOMBSTONED

    async def _store_new(
        self,
        session: Session,
        jobs: Sequence[Job],
        meta: Meta,
        first: int,
        kept: _Kept,
        counts: Counter[tuple[str, int]] | None = None,
    ) -> tuple[dict[str, tuple[str, int]], list[Any]]:
        """Insert them, in order of id: under which lane and `st` each is counted, and the tombstones of those ids."""
        now_us = meta.now_us
        counts = Counter() if counts is None else counts
        places = {job.id: (job.lane, READY if job.due_us <= now_us else DELAYED) for job in jobs}
        counts.update(places.values())
        statements = [*self.inserts(jobs, now_us, first, kept), *self.store.counting(counts)]
        statements.append(sql(self._buried, list(places)))
        return places, (await session.script(*statements))[-1].rows

    def inserts(self, jobs: Sequence[Job], now_us: int, first: int, kept: _Kept) -> list[bytes]:
        plain = not kept and all(_seldom_of(job) == _USUAL for job in jobs)
        columns = ", ".join((*("st", *LINE, *_ALWAYS), *(() if plain else (*_FULL, *_LAST))))
        # All writers lock in order of id; mostly it is the order they come in.
        numbered = sorted(enumerate(jobs, first), key=lambda pair: pair[1].id)
        rows = [
            _plain(job, seq, now_us)
            if plain
            else row(
                st := READY if job.due_us <= now_us else DELAYED,
                *standing(job, st, seq),
                *_always_of(job),
                *(job.worker or "", *_seldom_of(job)[1:]),
                *kept.get(job.id, (0, 0)),
            )
            for seq, job in numbered
        ]
        head = f"{self._insert}({columns}) VALUES ".encode()
        return [head + b", ".join(some) for some in chunks(rows)]


def _plain(job: Job, seq: int, now_us: int) -> bytes:
    """The row of a job that brings nothing but what all bring: `row`, several times as fast."""
    st = READY if job.due_us <= now_us else DELAYED
    line, rank, place = standing(job, st, seq)
    return b"(%d,%b,%d,%d,%b,%b,%b,%d,%d,%d,%d,%d,%d,%d,%b,%b)" % (
        *(st, often(line), rank, place, literal(job.id), often(job.handler), often(job.lane), job.priority),
        *(job.epoch, job.claim_seq, job.version, job.created_us, job.original_due_us, job.due_us),
        *(often(job.policy), literal(job.data)),
    )


def answer_to(job: Job, earlier: Job | None, found: Any, stone_epoch: int | None, *, late: bool) -> PutAnswer:
    known = (
        (earlier.epoch, earlier.handler, earlier.data) if earlier else (found[0], found[2], found[3]) if found else None
    )
    if known is not None:
        epoch, handler, data = known
        if epoch == job.epoch:
            return PutAnswer.DUPLICATE if (handler, data) == (job.handler, job.data) else PutAnswer.CONFLICT
        if epoch > job.epoch:
            return PutAnswer.STALE_EPOCH
        if found and found[1] == LEASED:
            return PutAnswer.CONFLICT
    if stone_epoch is not None and stone_epoch >= job.epoch:
        return PutAnswer.TOMBSTONED
    return PutAnswer.STALE_PUT if late else PutAnswer.STORED
