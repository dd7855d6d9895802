"""Diagnosis: what an operator wants checked before asking anybody. Looks, and changes nothing."""

from dataclasses import dataclass
from enum import StrEnum

from jobmaster.cluster import Cluster
from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.clock import Clock, SystemClock
from jobmaster.contracts.master import MasterStore
from jobmaster.contracts.values import JobFilter, StoreMode
from jobmaster.master import open_master
from jobmaster.model.errors import JobMasterError
from jobmaster.model.states import JobState
from jobmaster.settings.models import ClusterSettings
from jobmaster.transports import make_transport

SAMPLE = 500
"""Waiting jobs looked at for handlers nobody knows."""
SECOND = 1_000_000


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
    findings = [Finding(Level.OK, f"cluster {settings.name}", f"the settings are complete; handlers here: {handlers}")]
    findings += await _master(settings, clock)
    for name in settings.agents:
        findings += await _agent(settings, name, clock)
    return findings


def make_master(settings: ClusterSettings, clock: Clock, *, migrate: bool) -> MasterStore:
    """The cluster's master, not opened; it brings its schema up only if `migrate`."""
    url, options = settings.master.url.get_secret_value(), dict(settings.master.options)
    if settings.master.scheme != "memory":
        options["migrate"] = migrate
    return open_master(url, cluster=settings.name, clock=clock, options=options)


def make_agent(settings: ClusterSettings, name: str, clock: Clock, *, migrate: bool) -> AgentTransport:
    """The same for an agent."""
    agent = settings.agents[name]
    if agent.scheme != "memory":
        agent = agent.model_copy(update={"options": {**agent.options, "migrate": migrate}})
    return make_transport(agent, settings.name, clock)


async def _master(settings: ClusterSettings, clock: Clock) -> list[Finding]:
    subject = f"master {settings.master.shown_url}"
    master = make_master(settings, clock, migrate=False)
    try:
        report = await master.open()
        quarantined = await master.quarantined(SAMPLE)
    except JobMasterError as error:
        return [Finding(Level.FAULT, subject, str(error))]
    finally:
        await master.close()
    found = [Finding(Level.OK, subject, _facts(report.facts))]
    found += [Finding(Level.NOTE, subject, text) for text in report.findings]
    if quarantined:
        newest = quarantined[0]
        found.append(
            Finding(
                Level.FAULT,
                subject,
                f"{len(quarantined)} records could not be applied and are kept in quarantine; the newest, from agent "
                f"{newest.agent}: {newest.error}",
            )
        )
    return found


async def _agent(settings: ClusterSettings, name: str, clock: Clock) -> list[Finding]:
    subject = f"agent {name} {settings.agents[name].shown_url}"
    agent = make_agent(settings, name, clock, migrate=False)
    try:
        report = await agent.open()
        found = [Finding(Level.OK, subject, _facts(report.facts))]
        found += [Finding(Level.NOTE, subject, text) for text in report.findings]
        if report.mode is not StoreMode.OPEN:
            found.append(Finding(Level.FAULT, subject, f"it is {report.mode}: nothing is claimed from it"))
        return found + await _routes(agent, subject, settings.timings.worker_dead_after)
    except JobMasterError as error:
        return [Finding(Level.FAULT, subject, str(error))]
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
    for handler in sorted({job.handler for job in page.jobs} - known):
        count = sum(job.handler == handler for job in page.jobs)
        found.append(
            Finding(
                Level.FAULT,
                subject,
                f"handler {handler!r}: {count} of the newest {len(page.jobs)} waiting jobs need it and no live worker "
                "knows it; start a worker whose application registers it",
            )
        )
    return found


def _facts(facts: object) -> str:
    return (
        ", ".join(f"{name} {value}" for name, value in facts.items())
        if isinstance(facts, dict) and facts
        else "answers"
    )
