"""The process of one run of a handler with `process = True`: `python -m jobmaster.worker.child FD`.

It reads what to run from the socket FD, runs it on its main thread, and says there what came of it. SIGTERM is the
run's cancellation: raised inside the handler, so that it can clean up. When the worker goes, this process goes.
"""

import asyncio
import contextlib
import ctypes
import importlib
import importlib.util
import os
import signal
import socket
import sys
import threading
import time
import traceback
from importlib.machinery import SourceFileLoader
from types import FrameType, ModuleType
from typing import Any

from jobmaster.definition import examine
from jobmaster.invocation import HandlerFactory, direct
from jobmaster.model import portable
from jobmaster.model.errors import DataInvalid, OptionInvalid, Reject, RetryAfter, Snooze
from jobmaster.model.schema import DataSchema
from jobmaster.worker import process
from jobmaster.worker.context import JobContext
from jobmaster.worker.joblog import JobLog
from jobmaster.worker.lease import NEVER, Ending, Lease
from jobmaster.worker.wire import LENGTH, Line, Place, Progress, Raised, Returned, Start, frame, read_start

PROGRESS_SECONDS = 0.1
LARGEST_RESULT = 64 << 20
"""What the cluster allows is the worker's to say."""
MAIN = "__jobmaster_main__"
LONGEST_TEXT = 64 << 10
_PR_SET_PDEATHSIG = 1


class RunEnded(BaseException):
    """Raised inside a handler whose run was cancelled, timed out, or has to end with its worker."""


class Worker:
    """The other end of the socket."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._lock = threading.Lock()

    def tell(self, value: Any) -> None:
        # The handler's threads may report, too: frames must not mix.
        with self._lock, contextlib.suppress(OSError):
            self._link.sendall(frame(value))

    def start(self) -> Start:
        """What to run."""
        (length,) = LENGTH.unpack(self._read(LENGTH.size))
        return read_start(self._read(length))

    def watch(self) -> None:
        """End this process with the worker: nobody would take what it comes to."""

        def wait() -> None:
            with contextlib.suppress(OSError):
                self._link.recv(1)
            os._exit(1)

        threading.Thread(target=wait, daemon=True).start()

    def _read(self, size: int) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            part = self._link.recv(size - len(parts))
            if not part:
                raise SystemExit(1)
            parts += part
        return bytes(parts)


class Holder:
    """Stands for the lease keeper."""

    worker_id = ""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._told_at = -NEVER

    def mono(self) -> float:
        return time.monotonic()

    def progressed(self, lease: Lease) -> None:
        if time.monotonic() - self._told_at >= PROGRESS_SECONDS:
            self._told_at = time.monotonic()
            self.tell(lease)

    def tell(self, lease: Lease) -> None:
        if lease.progress is not None and lease.progress != lease.progress_sent:
            lease.progress_sent = lease.progress
            self._worker.tell(Progress(*lease.progress))

    async def complete_in(self, lease: Lease, connection: Any, result: Any) -> None:
        raise OptionInvalid(
            "process", True, "a handler that runs in the worker's process: `complete_in` settles through its agent"
        )


class ChildLog(JobLog):
    """Lines go to the worker, which logs and keeps them."""

    __slots__ = ("_worker",)

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def _write(self, level: str, event: str, fields: dict[str, Any]) -> None:
        self._worker.tell(Line(level, portable.sanitize_text(_text(event), 2_000), _texts(fields)))


def main(descriptor: int) -> None:
    """Run what the worker says."""
    os.set_inheritable(descriptor, False)
    worker = Worker(socket.socket(fileno=descriptor))
    _die_with_parent()
    process.inside = True
    start = worker.start()
    worker.watch()
    holder = Holder(worker)
    lease = Lease(start.job, holder, 0.0, NEVER)
    lease.log = ChildLog(worker)
    try:
        value = _run(start, lease, holder)
        raw = None if value is None else portable.encode(value, limit=LARGEST_RESULT, what="result")
        told: Returned | Raised = Returned(raw)
    except DataInvalid as error:
        told = _raised(Reject(str(error)))
    except BaseException as error:
        told = _raised(error)
    holder.tell(lease)
    worker.tell(told)
    sys.stdout.flush()
    sys.stderr.flush()
    # Not by returning: threads that a handler left running must not keep the process.
    os._exit(0)


def _run(start: Start, lease: Lease, holder: Holder) -> Any:
    definition = examine(_find(start.target))
    factory: HandlerFactory | None = None if start.factory is None else _find(start.factory)
    context = JobContext(lease, DataSchema.of(definition.data_type).decode(start.job.data), holder)
    invoke = direct(definition, factory)

    def end_here(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        lease.ending = Ending.CANCELLED
        raise RunEnded

    async def attempt() -> Any:
        task = asyncio.current_task()
        assert task is not None

        def end_task() -> None:
            lease.ending = Ending.CANCELLED
            task.cancel()

        if not definition.blocking:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end_task)
        return await invoke(context)

    if definition.blocking:
        signal.signal(signal.SIGTERM, end_here)
    return asyncio.run(attempt())


def _find(place: Place) -> Any:
    found: Any = _main(place.main) if place.main is not None else importlib.import_module(place.module)
    for part in place.name.split("."):
        found = getattr(found, part)
    return found


def _main(path: str) -> ModuleType:
    """The program itself, imported: what it does only if it is run, it does not do here."""
    if MAIN not in sys.modules:
        spec = importlib.util.spec_from_file_location(MAIN, path, loader=SourceFileLoader(MAIN, path))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[MAIN] = sys.modules["__main__"] = module
        spec.loader.exec_module(module)
    return sys.modules[MAIN]


def _raised(error: BaseException) -> Raised:
    names = [(kind.__module__, kind.__qualname__) for kind in type(error).__mro__ if kind is not object]
    lines = "".join(traceback.format_exception(error))
    delay_us = error.delay_us if isinstance(error, Snooze | RetryAfter) else None
    return Raised(names, portable.sanitize_text(_text(error), LONGEST_TEXT), lines[-LONGEST_TEXT:], delay_us)


def _texts(fields: dict[str, Any]) -> dict[str, str]:
    return {str(key): portable.sanitize_text(_text(value), 2_000) for key, value in fields.items()}


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception as error:
        return f"<its str() raised {type(error).__name__}>"


def _die_with_parent() -> None:
    # The socket tells as well; but a handler that never lets go of the interpreter would keep the thread that listens.
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
