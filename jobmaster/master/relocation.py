"""Relocation: a master is moved to another database while agents and workers go on.

The old one is sealed first: from then on what agents record waits in their outboxes. Then everything is copied, counted
on both sides, and the new one may be opened. Each step may be repeated, and the whole after a crash at any point: the
seal holds what is copied still, and the copying goes on where it was.
"""

from collections.abc import Callable
from functools import partial

from msgspec import Struct
from msgspec.structs import replace

from jobmaster.contracts.entries import AgentEntry
from jobmaster.contracts.values import ProbeReport
from jobmaster.master.sql import filling as fill
from jobmaster.master.sql.filling import Filling
from jobmaster.master.sql.master import SqlMaster
from jobmaster.master.sql.seal import Seal, put_on, take_off
from jobmaster.model.errors import JobMasterError
from jobmaster.telemetry.failpoints import failpoint

Told = Callable[[str], None]
Entered = Callable[[AgentEntry], AgentEntry]
"""What the new master knows of an agent that the old one knew so."""


class Relocated(Struct, frozen=True):
    """What a relocation came to."""

    source: str
    target: str
    rows: dict[str, int]
    """Of each table, the same on both sides."""
    already: bool = False
    """It had been completed before, and nothing was done."""


class Relocation:
    """Moves what one master has to an empty one. Both are opened here, and closed."""

    def __init__(self, source: SqlMaster, target: SqlMaster, entered: Entered, tell: Told) -> None:
        self._source = source
        self._target = target
        self._entered = entered
        self._tell = tell

    async def run(self, by: str, shown: tuple[str, str]) -> Relocated:
        """Do it, or complete it. `shown` is what the two databases are called. Raises `JobMasterError` where the new
        one holds something else, or the counts differ; then the old one stays sealed and the new one closed."""
        try:
            source = await self._source.open()
            await self._target.open()
            return await self._moved(source, by, shown)
        finally:
            await self._target.close()
            await self._source.close()

    async def _moved(self, source: ProbeReport, by: str, shown: tuple[str, str]) -> Relocated:
        filling = Filling(shown[0], source.incarnation)
        done = await self._target.part(fill.filled_from)
        if done is not None and done.incarnation == source.incarnation:
            return Relocated(*shown, {}, already=True)
        begun = await self._target.part(fill.filling_of)
        if begun is None and (done is not None or not await self._target.part(fill.is_empty)):
            raise JobMasterError(f"{shown[1]} holds a master of its own already; expected an empty one; name another")
        if begun is not None and begun.incarnation != source.incarnation:
            raise JobMasterError(f"{shown[1]} is being filled from {begun.source}, not from {shown[0]}; complete that")
        seal = Seal(shown[1], await self._source.store_now_us(), by)
        stored = await put_on(self._source.engine, self._source.tables, seal)
        if stored.to != shown[1]:
            raise JobMasterError(f"{shown[0]} is sealed for {stored.to}, not for {shown[1]}; name that one")
        self._tell(f"{shown[0]} is sealed: it takes no write any more")
        failpoint("relocation.sealed")
        await self._copy(begun or filling)
        failpoint("relocation.copied")
        rows = await self._compare()
        failpoint("relocation.verified")
        await self._target.change(partial(fill.complete, filling=filling))
        return Relocated(*shown, rows)

    async def _copy(self, filling: Filling) -> None:
        await self._target.change(partial(fill.begin, filling=filling))
        await self._target.change(partial(fill.write_notes, rows=await self._source.part(fill.notes)))
        tables = fill.parts(self._source.tables)
        names = [table.name for table in tables]
        first = names.index(filling.table) if filling.table else 0
        for table in tables[first:]:
            if filling.table != table.name:
                filling = replace(filling, table=table.name, after=())
            while rows := await self._source.part(partial(fill.rows_after, table=table, after=filling.after)):
                if table is self._source.tables.agent:
                    rows = [await self._agent_row(row) for row in rows]
                filling = await self._target.change(partial(fill.write, table=table.name, rows=rows, filling=filling))
                failpoint("relocation.batch")

    async def _agent_row(self, row: fill.Row) -> fill.Row:
        known = AgentEntry(
            name=row["name"],
            kind=row["kind"],
            fingerprint=row["fingerprint"],
            incarnation=row["incarnation"],
        )
        return {**row, "fingerprint": self._entered(known).fingerprint}

    async def _compare(self) -> dict[str, int]:
        """Raises where one side has what the other has not."""
        before, after = dict(await self._source.part(fill.sums)), dict(await self._target.part(fill.sums))
        differing = [f"{name}: {before[name]} and {after[name]}" for name in before if before[name] != after[name]]
        if differing:
            raise JobMasterError(f"the two masters differ in {'; '.join(differing)}; the new one stays closed")
        rows = {name.removeprefix(self._source.tables.prefix): found[0] for name, found in before.items()}
        for name, count in rows.items():
            self._tell(f"{name}: {count} rows")
        return rows


async def unseal(master: SqlMaster) -> None:
    """Have a sealed master take writes again: only where the one it was moved to is not used."""
    try:
        await master.open()
        await take_off(master.engine, master.tables)
    finally:
        await master.close()
