"""Damaged parcels: messages of the stream of jobs that can't be read.

Each comes round once a minute, as a newer release may understand what this one does not. One that nobody could read so
often is set aside in the control stream, whole, where `jobmaster doctor` tells of it, and leaves its lane. A job that
the master knows of is missing then, and placed anew.
"""

from collections.abc import Sequence

import structlog

from jobmaster.telemetry.probes import probe
from jobmaster_agents.nats.messages import Message
from jobmaster_agents.nats.parcels import acknowledge, later
from jobmaster_agents.nats.store import Store

DELIVERIES = 10
"""How often one is handed out before it is set aside."""
DELAY_US = 60_000_000
"""How long one is left alone: it must not come round with every fetch."""
SOME = 10
"""Those that a finding names."""

_log = structlog.get_logger("jobmaster.nats")


async def put_away(store: Store, damaged: Sequence[tuple[Message, int]]) -> None:
    """What becomes of messages that can't be read, each with how often it was handed out by now."""
    again, aside = [], []
    for message, deliveries in damaged:
        job_id = store.subjects.job_id(message.subject)
        if deliveries == 1:
            probe("unreadable_parcel")
            _log.error("nats.unreadable", agent=store.name, job=job_id, subject=message.subject)
        if deliveries < DELIVERIES:
            again.append((message.reply, DELAY_US))
            continue
        # First kept, then taken from its lane.
        await store.keep(store.subjects.damaged(job_id), message.data)
        aside.append(message.reply)
        _log.error("nats.set_aside", agent=store.name, job=job_id, bytes=len(message.data))
    await store.link.tell([*later(again), *acknowledge(aside)])


async def found(store: Store) -> list[str]:
    """What an operator is told."""
    subject = store.subjects.damaged("*")
    page, more = await store.reader.page(store.subjects.ctl_stream, subject, 1, SOME)
    if not page:
        return []
    names = ", ".join(stored.subject.rpartition(".")[2] for stored in page) + (" and others" if more else "")
    stream = store.subjects.ctl_stream
    how = f"look with: nats stream get {stream} --last-for {store.subjects.damaged('ID')}; "
    how += f"done with: nats stream purge {stream} --subject {subject}"
    return [f"messages of jobs that nobody could read were set aside: {names}; {how}"]
