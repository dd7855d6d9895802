"""What the verbs share: names, incarnation, the state the store keeps of itself, and the counts per lane."""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from jobmaster.contracts.values import StoreMode
from jobmaster.model.errors import SchemaOutdated
from jobmaster_agents.postgres.connection import Connection, Database, other_store
from jobmaster_agents.postgres.rows import SELECTED, Row
from jobmaster_agents.postgres.schema import HEAD
from jobmaster_agents.postgres.tables import COUNTS, NOW_US, Tables, new_places

CLOSED_TO_NEW = frozenset({StoreMode.DRAINING, StoreMode.QUARANTINED})

FOLDED_AT_ONCE = 10_000
"""Rows of counts that are added up in one statement."""


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
        self.file: int | None = None
        """The file of the table of jobs, as it was looked at last."""
        t = tables
        self._meta = f"SELECT incarnation, mode, {NOW_US} FROM {t.meta}"
        sums = ", ".join(f"sum({name})::bigint AS {name}" for name in COUNTS)
        added = ", ".join(f"{name} = old.{name} + excluded.{name}" for name in COUNTS)
        self._fold = f"""
            WITH taken AS (
                DELETE FROM {t.count} WHERE ctid = ANY (ARRAY(
                    SELECT ctid FROM {t.count} LIMIT {FOLDED_AT_ONCE} FOR UPDATE SKIP LOCKED))
                RETURNING lane, {", ".join(COUNTS)})
            INSERT INTO {t.lane} AS old (name, {", ".join(COUNTS)})
            SELECT lane, {sums} FROM taken GROUP BY lane ORDER BY lane
            ON CONFLICT (name) DO UPDATE SET {added}"""
        self._count = f"""
            INSERT INTO {t.count} (lane, {", ".join(COUNTS)})
            SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[])"""

    async def now_us(self, connection: Connection) -> int:
        """Store time."""
        return int(await connection.fetchval(f"SELECT {NOW_US}"))

    async def meta(self, connection: Connection) -> Meta:
        found = await connection.fetchrow(self._meta)
        if found is None:
            raise SchemaOutdated(self.database.address.shown, None, HEAD, "its tables were emptied; open it again")
        return Meta(found[0], StoreMode(found[1]), found[2])

    async def check(self, connection: Connection) -> Meta:
        """The state of the store, and its time. Raises `Refused` if it is not the one that was opened."""
        meta = await self.meta(connection)
        if meta.incarnation != self.incarnation:
            raise other_store(self.agent, meta.incarnation)
        return meta

    async def next_places(self, connection: Connection) -> int:
        """The first of `PLACES` places behind everybody's."""
        return int(await connection.fetchval(f"SELECT {new_places(self.tables)}"))

    async def select(self, connection: Connection, where: str, *values: Any) -> list[Row]:
        """Rows of jobs, called `j`, that meet a condition, which may end in ORDER BY, LIMIT and FOR UPDATE."""
        found = await connection.fetch(f"SELECT {SELECTED} FROM {self.tables.job} AS j {where}", *values)
        return [Row(self.agent, values) for values in found]

    async def by_id(self, connection: Connection, ids: Sequence[str]) -> dict[str, Row]:
        """Those of the ids that are here."""
        rows = await self.select(connection, "WHERE id = ANY ($1::uuid[])", ids)
        return {row.job.id: row for row in rows}

    async def locked(self, connection: Connection, ids: Sequence[str], also: str = "") -> dict[str, Row]:
        """Those of the ids that are here, locked until the transaction ends, in the order in which everybody locks."""
        rows = await self.select(connection, f"WHERE id = ANY ($1::uuid[]) {also} ORDER BY id FOR UPDATE", ids)
        return {row.job.id: row for row in rows}

    async def count(self, connection: Connection, deltas: Mapping[tuple[str, int], int]) -> None:
        """Every write says by how many the jobs of a lane in each `st` became more."""
        lanes: dict[str, list[int]] = {}
        for (lane, st), delta in deltas.items():
            lanes.setdefault(lane, [0, 0, 0, 0])[st] += delta
        changed = {lane: counts for lane, counts in lanes.items() if any(counts)}
        if changed:
            await connection.execute(self._count, list(changed), *map(list, zip(*changed.values(), strict=True)))

    async def fold(self) -> None:
        """Add what the writes have counted to the rows of the lanes. Bounded, and left to whoever is at it already."""
        await self.database.fetch(self._fold)
