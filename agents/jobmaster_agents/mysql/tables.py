"""The names of one agent's tables, and the pieces of SQL that several statements share."""

from jobmaster.contracts.namespace import table_prefix

READY, DELAYED, LEASED, PARKED = 0, 1, 2, 3
"""The `st` of a job row."""

NOW_US = "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))"
"""Store time, as it was when the statement began."""

FENCE = "(j.epoch << 32 | j.claim_seq)"

COUNTS = ("n_ready", "n_delayed", "n_leased", "n_parked")
"""The columns of counts, in the order of `st`. DELAYED alone is a reserved word."""

ALL_LANES = ""
"""Under which the leased ones of all lanes are counted. They are few, so how many a lane has is counted when somebody
asks; but a settle would have to look up the lane of each job, only to write it down."""

PLACES = 1 << 20
"""Places that one ticket stands for, in line and in the outbox; no put, promotion or flush is larger."""


class Tables:
    """Names of one agent's tables, to be formatted into SQL: they are made of letters, digits and underscores only."""

    def __init__(self, cluster: str, agent: str) -> None:
        self.prefix = prefix = table_prefix(cluster, agent)
        self.job = f"{prefix}job"
        self.outbox = f"{prefix}outbox"
        self.tombstone = f"{prefix}tombstone"
        self.meta = f"{prefix}meta"
        self.lane = f"{prefix}lane"
        self.count = f"{prefix}count"
        self.worker = f"{prefix}worker"
        self.signal = f"{prefix}signal"
        self.ticket = f"{prefix}ticket"
        """Numbers that are given out once: a row is inserted, its key is the number."""
        self.version = f"{prefix}version"
