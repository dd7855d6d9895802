"""Runs of handlers with `process = True`: each in a process of its own, which can be killed whatever it does.

Told to end, the process gets SIGTERM, which is raised inside the handler; what is left of it shortly before the grace
is over is killed, with what it has started. A process that dies by itself is a failed attempt like an exception.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from functools import lru_cache
from typing import Any

from jobmaster.model import portable
from jobmaster.model.errors import Reject, RetryAfter, Snooze
from jobmaster.worker.context import JobContext, lease_of
from jobmaster.worker.lease import Lease
from jobmaster.worker.wire import LENGTH, Line, Place, Progress, Raised, Returned, Start, Told, frame, read_told

KILL_BEFORE_SECONDS = 0.2
"""How long before the end of the grace a process is killed, so that its end is seen within the grace."""
SECOND = 1_000_000

inside = False
"""Whether this is such a process: importing the program to find a handler must not run a cluster in it."""


class ProcessDied(Exception):  # noqa: N818 - an event of a run, shown by this name in its record
    """The handler's process ended without saying what its run came to."""


class RemoteTraceback(Exception):  # noqa: N818 - as concurrent.futures has it
    """Carries the traceback of the other process."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n{self.text}"


async def in_process(target: Place, factory: Place | None, context: JobContext[Any]) -> Any:
    """One attempt; gives what the handler returns, raises what it raises, as a class of the same name."""
    lease = lease_of(context)
    mine, theirs = socket.socketpair()
    try:
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "jobmaster.worker.child", str(theirs.fileno())),
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
                start_new_session=True,
            )
    except BaseException:
        mine.close()
        raise
    talk = asyncio.ensure_future(_talk(mine, Start(target, factory, lease.job), context))
    try:
        await asyncio.wait({talk})
    except asyncio.CancelledError:
        _signal(process.pid, signal.SIGTERM)
        await asyncio.wait({talk}, timeout=_grace(lease))
        if not talk.done() or not isinstance(talk.result(), Returned):
            raise
    finally:
        if talk.done() and talk.result() is not None:
            # It has said all, and is ending; what it started may go on.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), KILL_BEFORE_SECONDS)
        if process.returncode is None:
            _kill(process.pid)
        talk.cancel()
        await asyncio.shield(process.wait())
    told = talk.result()
    if told is None:
        raise ProcessDied(_death(process.returncode))
    if isinstance(told, Returned):
        return None if told.raw is None else portable.decode(told.raw)
    raise _error(told)


async def _talk(link: socket.socket, start: Start, context: JobContext[Any]) -> Returned | Raised | None:
    """What the run came to; None if the process ended without a word."""
    lease = lease_of(context)
    told: Told
    reader, writer = await asyncio.open_connection(sock=link)
    try:
        writer.write(frame(start))
        while True:
            (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
            told = read_told(await reader.readexactly(length))
            if isinstance(told, Progress):
                lease.progress = (told.percent, told.note)
                lease.holder.progressed(lease)
            elif isinstance(told, Line):
                getattr(context.log, told.level)(told.event, **told.fields)
            else:
                return told
    except (asyncio.IncompleteReadError, OSError):
        return None
    finally:
        writer.close()


def _grace(lease: Lease) -> float:
    grace = lease.policy.grace_us / SECOND if lease.policy is not None else 0.0
    return max(0.0, grace - KILL_BEFORE_SECONDS)


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _kill(pid: int) -> None:
    """The process and what it has started: it leads a session of its own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _death(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return f"the handler's process was ended by {signal.Signals(-code).name}"
    return f"the handler's process ended with exit code {code}, and without a result"


def _error(raised: Raised) -> BaseException:
    error = _own(raised)
    error.__cause__ = RemoteTraceback(raised.traceback)
    return error


def _own(raised: Raised) -> BaseException:
    kind = f"{raised.types[0][0]}.{raised.types[0][1]}"
    if raised.delay_us is not None and kind.endswith(".Snooze"):
        return Snooze(raised.delay_us / SECOND)
    if raised.delay_us is not None:
        return RetryAfter(raised.delay_us / SECOND)
    if (Reject.__module__, Reject.__qualname__) in raised.types:
        return Reject(raised.message)
    return _class(tuple(raised.types))(raised.message)


@lru_cache(maxsize=256)
def _class(names: tuple[tuple[str, str], ...]) -> type[Exception]:
    """A class with the same name, and bases of the same names: what a retry policy compares."""
    base: type[Exception] = Exception
    for module, name in reversed(names):
        if (module, name) not in (("builtins", "BaseException"), ("builtins", "Exception")):
            made: Any = type(name, (base,), {"__module__": module, "__qualname__": name})
            base = made
    return base
