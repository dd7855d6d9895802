"""Policy and labels: what a job carries beside its data. Both travel as compact JSON that omits defaults."""

from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from jobmaster.model.retry import Retry

_Value = TypeVar("_Value", bound=Struct)

SECOND = 1_000_000
"""Microseconds; every time and duration inside the system is an integer of them."""


class Policy(Struct, frozen=True, omit_defaults=True):
    """How a job is executed, fixed when it is enqueued."""

    timeout_us: int = 300 * SECOND
    grace_us: int = 5 * SECOND
    retry: Retry = Retry()
    at_most_once: bool = False
    max_crashes: int = 3
    max_snoozes: int = 1_000
    max_interrupts: int = 100
    unroutable_after_us: int | None = None
    data_version: int = 1
    """Of the handler's data, as the release wrote them that enqueued the job."""

    def encode(self) -> bytes:
        """Compact JSON; `{}` for the defaults."""
        return _encoder.encode(_lean(Policy, self, retry=_lean(Retry, self.retry)))


class Labels(Struct, frozen=True, omit_defaults=True):
    """What people search and read: never interpreted by the system."""

    title: str | None = None
    tags: tuple[str, ...] = ()
    metadata: dict[str, Any] = {}

    def encode(self) -> bytes | None:
        """Compact JSON; `None` where there is nothing to say."""
        return _encoder.encode(self) if self.title or self.tags or self.metadata else None


def _lean(kind: type[_Value], value: _Value, **changes: Any) -> _Value:
    """The same value made again from what differs from the defaults. msgspec leaves out what *is* the default, not what
    equals it, and a policy is stored with every job."""
    default = kind()
    fields = {name: getattr(value, name) for name in kind.__struct_fields__} | changes
    return kind(**{name: given for name, given in fields.items() if given != getattr(default, name)})


_encoder = msgspec.json.Encoder(order="sorted")
_policies = msgspec.json.Decoder(Policy)
_labels = msgspec.json.Decoder(Labels)
_DEFAULT = Policy()


def decode_policy(raw: bytes) -> Policy:
    """The policy a store gave back. Raises `msgspec.DecodeError` for what can't be read."""
    return _DEFAULT if raw == b"{}" else _policies.decode(raw)


def decode_labels(raw: bytes | None) -> Labels:
    """The labels a store gave back. Raises `msgspec.DecodeError` for what can't be read."""
    return Labels() if raw is None else _labels.decode(raw)
