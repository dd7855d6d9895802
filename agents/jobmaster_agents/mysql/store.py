"""What the verbs share: names, incarnation, the state the store keeps of itself, and the counts per lane."""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from jobmaster.contracts.mysql_text import row, sql
from jobmaster.contracts.values import StoreMode
from jobmaster.model.errors import SchemaOutdated
from jobmaster_agents.mysql.connection import Database, other_store
from jobmaster_agents.mysql.rows import SELECTED, Row
from jobmaster_agents.mysql.schema import HEAD
from jobmaster_agents.mysql.session import Result, Session
from jobmaster_agents.mysql.tables import ALL_LANES, COUNTS, LEASED, NOW_US, PLACES, Tables

CLOSED_TO_NEW = frozenset({StoreMode.DRAINING, StoreMode.QUARANTINED})

FOLDED_AT_ONCE = 10_000
"""Rows of counts, or tickets, that are cleared away at a time."""


class Meta(Struct, frozen=True):
    """The store's own state, and its time."""

    incarnation: str
    mode: StoreMode
    now_us: int


class Store:
    """One agent's tables in an open database."""

    def __init__(self, agent: str, tables: Tables, database: Database) -> None:
        self.agent = agent
        self.tables = tables
        self.database = database
        self.incarnation = ""
        """As opened or rejoined; every write of a lease or a job insists on it."""
        self.made: str | None = None
        """When the table of jobs was made, as it was looked at last."""
        t = tables
        self._meta = f"SELECT incarnation, mode, {NOW_US} FROM {t.meta}".encode()
        self._ticket = f"INSERT INTO {t.ticket} () VALUES ()".encode()
        self._drawn = f"SELECT LAST_INSERT_ID() * {PLACES}".encode()
        self._count = f"INSERT INTO {t.count} (lane, {', '.join(COUNTS)}) VALUES "

    async def now_us(self, session: Session) -> int:
        """Store time."""
        return int((await session.fetch(f"SELECT {NOW_US}"))[0][0])

    async def meta(self, session: Session) -> Meta:
        [result] = await session.script(self._meta)
        return self._read(result)

    async def check(self, session: Session) -> Meta:
        """The state of the store, and its time. Raises `Refused` if it is not the one that was opened."""
        return self._opened(await self.meta(session))

    async def checked(self, session: Session, *also: bytes) -> tuple[Meta, list[Result]]:
        """As `check`, and what the other statements gave, which must be undone if this raises."""
        meta, *results = await session.script(self._meta, *also)
        return self._opened(self._read(meta)), results

    async def checked_places(self, session: Session, *also: bytes) -> tuple[Meta, int, list[Result]]:
        """As `check`; the first of `PLACES` places behind everybody's, in line and in the outbox; and what the other
        statements gave, which must be undone if this raises."""
        _, meta, drawn, *results = await session.script(self._ticket, self._meta, self._drawn, *also)
        return self._opened(self._read(meta)), int(drawn.rows[0][0]), results

    async def next_places(self, session: Session) -> int:
        """The first of `PLACES` places behind everybody's, in line and in the outbox."""
        _, drawn = await session.script(self._ticket, self._drawn)
        return int(drawn.rows[0][0])

    async def select(self, session: Session, where: str, *values: object) -> list[Row]:
        """Rows of jobs, called `j`, that meet a condition, which may end in ORDER BY, LIMIT and FOR UPDATE."""
        found = await session.fetch(f"SELECT {SELECTED} FROM {self.tables.job} AS j {where}", *values)
        return [Row(self.agent, values) for values in found]

    async def by_id(self, session: Session, ids: Sequence[str]) -> dict[str, Row]:
        """Those of the ids that are here."""
        rows = await self.select(session, "FORCE INDEX (PRIMARY) WHERE j.id IN ?", ids)
        return {row.job.id: row for row in rows}

    async def locked(
        self, session: Session, ids: Sequence[str], also: str = "", *, skip: bool = False
    ) -> dict[str, Row]:
        """Those of the ids that are here, locked until the transaction ends, in the order in which everybody locks;
        with `skip` without those that somebody else has locked."""
        how = "FOR UPDATE SKIP LOCKED" if skip else "FOR UPDATE"
        rows = await self.select(session, f"FORCE INDEX (PRIMARY) WHERE j.id IN ? {also} ORDER BY j.id {how}", ids)
        return {row.job.id: row for row in rows}

    def counting(self, deltas: Mapping[tuple[str, int], int]) -> list[bytes]:
        """Statements, one or none, by which every write says by how many the jobs of a lane in each `st` became
        more."""
        lanes: dict[str, list[int]] = {}
        for (lane, st), delta in deltas.items():
            lanes.setdefault(ALL_LANES if st == LEASED else lane, [0, 0, 0, 0])[st] += delta
        changed = [row(lane, *counts) for lane, counts in lanes.items() if any(counts)]
        return [self._count.encode() + b", ".join(changed)] if changed else []

    async def fold(self) -> None:
        """Add what the writes have counted to the rows of the lanes, and clear tickets away. Bounded, and left to
        whoever is at it already."""
        await self.database.write(self._fold)

    async def _fold(self, session: Session) -> None:
        t = self.tables
        counts, tickets = await session.script(
            f"SELECT id, lane, {', '.join(COUNTS)} FROM {t.count} ORDER BY id LIMIT {FOLDED_AT_ONCE} "
            "FOR UPDATE SKIP LOCKED".encode(),
            f"SELECT id FROM {t.ticket} ORDER BY id LIMIT {FOLDED_AT_ONCE} FOR UPDATE SKIP LOCKED".encode(),
        )
        statements: list[bytes] = []
        if passed := [number for (number,) in tickets.rows[:-1]]:
            # The newest stays, and tells how far the numbers have come.
            statements.append(sql(f"DELETE FROM {t.ticket} WHERE id IN ?", passed))
        if counts.rows:
            statements.append(sql(f"DELETE FROM {t.count} WHERE id IN ?", [found[0] for found in counts.rows]))
            lanes: dict[str, list[int]] = {}
            for _, lane, *deltas in counts.rows:
                sums = lanes.setdefault(lane, [0] * len(COUNTS))
                lanes[lane] = [old + new for old, new in zip(sums, deltas, strict=True)]
            added = ", ".join(f"{name} = {name} + VALUES({name})" for name in COUNTS)
            rows = b", ".join(row(lane, *lanes[lane]) for lane in sorted(lanes))
            statements.append(
                f"INSERT INTO {t.lane} (name, {', '.join(COUNTS)}) VALUES ".encode()
                + rows
                + f" ON DUPLICATE KEY UPDATE {added}".encode()
            )
        if statements:
            await session.script(*statements)

    def _read(self, result: Result) -> Meta:
        if not result.rows:
            raise SchemaOutdated(self.database.address.shown, None, HEAD, "its tables were emptied; open it again")
        incarnation, mode, now_us = result.rows[0]
        return Meta(incarnation, StoreMode(mode), now_us)

    def _opened(self, meta: Meta) -> Meta:
        if meta.incarnation != self.incarnation:
            raise other_store(self.agent, meta.incarnation)
        return meta
