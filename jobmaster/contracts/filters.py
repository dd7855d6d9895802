"""Which jobs a `JobFilter` lets through: what every store means by it, whatever it does natively."""

from collections.abc import Mapping
from typing import Any

from jobmaster.contracts.values import JobFilter
from jobmaster.model.job import Job
from jobmaster.model.policy import decode_labels


def matches(where: JobFilter, job: Job) -> bool:
    """Whether a job meets every condition given."""
    return (
        (not where.states or job.state in where.states)
        and (where.handler is None or job.handler == where.handler)
        and (where.lane is None or job.lane == where.lane)
        and (where.agent is None or job.agent == where.agent)
        and (where.schedule is None or job.schedule == where.schedule)
        and (where.since_us is None or job.created_us >= where.since_us)
        and labels_match(where, job.labels)
    )


def labels_match(where: JobFilter, raw: bytes | None) -> bool:
    """The part of a filter that looks into the labels; what can't be read matches nothing."""
    if where.tag is None and not where.metadata:
        return True
    try:
        labels = decode_labels(raw)
    except ValueError:
        return False
    return (where.tag is None or where.tag in labels.tags) and all(
        key in labels.metadata and same_json(labels.metadata[key], value) for key, value in where.metadata.items()
    )


def same_json(one: Any, other: Any) -> bool:
    """Equality of JSON values: `1` is `1.0` but not `true`, which Python takes for equal."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same_json(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same_json, one, other))
    return bool(one == other)
