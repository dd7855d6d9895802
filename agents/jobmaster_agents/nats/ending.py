"""Ending: how a lease, or a waiting job, comes to its next record, and what is then done with the parcel."""

from msgspec import Struct

from jobmaster.contracts import decisions
from jobmaster.model.job import Job, Run
from jobmaster_agents.nats.parcels import Moves
from jobmaster_agents.nats.records import Parcel, Record, new_nonce


class Carried(Struct, frozen=True, gc=False):
    """What a job's next record takes over from how it stood."""

    job: Job
    counter: int
    first: int
    message: int
    """The parcel's sequence; 0: unknown, or not published yet."""
    ack: str
    """Where it is acknowledged; empty: unknown."""
    place: int = 0


class Ended(Struct, frozen=True, gc=False):
    """A record to commit and, after that, what becomes of the parcel."""

    record: Record
    before: Carried
    parcel: Parcel | None
    """To be published in the place of the old one."""
    not_before_us: int | None
    back: bool
    """The parcel is delivered again as it is."""

    def follow(self, moves: Moves) -> None:
        """The record was accepted."""
        if self.back:
            moves.returned.append(self.before.ack)
            return
        if self.parcel is not None:
            moves.published.append((self.parcel, self.not_before_us))
        if self.before.ack:
            moves.done.append(self.before.ack)
        elif self.before.message:
            moves.removed.append(self.before.message)


def end(
    before: Carried,
    job: Job,
    run: Run | None,
    now_us: int,
    *,
    token: int,
    digest: int,
    not_before_us: int | None = None,
    again: bool = False,
    turns: int = 0,
) -> Ended:
    """The job is `job` now; `token` and `digest` tell the last lease that ended. A waiting one is published anew
    where its due time has changed, it is to wait, or `again` asks for it; else its parcel goes back in line."""
    fact = decisions.record_kind(job).value if run is not None or job.terminal else ""
    moved = again or not_before_us is not None or job.due_us != before.job.due_us or not before.ack
    counter, parcel, at_us = before.counter, None, None
    if not job.terminal and moved:
        counter += 1
        at_us = not_before_us if not_before_us is not None else None if job.due_us <= now_us else job.due_us
        place = at_us or 0 if job.due_us != before.job.due_us else before.place
        parcel = Parcel(job, counter, before.first, place, turns)
    record = Record(
        nonce=new_nonce(),
        epoch=job.epoch,
        version=job.version,
        state=job.state,
        at_us=now_us,
        counter=counter,
        claim_seq=job.claim_seq,
        worker=job.worker,
        last_token=token,
        last_digest=digest,
        first=before.first,
        kind=fact,
        job=job,
        run=run,
    )
    return Ended(record, before, parcel, at_us, back=not job.terminal and parcel is None)
