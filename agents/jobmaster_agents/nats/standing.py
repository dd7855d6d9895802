"""How a job stands, as the verbs see it that change jobs one by one: what its next record takes over."""

from msgspec import Struct

from jobmaster.model.job import Job
from jobmaster_agents.nats.ending import Carried
from jobmaster_agents.nats.reader import Standing
from jobmaster_agents.nats.records import Record


class Stand(Struct, frozen=True, gc=False):
    """A job that is here."""

    job: Job
    record: Record | None
    """Of its epoch; None where there is none yet, and the parcel alone speaks for it."""
    seq: int
    """What the next record's compare-and-set expects."""
    carried: Carried
    last_token: int
    last_digest: int

    @property
    def leased(self) -> bool:
        return self.record is not None and self.record.leased

    @property
    def parcel(self) -> int:
        """The sequence of the parcel that stands for it; 0: none that is known."""
        return self.carried.message


def stand_of(standing: Standing | None) -> Stand | None:
    """None: it is not here."""
    if standing is None or (job := standing.job) is None:
        return None
    last, sent = standing.last.record, standing.sent
    # The record of an earlier placement says nothing about this one but what its last lease came to.
    record = last if last is not None and last.epoch == job.epoch else None
    counters = [part.counter for part in (record, sent.parcel if sent is not None else None) if part is not None]
    carried = Carried(
        job,
        max(counters, default=0),
        record.first if record is not None and record.first else sent.parcel.first if sent is not None else 0,
        sent.seq if sent is not None else record.message if record is not None else 0,
        "",
        (sent.parcel.place or sent.at_us) if sent is not None else 0,
    )
    token, digest = (last.last_token, last.last_digest) if last is not None else (0, 0)
    return Stand(job, record, standing.last.seq, carried, token, digest)
