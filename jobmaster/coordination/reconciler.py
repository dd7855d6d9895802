"""Reconciler: a store in quarantine is brought in line with what the master knows, and opened as a new one.

What the master knows to be over, or to be elsewhere, goes from the store. Everything else there stays, in a new epoch,
so that nobody who worked with the lost time can settle it. What the master believes to be there and is not is barred at
its epoch, by the same `revoke` that takes back a late put: the record of that makes the job `held`, and the hand-off
places it anew. Only then the store gets a new incarnation, on the master first, and is open. Each step may be repeated,
and several coordinators may be at it at once: rows are changed at the epoch they were seen at, in quarantine only, and
of two new incarnations the master takes one.
"""

import secrets

import structlog
from msgspec import Struct
from msgspec.structs import replace

from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.entries import AgentEntry
from jobmaster.contracts.master import MasterStore
from jobmaster.contracts.values import (
    InventoryItem,
    ProbeReport,
    Rebase,
    RebaseKind,
    StoreMode,
)
from jobmaster.coordination.missing import missing_of, place_anew
from jobmaster.model.job import Job
from jobmaster.model.states import TERMINAL, JobState
from jobmaster.telemetry.failpoints import failpoint
from jobmaster.telemetry.probes import probe

BATCH = 500
POLL_SECONDS = 5.0

_OVER = TERMINAL | {JobState.HELD, JobState.AWAITING}
"""States on the master in which a job of the same epoch has no business at an agent."""

_log = structlog.get_logger("jobmaster.reconciler")


class Counts(Struct):
    """What a reconciliation came to."""

    kept: int = 0
    removed: int = 0
    placed_anew: int = 0


def decide(item: InventoryItem, known: Job | None) -> Rebase:
    """What becomes of a row. A job that only the store knows is kept."""
    if known is not None and (known.epoch > item.epoch or (known.epoch == item.epoch and known.state in _OVER)):
        return Rebase(item.id, item.epoch, RebaseKind.REMOVE)
    started = known is not None and known.first_started_us is not None
    return Rebase(item.id, item.epoch, RebaseKind.RAISE, started)


class Reconciler:
    """Reconciles one agent's store, whenever it is in quarantine."""

    def __init__(self, master: MasterStore, agent: AgentTransport) -> None:
        self._master = master
        self._agent = agent

    async def run(self) -> float:
        """One pass."""
        report = await self._agent.probe()
        if report.mode is StoreMode.QUARANTINED:
            entry = await self._entry()
            if entry is not None:
                if not report.joined:
                    await self._agent.rejoin(report.incarnation)
                await self._reconcile(report, entry)
        return POLL_SECONDS

    async def _reconcile(self, seen: ProbeReport, entry: AgentEntry) -> None:
        name, counts = self._agent.name, Counts()
        _log.info("agent.reconciling", agent=name, incarnation=seen.incarnation, known=entry.incarnation)
        await self._go_over_rows(counts)
        await self._place_missing(counts)
        report = await self._agent.probe()
        if (report.incarnation, report.mode) != (seen.incarnation, StoreMode.QUARANTINED):
            return  # somebody else was done before
        failpoint("reconcile.before_naming")
        renewed = replace(entry, incarnation=secrets.token_hex(16), high_water=report.high_water)
        stored = await self._master.renew_agent(entry, renewed)
        failpoint("reconcile.named")
        await self._agent.adopt(stored.incarnation)
        probe("store_reconciled")
        _log.info(
            "agent.reconciled",
            agent=name,
            incarnation=stored.incarnation,
            kept=counts.kept,
            removed=counts.removed,
            placed_anew=counts.placed_anew,
        )

    async def _entry(self) -> AgentEntry | None:
        """What the master knows of the agent; None as long as nobody has introduced it there."""
        return next((entry for entry in await self._master.agents() if entry.name == self._agent.name), None)

    async def _go_over_rows(self, counts: Counts) -> None:
        after_id = ""
        while page := await self._agent.inventory(after_id, BATCH):
            known = await self._master.get([item.id for item in page])
            plan = [decide(item, job) for item, job in zip(page, known, strict=True)]
            done = await self._agent.rebase(plan)
            for item, changed in zip(plan, done, strict=True):
                counts.removed += changed and item.kind is RebaseKind.REMOVE
                counts.kept += changed and item.kind is RebaseKind.RAISE
            after_id = page[-1].id

    async def _place_missing(self, counts: Counts) -> None:
        after_id = ""
        while page := await self._master.on_agent(self._agent.name, after_id, BATCH):
            counts.placed_anew += await place_anew(self._agent, await missing_of(self._agent, page))
            after_id = page[-1].id
