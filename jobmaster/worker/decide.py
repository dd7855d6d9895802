"""From what a run came back with to its outcome. Pure: the same inputs and the same `rng` give the same outcome.

What a store makes of an outcome (which counter rises, which cap it meets) is `contracts/decisions.py`; both apply the
caps, so that neither a worker of an older version nor a store has to trust the other.
"""

import random
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

import jobmaster
from jobmaster.model import portable
from jobmaster.model.errors import DataInvalid, Reject, RetryAfter, Snooze
from jobmaster.model.job import Job
from jobmaster.model.outcome import Failed, Outcome, RetryAt, RunError, Snoozed, Succeeded
from jobmaster.model.policy import Policy
from jobmaster.model.states import FailReason

MESSAGE_SHARE = 4
"""An error's message may take this part of the room for error texts; the traceback has the rest."""
LONGEST_TYPE = 300

_SUCCEEDED = Succeeded()
_OWN_FILES = f"{Path(jobmaster.__file__).parent}{Path('/')}"


class RunTimedOut(Exception):  # noqa: N818 - an event of a run, shown by this name in its record
    """The run did not end within its timeout."""


def decide_result(value: Any, limit: int) -> Outcome:
    """A handler returned. What no store could give back exactly fails the job, with type and path: another attempt
    would return the same."""
    if value is None:
        return _SUCCEEDED
    try:
        return Succeeded(portable.encode(value, limit=limit, what="result"))
    except DataInvalid as error:
        message = f"the handler returned a {type_name(type(value))}: {error}"
        return Failed(FailReason.REJECTED, _plain_error(type_name(DataInvalid), message, 8 * limit))
    except Exception as error:  # a value whose own methods raise while it is being encoded
        message = f"the handler returned a {type_name(type(value))} that cannot be encoded: {_text_of(error)}"
        return Failed(FailReason.REJECTED, _plain_error(type_name(type(error)), message, 8 * limit))


def decide_error(error: BaseException, job: Job, policy: Policy, limit: int, rng: random.Random) -> Outcome:
    """A handler raised, or ran out of time. `limit` bounds the texts kept, in bytes."""
    last = policy.at_most_once or job.attempts + 1 >= policy.retry.max_attempts
    match error:
        case Snooze() if not policy.at_most_once and job.snoozes < policy.max_snoozes:
            return Snoozed(error.delay_us)
        case Snooze():
            cap = "at_most_once" if policy.at_most_once else f"max_snoozes={policy.max_snoozes}"
            message = f"the handler asked to be snoozed once more than {cap} allows"
            return Failed(FailReason.EXHAUSTED, _plain_error("Snooze", message, limit))
        case Reject():
            return Failed(FailReason.REJECTED, run_error(error, limit))
        case RunTimedOut() if last or not policy.retry.retries(TimeoutError()):
            return Failed(FailReason.TIMED_OUT, run_error(error, limit))
        case RetryAfter() if not last:
            return RetryAt(error.delay_us, run_error(error, limit))
        case RunTimedOut():
            return RetryAt(policy.retry.delay_us(job.attempt, rng), run_error(error, limit))
        case _ if last or not policy.retry.retries(error):
            return Failed(FailReason.EXHAUSTED, run_error(error, limit))
        case _:
            return RetryAt(policy.retry.delay_us(job.attempt, rng), run_error(error, limit))


def undecodable(error: BaseException, limit: int) -> Outcome:
    """The stored data or policy can't be read as what the handler declares."""
    return Failed(FailReason.UNDECODABLE, run_error(error, limit))


def run_error(error: BaseException, limit: int) -> RunError:
    """The error as text, storable, at most `limit` bytes. Never raises, whatever the error's own methods do."""
    return RunError(
        type=portable.sanitize_text(type_name(type(error)), LONGEST_TYPE),
        message=portable.sanitize_text(_text_of(error), limit // MESSAGE_SHARE),
        traceback=portable.sanitize_text(_traceback_of(error), limit - limit // MESSAGE_SHARE - LONGEST_TYPE),
    )


def type_name(kind: type) -> str:
    """`ValueError`, `shop.errors.SoldOut`."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _plain_error(kind: str, message: str, limit: int) -> RunError:
    return RunError(type=kind, message=portable.sanitize_text(message, max(limit // MESSAGE_SHARE, 1_000)))


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException as broken:
        return f"<its str() raised {type(broken).__name__}>"


def _traceback_of(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(type(error), error, _handlers_part(error.__traceback__)))
    except BaseException as broken:
        return f"<its traceback could not be formatted: {type(broken).__name__}>"


def _handlers_part(frames: TracebackType | None) -> TracebackType | None:
    """Without the frames that led from the worker into the handler."""
    first = frames
    while first is not None and first.tb_frame.f_code.co_filename.startswith(_OWN_FILES):
        first = first.tb_next
    return first or frames
