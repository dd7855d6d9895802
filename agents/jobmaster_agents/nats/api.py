"""The JetStream API, as JSON over requests: exact configurations in, exact ones back."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from jobmaster.model.errors import Refused
from jobmaster_agents.nats.connection import PATIENCE, Link

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode

NOT_FOUND = 404
WRONG_LAST_SEQUENCE = 10071
STREAM_NAME_IN_USE = 10058
CONSUMER_EXISTS = 10148


class ApiError(Refused):
    """The server answered, and said no."""

    def __init__(self, request: str, code: int, error_code: int, problem: str) -> None:
        super().__init__(request, code, error_code, problem)
        self.request, self.code, self.error_code, self.problem = request, code, error_code, problem

    def __str__(self) -> str:
        return f"the NATS server refused {self.request}: {self.problem} (error {self.error_code})"


async def call(
    link: Link, request: str, body: Mapping[str, Any] | None = None, *, within: float = PATIENCE, **named: Any
) -> dict[str, Any]:
    """Raises `ApiError`, and `AgentUnreachable` where no answer came."""
    given = {**(body or {}), **named}
    answer = _decode((await link.ask(f"$JS.API.{request}", _encode(given) if given else b"", within=within)).data)
    error = answer.get("error")
    if error is not None:
        raise ApiError(request, error.get("code", 0), error.get("err_code", 0), error.get("description", ""))
    return answer


def instant_us(text: str) -> int:
    """Microseconds UTC of a time as the server writes it, nanoseconds and all."""
    head, _, rest = text.rstrip("Z").partition(".")
    whole = int(datetime.fromisoformat(f"{head}+00:00").timestamp())
    return whole * 1_000_000 + int(f"{rest:0<6}"[:6])


def instant_text(at_us: int) -> str:
    """As the server reads it. Rounded up, as a schedule must not fire early."""
    moment = datetime.fromisoformat("1970-01-01T00:00:00+00:00").fromtimestamp(at_us // 1_000_000, tz=_UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{at_us % 1_000_000:06d}Z"


_UTC = datetime.fromisoformat("1970-01-01T00:00:00+00:00").tzinfo
