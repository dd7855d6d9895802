"""Sentry: is the agent's store still what it was?

A store that was wiped, restored from a backup, or emptied would hand out jobs that have ended, and lose others. So what
is known of it, by this process and by the master, is compared with what it says of itself: before the first worker
claims, every two seconds, and, before anything is claimed or put again, whenever a connection was lost. What does not
fit is closed, in the store itself, until a coordinator has reconciled it.
"""

import asyncio
import contextlib
from collections.abc import Callable

import structlog
from msgspec.structs import replace

from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.entries import AgentEntry
from jobmaster.contracts.master import MasterStore
from jobmaster.contracts.values import Control, ControlKind, ProbeReport, StoreMode
from jobmaster.coordination.marks import Mark, Verdict, floor, judge, why
from jobmaster.model.errors import SchemaOutdated, StoreError
from jobmaster.telemetry.probes import probe

POLL_SECONDS = 2.0
CLOSED_SECONDS = 0.5
"""How often a store is looked at that is closed: work begins again within that."""

_log = structlog.get_logger("jobmaster.sentry")


def _nobody(reason: str) -> None:
    return


def _nothing() -> None:
    return


class Sentry:
    """Watches one agent's store for one process."""

    def __init__(self, master: MasterStore, agent: AgentTransport) -> None:
        self.on_quarantined: Callable[[str], None] = _nobody
        """Called with the reason when this process finds the store closed, or closes it."""
        self.on_open: Callable[[], None] = _nothing
        """Called when a store that was closed is open again."""
        self._master = master
        self._agent = agent
        self._own: Mark | None = None
        self._told: str | None = None
        self._undecided = False
        self._looking = asyncio.Lock()

    async def run(self) -> float:
        """One pass."""
        async with self._looking:
            # In this order: a mark that rises between the two answers must not look fallen.
            answers, entry = await self._entry()
            report = await self._look()
            verdict = judge(report, self._own, _mark(entry), master_answers=answers)
            if verdict is Verdict.STRANGE:
                # And in this one for its name: the master has a new one before the store does.
                answers, entry = await self._entry()
                verdict = judge(report, self._own, _mark(entry), master_answers=answers)
            if verdict is Verdict.UNDECIDED:
                self._tell_undecided(report)
                return CLOSED_SECONDS
            if verdict is Verdict.TRUSTED:
                await self._trust(report, entry)
            else:
                await self._close(verdict, report, entry)
        return POLL_SECONDS if self._told is None else CLOSED_SECONDS

    async def begin(self) -> None:
        """Have looked once, before anybody claims."""
        if self._own is None:
            await self.run()

    async def recheck(self) -> None:
        """After a lost connection: close the store if it is not what this process saw last. Does without the master."""
        async with self._looking:
            report = await self._look()
            verdict = judge(report, self._own, None, master_answers=False)
            if verdict in {Verdict.SET_BACK, Verdict.EMPTIED}:
                await self._close(verdict, report, None)

    async def _entry(self) -> tuple[bool, AgentEntry | None]:
        """Whether the master answers, and what it knows of the agent."""
        try:
            entries = await self._master.agents()
        except StoreError:
            return False, None
        return True, next((entry for entry in entries if entry.name == self._agent.name), None)

    async def _look(self) -> ProbeReport:
        try:
            return await self._agent.probe()
        except SchemaOutdated:
            # Its tables are gone from under us. It gets new ones, and is judged as what it is then.
            return await self._agent.open()

    async def _trust(self, report: ProbeReport, entry: AgentEntry | None) -> None:
        if not report.joined:
            await self._agent.rejoin(report.incarnation)
        self._own = Mark(report.incarnation, report.high_water)
        self._undecided = False
        if entry is not None and report.high_water > entry.high_water:
            with contextlib.suppress(StoreError):
                await self._master.enter_agent(replace(entry, high_water=report.high_water))
        if report.mode is StoreMode.QUARANTINED:
            self._tell((entry and entry.quarantined) or "somebody has closed it")
        elif self._told is not None:
            self._told = None
            _log.info("agent.open_again", agent=self._agent.name, incarnation=report.incarnation)
            self.on_open()

    async def _close(self, verdict: Verdict, report: ProbeReport, entry: AgentEntry | None) -> None:
        reason, mark = why(verdict, report, self._own, _mark(entry)), floor(report, self._own, _mark(entry))
        if report.mode is not StoreMode.QUARANTINED or report.high_water < mark:
            await self._agent.control(Control(ControlKind.QUARANTINE, incarnation=report.incarnation, mark=mark))
            probe("store_quarantined")
            with contextlib.suppress(StoreError):
                await self._master.note_quarantine(self._agent.name, reason)
        if not report.joined:
            await self._agent.rejoin(report.incarnation)
        self._own = Mark(report.incarnation, max(mark, report.high_water))
        self._tell(reason)

    def _tell(self, reason: str) -> None:
        if self._told is None:
            _log.error("agent.quarantined", agent=self._agent.name, why=reason, then="nothing is claimed or put there")
            self.on_quarantined(reason)
        self._told = reason

    def _tell_undecided(self, report: ProbeReport) -> None:
        if not self._undecided:
            _log.warning(
                "agent.unknown_store",
                agent=self._agent.name,
                incarnation=report.incarnation,
                then="this process does nothing with it before the master says whether it is right",
            )
        self._undecided = True


def _mark(entry: AgentEntry | None) -> Mark | None:
    return None if entry is None else Mark(entry.incarnation, entry.high_water)
