"""The long part of a run's record: error, last log lines, progress. One encoded value, read only when shown."""

import msgspec
from msgspec import Struct

from jobmaster.model.outcome import RunError


class RunDetail(Struct, frozen=True, omit_defaults=True):
    """Everything about a run that no query filters by."""

    error: RunError | None = None
    log: tuple[str, ...] = ()
    """The last lines the handler wrote through `job.log`."""
    progress: int | None = None
    progress_note: str | None = None
    note: str | None = None
    """Why the system ended the run, where it did."""

    def encode(self) -> bytes | None:
        """Compact JSON; `None` where there is nothing to say."""
        raw = _encoder.encode(self)
        return None if raw == b"{}" else raw


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(RunDetail)


def decode_detail(raw: bytes | None) -> RunDetail:
    """The detail a store gave back. Raises `msgspec.DecodeError` for what can't be read."""
    return RunDetail() if raw is None else _decoder.decode(raw)
