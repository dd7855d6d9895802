"""Expiring: the server tells when a job's time to be started has passed; whoever is asked to promote ends it.

Only a help for jobs that nobody fetches: a claim looks at the time itself. So what is lost here costs nothing but the
waiting until then.
"""

from collections.abc import Iterable

from jobmaster.contracts import decisions
from jobmaster.contracts.values import PromoteReport, StoreMode
from jobmaster.model.job import Job
from jobmaster_agents.nats.api import instant_text
from jobmaster_agents.nats.ending import end
from jobmaster_agents.nats.fetching import pull
from jobmaster_agents.nats.frames import header_block
from jobmaster_agents.nats.parcels import Moves, acknowledge
from jobmaster_agents.nats.publisher import Write
from jobmaster_agents.nats.standing import stand_of
from jobmaster_agents.nats.store import Store
from jobmaster_agents.nats.subjects import EXPIRY_CONSUMER


async def watch_expiry(store: Store, jobs: Iterable[Job]) -> None:
    """Have the server tell when these jobs expire, those that do."""
    requests = []
    for job in jobs:
        if job.expires_us is not None:
            waits, told = store.subjects.expiry(job.id)
            at = f"@at {instant_text(job.expires_us)}"
            requests.append((waits, header_block(("Nats-Schedule", at), ("Nats-Schedule-Target", told)), b""))
    await store.link.ask_all(requests)


async def expire(store: Store, limit: int) -> PromoteReport:
    """End up to `limit` waiting jobs of those that the server has told of."""
    settings, _ = await store.reader.settings()
    if settings is None or settings.mode is StoreMode.QUARANTINED or limit <= 0:
        return PromoteReport()
    [answers] = await store.link.pull([(pull(store, EXPIRY_CONSUMER, limit), limit)])
    told = {message.subject.rpartition(".")[2]: message.reply for message in answers.messages}
    if not told:
        return PromoteReport()
    now_us = await store.ask_now_us()
    standings = await store.reader.standings(list(told))
    moves, writes, endings = Moves(store), [], []
    for job_id, standing in standings.items():
        stand = stand_of(standing)
        if stand is None or stand.leased or not decisions.is_expired(stand.job, now_us):
            continue
        ended = decisions.expired(stand.job, now_us)
        ending = end(stand.carried, ended, None, now_us, token=stand.last_token, digest=stand.last_digest)
        writes.append(Write(job_id, ending.record, stand.seq))
        endings.append(ending)
    seqs = await store.publisher.commit(writes)
    for ending, seq in zip(endings, seqs, strict=True):
        if seq:
            ending.follow(moves)
    await moves.run()
    # One whose state changed under our hands is told of again.
    lost = {write.id for write, seq in zip(writes, seqs, strict=True) if not seq}
    await store.link.tell(acknowledge([ack for job_id, ack in told.items() if job_id not in lost]))
    expired = sum(map(bool, seqs))
    return PromoteReport(expired=expired, more=len(told) == limit)
