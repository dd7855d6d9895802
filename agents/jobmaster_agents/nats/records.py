"""What the streams carry: parcels (jobs on their way), records (what became of them), holds (who has which lease).

A job's state is said by the last record on its outcome subject and, where there is none of its epoch, by its parcel.
"""

import random
from hashlib import blake2b

import msgspec
from msgspec import Struct

from jobmaster.contracts.values import Revocation, Revoke, StoreMode
from jobmaster.model.job import Job, Run
from jobmaster.model.states import TERMINAL, JobState
from jobmaster.model.tokens import make_token


class Parcel(Struct, frozen=True, array_like=True, gc=False):
    """A message in the stream of jobs. Its epoch and counter say for which placement it stands."""

    job: Job
    counter: int
    """How often the job was published anew in this epoch."""
    first: int
    """Digest of handler and data as they were put: what a repeated put is compared with."""
    place: int = 0
    """Since when it has stood in line, in µs of store time: of what is fetched together, the oldest goes first. 0:
    since it was stored."""
    turns: int = 0
    """How often it came to a process that doesn't know its handler."""


class Record(Struct, frozen=True, array_like=True, kw_only=True, gc=False):
    """A message on the outcome subject of a job. Written only by compare-and-set on that subject's last sequence."""

    nonce: int
    """Tells the writer's own record from anybody else's after an answer was lost."""
    epoch: int
    version: int
    state: JobState
    at_us: int
    """Store time."""
    counter: int
    """The parcel that stands for the job from here on."""
    claim_seq: int = 0
    worker: str | None = None
    ttl_us: int = 0
    message: int = 0
    """With a lease: the sequence of the parcel."""
    ack: str = ""
    """With a lease: where the parcel is acknowledged."""
    last_token: int = 0
    last_digest: int = 0
    """The last lease that ended, and what it came to."""
    first: int = 0
    kind: str = ""
    """`plain` or `effect`: a fact for the master. Empty: only for this agent."""
    removed: bool = False
    """Gone without a word to the master."""
    job: Job | None = None
    """The job as it then stood; None of a first claim, whose job is the parcel's, and of an epoch never seen."""
    run: Run | None = None
    revoked: Revoke | None = None
    answer: Revocation | None = None
    """What the first revoke was told."""

    @property
    def leased(self) -> bool:
        return self.state is JobState.RUNNING

    @property
    def gone(self) -> bool:
        """Whether the job is here no more."""
        return self.removed or self.state in TERMINAL or self.state is JobState.HELD

    @property
    def token(self) -> int:
        return make_token(self.epoch, self.claim_seq) if self.claim_seq else 0


class Hold(Struct, frozen=True, array_like=True, gc=False):
    """Leases given or prolonged together, until the time of this message + ttl."""

    worker: str
    ttl_us: int
    leases: list[tuple[str, int]]
    """(job id, token)."""


class StoreSettings(Struct, frozen=True, omit_defaults=True):
    """What the agent's store is and does, kept in the store itself."""

    incarnation: str
    mode: StoreMode = StoreMode.OPEN
    paused_lanes: tuple[str, ...] = ()


class Confirmed(Struct, frozen=True, omit_defaults=True):
    """Which outcome records the master has: all up to `cursor`, and those `beyond`."""

    cursor: int = 0
    beyond: tuple[int, ...] = ()
    base: int = 0
    """Added to every sequence that is told: a store that was set back goes on above what it had told before."""
    floor: int | None = None
    """Up to where outcomes were removed by us, or may be by now; None: nobody has looked yet."""


def new_nonce() -> int:
    return random.getrandbits(62)


def payload_digest(job: Job) -> int:
    """63 bits of handler and data."""
    digest = blake2b(job.handler.encode() + b"\0" + job.data, digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


_encoder = msgspec.msgpack.Encoder()
encode = _encoder.encode
decode_parcel = msgspec.msgpack.Decoder(Parcel).decode
decode_record = msgspec.msgpack.Decoder(Record).decode
decode_hold = msgspec.msgpack.Decoder(Hold).decode
decode_settings = msgspec.msgpack.Decoder(StoreSettings).decode
decode_confirmed = msgspec.msgpack.Decoder(Confirmed).decode
