"""Foreign connections: `put` and `settle` in a transaction of the caller's, on aiomysql, by itself or in SQLAlchemy.

What the transaction of a caller sees may be as old as its beginning (REPEATABLE READ is what MySQL begins with), and
what it locks stays locked for as long as he likes. So only what is to be committed with it is written by it; all that
has to be asked is asked by a connection of the agent's own, once the rows written hold everybody else off.
"""

import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiomysql  # type: ignore[import-untyped]
import pymysql
from pymysql.constants import SERVER_STATUS

from jobmaster.contracts import decisions
from jobmaster.contracts.values import PutAnswer, SettleAnswer, Settlement
from jobmaster.model.errors import OptionInvalid, Refused
from jobmaster.model.job import Job
from jobmaster_agents.mysql.connection import Database, duplicate_key
from jobmaster_agents.mysql.ledger import Ledger
from jobmaster_agents.mysql.putting import Putting, answer_to
from jobmaster_agents.mysql.session import Result, Session
from jobmaster_agents.mysql.settling import Settling
from jobmaster_agents.mysql.store import CLOSED_TO_NEW, Meta, Store
from jobmaster_agents.mysql.tables import DELAYED, LEASED, READY

EXPECTED = "an aiomysql connection, or a SQLAlchemy AsyncConnection or AsyncSession on aiomysql"
TRIES = 4
_ABSENT = frozenset({1046, 1146})
"""No database selected, no such table."""


class Guest(Session):
    """A connection of the caller's: one statement at a time, no transaction begun or ended."""

    async def script(self, *statements: bytes) -> list[Result]:
        results: list[Result] = []
        for statement in statements:
            results += await self._run(statement, 0)
        return results


async def put_in(
    putting: Putting, database: Database, connection: Any, jobs: Sequence[Job], deadline_us: int
) -> list[PutAnswer]:
    """In the transaction open there. Raises `OptionInvalid` for a connection that can't do it; the driver's own error
    if it breaks."""
    if not jobs:
        return []
    store = putting.store
    async with _guest(store, connection) as guest:
        meta, first, _ = await database.write(store.checked_places)
        if meta.now_us > deadline_us or meta.mode in CLOSED_TO_NEW:
            rows, stones = await _look(store, guest, [job.id for job in jobs])
        else:
            rows, stones = {}, {}
        for _ in range(TRIES):
            answers, new = _answers(store, jobs, rows, stones, meta, deadline_us)
            if not new or await _insert(putting, guest, list(new.values()), meta, first):
                ended = await _ended(store, guest, new) if new else set()
                return [
                    PutAnswer.TOMBSTONED if given is PutAnswer.STORED and job.id in ended else given
                    for job, given in zip(jobs, answers, strict=True)
                ]
            rows, stones = await _look(store, guest, [job.id for job in jobs])
    raise Refused(f"agent {store.agent!r}: others put and end the same jobs all the time; roll back and try again")


async def settle_in(settling: Settling, database: Database, connection: Any, item: Settlement) -> SettleAnswer:
    """In the transaction open there; stale for whatever can't be settled, as there is no telling why without leaving
    that transaction. Raises as `put_in`."""
    store = settling.store
    async with _guest(store, connection) as guest:
        meta = await database.read(store.check)
        row = (await store.locked(guest, [item.id])).get(item.id)
        if row is None or row.st != LEASED or row.job.token != item.token:
            return SettleAnswer.STALE
        ledger = Ledger(store, guest, meta.now_us)
        ledger.end_lease(row, *decisions.settled(row.job, item, meta.now_us), item.digest())
        await ledger.flush()
        return SettleAnswer.ACCEPTED


def _answers(
    store: Store,
    jobs: Sequence[Job],
    rows: dict[str, Any],
    stones: dict[str, int],
    meta: Meta,
    deadline_us: int,
) -> tuple[list[PutAnswer], dict[str, Job]]:
    """As things are known: an answer for each, and those that are to be stored."""
    new: dict[str, Job] = {}
    answers: list[PutAnswer] = []
    for job in jobs:
        found = rows.get(job.id)
        late = meta.now_us > deadline_us
        answer = answer_to(job, new.get(job.id), found, stones.get(job.id), late=late)
        if answer is PutAnswer.STORED and found is not None:
            # A row of an earlier epoch goes only in a transaction of ours, which is short.
            answer = PutAnswer.CONFLICT
        if answer is PutAnswer.STORED:
            if meta.mode in CLOSED_TO_NEW:
                raise Refused(
                    f"agent {store.agent!r} is {meta.mode} and takes no new job: put job {job.id} elsewhere, "
                    "or resume the agent"
                )
            new[job.id] = job
        answers.append(answer)
    return answers, new


