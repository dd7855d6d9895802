"""Judging: what a delivery is, by the last record of its job. Pure."""

from enum import Enum

from jobmaster_agents.nats.fetching import Delivery
from jobmaster_agents.nats.records import Record


class Verdict(Enum):
    FREE = "free"
    """Claimable, as the parcel or the record says it stands."""
    SPENT = "spent"
    """Another parcel or an outcome stands for the job: acknowledge, never run."""
    FORWARD = "forward"
    """The record speaks of a later parcel, which may have got lost on its way: publish it, then acknowledge."""
    LEASED = "leased"
    """Somebody has the lease, or had: only when it is over the job may be taken."""


def judge(delivery: Delivery, record: Record | None) -> Verdict:
    parcel = delivery.parcel
    epoch = parcel.job.epoch
    if record is None or record.epoch < epoch:
        late = delivery.deadline_us is not None and delivery.stored_us > delivery.deadline_us
        return Verdict.SPENT if late else Verdict.FREE
    if record.epoch > epoch or record.gone:
        return Verdict.SPENT
    if record.counter > parcel.counter:
        return Verdict.SPENT if record.leased else Verdict.FORWARD
    return Verdict.LEASED if record.leased else Verdict.FREE
