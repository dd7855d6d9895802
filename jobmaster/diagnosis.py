"""Diagnosis: what an operator wants checked before asking anybody. Looks, and changes nothing."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from jobmaster.cluster import Cluster
from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.clock import Clock, SystemClock
from jobmaster.contracts.master import MasterStore
from jobmaster.contracts.values import JobFilter, StoreMode
from jobmaster.master import open_master
from jobmaster.model.errors import JobMasterError, SchemaOutdated
from jobmaster.model.states import JobState
from jobmaster.settings.environment import unused_variables
from jobmaster.settings.models import ClusterSettings
from jobmaster.transports import make_transport

SAMPLE = 500
"""Waiting jobs looked at for handlers nobody knows."""
LOOK_SECONDS = 20.0
"""How long one store may take over all of its answers."""
SECOND = 1_000_000
NO_SETTINGS = ("JOBMASTER_APP", "JOBMASTER_CONFIG", "JOBMASTER_TEST_", "JOBMASTER_FAILPOINT")
"""How variables begin that are read elsewhere."""


_MODES = {
    StoreMode.PAUSED: "it is paused: nothing is claimed from it until it is open again",
    StoreMode.DRAINING: "it is draining: nothing is claimed from it and nothing new is put until it is open again",
    StoreMode.QUARANTINED: "it is quarantined, as its store is not what it was: nothing is claimed or put until a "
    "coordinator has reconciled it with the master; start one if none runs, and see `jobmaster agents list`",
}


class Level(StrEnum):
    OK = "ok"
    NOTE = "note"
    """Worth knowing, nothing is wrong."""
    FAULT = "fault"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. A fault's text says what to do."""

    level: Level
    subject: str
    text: str


async def diagnose(cluster: Cluster, clock: Clock | None = None) -> list[Finding]:
    """Open every store without migrating it, and look at it and at what waits in it. Never raises for what it finds."""
    clock = clock or SystemClock()
    settings = cluster.settings
    handlers = ", ".join(sorted(cluster.registry.names)) or "none"
    subject = f"cluster {settings.name}"
    findings = [Finding(Level.OK, subject, f"the settings are complete; handlers here: {handlers}")]
    findings += [Finding(Level.NOTE, subject, warning) for warning in cluster.warnings]
    findings += [
        Finding(Level.NOTE, "environment", f"{variable} is no setting, and sets nothing")
        for variable in unused_variables()
        if not variable.upper().startswith(NO_SETTINGS)
    ]
    findings += await _looked(f"master {settings.master.shown_url}", partial(_master, settings, clock))
    for name, agent in settings.agents.items():
        findings += await _looked(f"agent {name} {agent.shown_url}", partial(_agent, settings, clock, name))
    return findings


async def _looked(subject: str, look: Callable[[str], Awaitable[list[Finding]]]) -> list[Finding]:
    """What a look found, its failure included."""
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            return await look(subject)
    except SchemaOutdated as error:
        if error.found is None:
            return [
                Finding(
                    Level.NOTE,
                    subject,
                    f"nothing is there yet; `jobmaster run` or `jobmaster migrate` creates the schema, at revision "
                    f"{error.expected}",
                )
            ]
        return [Finding(Level.FAULT, subject, str(error))]
    except JobMasterError as error:
        return [Finding(Level.FAULT, subject, str(error))]
    except TimeoutError:
        text = f"it did not answer within {LOOK_SECONDS:.0f} s; check its address and whether it runs"
        return [Finding(Level.FAULT, subject, text)]


def make_master(settings: ClusterSettings, clock: Clock, *, migrate: bool) -> MasterStore:
    """The cluster's master, not opened; it brings its schema up only if `migrate`."""
    url, options = settings.master.url.get_secret_value(), dict(settings.master.options)
    if settings.master.scheme != "memory":
        options["migrate"] = migrate
    return open_master(url, cluster=settings.name, clock=clock, options=options)


def make_agent(settings: ClusterSettings, name: str, clock: Clock, *, migrate: bool) -> AgentTransport:
    """The same for an agent."""
    agent = settings.agents[name]
    transport = make_transport(agent, settings.name, clock)
    if transport.traits.keeps_schema:
        agent = agent.model_copy(update={"options": {**agent.options, "migrate": migrate}})
        transport = make_transport(agent, settings.name, clock)
    return transport


async def _master(settings: ClusterSettings, clock: Clock, subject: str) -> list[Finding]:
    master = make_master(settings, clock, migrate=False)
    try:
        report = await master.open()
        quarantined = await master.quarantined(SAMPLE)
        entries = await master.agents()
    finally:
        await master.close()
    found = [Finding(Level.OK, subject, _facts(report.facts))]
    found += [Finding(Level.NOTE, subject, text) for text in report.findings]
    found += [
        Finding(Level.FAULT, subject, f"agent {entry.name!r} is in quarantine: {entry.quarantined}")
        for entry in entries
        if entry.quarantined is not None
    ]
    if quarantined:
        newest = quarantined[0]
        found.append(
            Finding(
                Level.FAULT,
                subject,
                f"{len(quarantined)} records could not be applied and are kept in quarantine; the newest, from agent "
                f"{newest.agent}: {newest.error}; remedy that; the jobs concerned may show an older state until "
                "they are run again",
            )
        )
    return found


async def _agent(settings: ClusterSettings, clock: Clock, name: str, subject: str) -> list[Finding]:
    agent = make_agent(settings, name, clock, migrate=False)
    try:
        report = await agent.open()
        found = [Finding(Level.OK, subject, _facts(report.facts))]
        found += [Finding(Level.NOTE, subject, text) for text in report.findings]
        if report.mode is not StoreMode.OPEN:
            found.append(Finding(Level.FAULT, subject, _MODES[report.mode]))
        return found + await _routes(agent, subject, settings.timings.worker_dead_after)
    finally:
        await agent.close()


async def _routes(agent: AgentTransport, subject: str, dead_after: float) -> list[Finding]:
    """Whether somebody is there for what waits: per lane, and per handler."""
    now_us = await agent.store_now_us()
    live = [card for card in await agent.workers() if now_us - card.beat_us <= dead_after * SECOND]
    known = {handler for card in live for handler in card.handlers}
    served = {lane for card in live for lane in card.lanes}
    found = [Finding(Level.NOTE, subject, f"{len(live)} live workers" if live else "no live worker")]
    for lane in await agent.stats():
        waiting = lane.ready + lane.parked
        if waiting and lane.lane not in served:
            found.append(
                Finding(
                    Level.FAULT,
                    subject,
                    f"lane {lane.lane!r}: {waiting} jobs wait and no live worker serves it; start one with this lane",
                )
            )
        if lane.paused:
            found.append(Finding(Level.NOTE, subject, f"lane {lane.lane!r} is paused"))
    page = await agent.peek(JobFilter(states=frozenset({JobState.QUEUED})), None, SAMPLE)
    stranded = [job for job in page.jobs if job.handler not in known]
    due = {job.handler for job in stranded if job.due_us <= now_us}
    for handler, count in sorted(Counter(job.handler for job in stranded).items()):
        text = (
            f"handler {handler!r}: {count} of the newest {len(page.jobs)} waiting jobs need it and no live worker "
            "knows it; start a worker whose application registers it"
        )
        found.append(Finding(Level.FAULT if handler in due else Level.NOTE, subject, text))
    return found


def _facts(facts: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items()) or "answers"