async def _insert(putting: Putting, guest: Guest, jobs: Sequence[Job], meta: Meta, first: int) -> bool:
    """Whether all of them could be stored; if not, none was."""
    places = Counter((job.lane, READY if job.due_us <= meta.now_us else DELAYED) for job in jobs)
    await guest.script(b"SAVEPOINT jobmaster")
    try:
        await guest.script(*putting.inserts(jobs, meta.now_us, first, {}), *putting.store.counting(places))
    except pymysql.err.IntegrityError as error:
        if not duplicate_key(error):
            raise
        await guest.script(b"ROLLBACK TO SAVEPOINT jobmaster")
        return False
    await guest.script(b"RELEASE SAVEPOINT jobmaster")
    return True


async def _ended(store: Store, guest: Guest, new: dict[str, Job]) -> set[str]:
    """Those just stored that ended here before, and are taken out again. Whoever ended one did it before its row could
    be written, so it is known by now."""
    text = f"SELECT id, epoch FROM {store.tables.tombstone} FORCE INDEX (PRIMARY) WHERE id IN ?"
    stones = await store.database.ask(text, list(new))
    ended = {job_id for job_id, epoch in stones if epoch >= new[job_id].epoch}
    if ended:
        text = f"SELECT lane, st FROM {store.tables.job} FORCE INDEX (PRIMARY) WHERE id IN ?"
        places = Counter(map(tuple, await guest.fetch(text, sorted(ended))))
        removal = store.database.dialect.removal(store.tables.job, sorted(ended))
        taken = Counter({place: -count for place, count in places.items()})
        await guest.script(*removal, *store.counting(taken))
    return ended


async def _look(store: Store, guest: Guest, ids: Sequence[str]) -> tuple[dict[str, Any], dict[str, int]]:
    """The rows of those jobs that are here, also if this transaction put them here, and the tombstones."""
    t = store.tables
    text = f"""
        SELECT id, epoch, st, handler, COALESCE(first_data, data), last_token, last_digest, lane
        FROM {t.job} FORCE INDEX (PRIMARY) WHERE id IN ?"""
    buried = f"SELECT id, epoch FROM {t.tombstone} FORCE INDEX (PRIMARY) WHERE id IN ?"
    stones = dict(await store.database.ask(buried, ids))
    mine = [row for row in await guest.fetch(text, ids) if row[0] not in stones]
    found = await store.database.ask(text, ids)
    return {row[0]: row[1:] for row in (*mine, *found)}, stones


@asynccontextmanager
async def _guest(store: Store, connection: Any) -> AsyncIterator[Guest]:
    """The connection, once it is known to be fit; and it still tells of the caller's own last insert."""
    raw = await _raw(connection)
    if raw.get_autocommit() and not raw.get_transaction_status():
        raise _unfit("one without a transaction", "one with a transaction open on it: await connection.begin()")
    if raw.server_status & SERVER_STATUS.SERVER_STATUS_NO_BACKSLASH_ESCAPES:
        raise _unfit("sql_mode NO_BACKSLASH_ESCAPES", "one without it in its sql_mode: texts would be stored changed")
    if raw.charset != "utf8mb4":
        raise _unfit(f"character set {raw.charset}", "one made with charset='utf8mb4': texts would be stored changed")
    guest = Guest(raw)
    t = store.tables
    try:
        [[last, incarnation]] = await guest.fetch(f"SELECT LAST_INSERT_ID(), incarnation FROM {t.meta}")
    except pymysql.err.MySQLError as error:
        if next(iter(error.args), 0) in _ABSENT:
            raise OptionInvalid(
                "connection",
                type(connection).__name__,
                f"one to {store.database.address.shown}, where the agent keeps its jobs; "
                "there is no such agent behind this one",
            ) from error
        raise
    if incarnation != store.incarnation:
        raise Refused(
            f"agent {store.agent!r}: behind this connection is incarnation {incarnation} of the store, not the one "
            f"that was opened ({store.incarnation}); roll back, and try again"
        )
    yield guest
    await guest.fetch("SET last_insert_id = ?", last)


async def _raw(connection: Any) -> Any:
    alchemy = sys.modules.get("sqlalchemy.ext.asyncio")
    if alchemy is not None:
        if isinstance(connection, alchemy.AsyncSession | alchemy.async_scoped_session):
            connection = await connection.connection()
        if isinstance(connection, alchemy.AsyncConnection):
            return await _of_sqlalchemy(connection)
    if isinstance(connection, aiomysql.Connection):
        return connection
    raise OptionInvalid("connection", type(connection).__name__, EXPECTED)


async def _of_sqlalchemy(connection: Any) -> Any:
    if connection.dialect.name not in ("mysql", "mariadb") or connection.dialect.driver != "aiomysql":
        raise OptionInvalid("connection", f"{connection.dialect.name}+{connection.dialect.driver}", EXPECTED)
    raw = (await connection.get_raw_connection()).driver_connection
    if raw.get_autocommit():
        raise _unfit("one without a transaction", "one whose isolation level is not AUTOCOMMIT")
    if not connection.in_transaction():
        # It takes its first statement for the beginning, and would commit nothing where it saw none.
        await connection.begin()
    return raw


def _unfit(found: str, expected: str) -> OptionInvalid:
    return OptionInvalid("connection", found, expected)
