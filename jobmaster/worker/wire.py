"""What a worker and the process of one of its handlers say to each other: frames of a length and msgpack."""

import struct
from typing import Any

import msgspec
from msgspec import Struct

from jobmaster.model.job import Job

LENGTH = struct.Struct(">I")


class Place(Struct, frozen=True):
    """Where something is in code."""

    module: str
    name: str
    """Its qualified name there."""
    main: str | None = None
    """The file that is the program itself, where the module is that."""


class Start(Struct, frozen=True, tag=True):
    """The worker's first and only frame."""

    target: Place
    factory: Place | None
    job: Job


class Progress(Struct, frozen=True, tag=True):
    percent: int
    note: str | None


class Line(Struct, frozen=True, tag=True):
    """Something for the job's log."""

    level: str
    event: str
    fields: dict[str, str]


class Returned(Struct, frozen=True, tag=True):
    raw: bytes | None
    """Portable JSON; None: nothing."""


class Raised(Struct, frozen=True, tag=True):
    """The handler raised."""

    types: list[tuple[str, str]]
    """Module and qualified name of the error's class and of its bases."""
    message: str
    traceback: str
    delay_us: int | None = None
    """Of a `Snooze` or a `RetryAfter`."""


Told = Progress | Line | Returned | Raised

_encoder = msgspec.msgpack.Encoder()
read_told = msgspec.msgpack.Decoder(Told).decode
read_start = msgspec.msgpack.Decoder(Start).decode


def frame(value: Any) -> bytes:
    """As it is sent."""
    body = _encoder.encode(value)
    return LENGTH.pack(len(body)) + body
