"""What the verbs share: names, clock, incarnation, and the state the store keeps of itself."""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from jobmaster.contracts.clock import Clock
from jobmaster.contracts.values import StoreMode
from jobmaster.model.errors import Refused, SchemaOutdated
from jobmaster.sqlite import Database
from jobmaster_agents.sqlite.rows import Row, select
from jobmaster_agents.sqlite.schema import HEAD
from jobmaster_agents.sqlite.tables import Tables, marks


def as_json(values: Iterable[str]) -> str:
    """Texts as one parameter, to be read by `json_each`."""
    return msgspec.json.encode(list(values)).decode()


COUNT_UP = (
    "ON CONFLICT DO UPDATE SET ready = ready + excluded.ready, delayed = delayed + excluded.delayed, "
    "leased = leased + excluded.leased, parked = parked + excluded.parked"
)
"""What follows an insert of differences into the table of lanes."""

CLOSED_TO_NEW = frozenset({StoreMode.DRAINING, StoreMode.QUARANTINED})


class Meta(Struct, frozen=True):
    """The store's own state."""

    incarnation: str
    mode: StoreMode
    seq: int
    """The last place in line given out."""


class Store:
    """One agent's tables in an open database."""

    def __init__(self, agent: str, tables: Tables, clock: Clock, database: Database) -> None:
        self.agent = agent
        self.tables = tables
        self.clock = clock
        self.database = database
        self._joined = ("", 0)

    @property
    def incarnation(self) -> str:
        """As opened or rejoined; every write of a lease or a job insists on it. Nothing is it once the file was
        replaced: a copy has the same one."""
        incarnation, generation = self._joined
        return incarnation if generation == self.database.generation else ""

    def join(self, incarnation: str, generation: int) -> None:
        """Insist on this one from now on, as it was read in that generation of the file."""
        self._joined = (incarnation, generation)

    def now_us(self) -> int:
        """Store time: one host, one clock."""
        return self.clock.wall_us()

    def meta(self, connection: sqlite3.Connection) -> Meta:
        found = connection.execute(f"SELECT incarnation, mode, seq FROM {self.tables.meta}").fetchone()
        if found is None:
            raise SchemaOutdated(self.database.path, None, HEAD, "its tables were emptied; open it again")
        incarnation, mode, seq = found
        return Meta(incarnation, StoreMode(mode), seq)

    def check(self, connection: sqlite3.Connection) -> Meta:
        """The state of the store. Raises `Refused` if it is not the one that was opened."""
        meta = self.meta(connection)
        if meta.incarnation != self.incarnation:
            raise Refused(
                f"agent {self.agent!r}: the store is another one than was opened (incarnation {meta.incarnation}, "
                f"expected {self.incarnation or 'the file that was replaced'}); rejoin it, or close and open the "
                "agent, to work with it"
            )
        return meta

    def quarantined(self, connection: sqlite3.Connection) -> bool:
        """Whether housekeeping has to let the jobs be: what the rows say is not believed."""
        return self.meta(connection).mode is StoreMode.QUARANTINED

    def next_seqs(self, connection: sqlite3.Connection, count: int) -> int:
        """The first of `count` places behind everybody."""
        (last,) = connection.execute(
            f"UPDATE {self.tables.meta} SET seq = seq + ? RETURNING seq",
            (count,),
        ).fetchone()
        return int(last) - count + 1

    def select(self, connection: sqlite3.Connection, where: str, *parameters: Any) -> list[Row]:
        """Job rows that meet a condition."""
        return select(connection, self.agent, self.tables.job, where, *parameters)

    def by_id(self, connection: sqlite3.Connection, ids: Sequence[str]) -> dict[str, Row]:
        """Those of the ids that are here."""
        rows = self.select(connection, "WHERE id IN (SELECT value FROM json_each(?))", as_json(ids))
        return {row.job.id: row for row in rows}

    def count(self, connection: sqlite3.Connection, deltas: Mapping[tuple[str, int], int]) -> None:
        """Every write says by how many the jobs of a lane in each `st` became more."""
        lanes: dict[str, list[int]] = {}
        for (lane, st), delta in deltas.items():
            lanes.setdefault(lane, [0, 0, 0, 0])[st] += delta
        changed = [(lane, *counts) for lane, counts in lanes.items() if any(counts)]
        if changed:
            values = ", ".join([marks(5)] * len(changed))
            connection.execute(
                f"INSERT INTO {self.tables.lane} (name, ready, delayed, leased, parked) VALUES {values} {COUNT_UP}",
                [value for lane in changed for value in lane],
            )

    def lane_topic(self, lane: str) -> str:
        """The hint that jobs of a lane became ready."""
        return f"{self.tables.prefix}{lane}"
