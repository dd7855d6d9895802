"""Every exception JobMaster raises on purpose, and the signals a handler raises to steer its own job.

    JobMasterError
    ├── ConfigurationError      all faults of a configuration at once
    ├── NameInvalid             a cluster, agent, lane, worker, handler or profile name; also an id
    ├── KeyInvalid              a schedule, unique, concurrency or rate key, a tag, a title
    ├── DataInvalid             data, results, metadata: every problem with its path
    ├── OptionInvalid           an option of an enqueue call or a policy
    │   └── ExpressionInvalid   a schedule's expression, pointing at the word
    ├── HandlerUnknown          no handler is registered under that name or class
    ├── DefinitionInvalid       a handler, profile or schedule that cannot work as written
    ├── IllegalMove             a state change the table of moves does not have
    ├── JobNotFound, ScheduleNotFound, OperationNotFound, WorkerNotFound
    ├── JobConflict             same id with other content, or another version than expected
    ├── JobFailed, JobCancelled, ResultTimeout      what waiting for a result can come to
    ├── LeaseLost               raised to a handler that acts after its lease ended
    └── StoreError
        ├── Refused             definitely not applied; may be repeated or given up
        │   ├── MasterUnavailable (MasterSealed), AgentUnreachable
        │   ├── UnsafeStore     a store setting that would break a promise
        │   └── SchemaOutdated
        └── Indeterminate       may have been applied; repeat with the same ids and tokens
    HandlerSignal               RetryAfter, Snooze, Reject: not errors, so outside the tree above

Constructors keep their arguments in ``args`` and ``__str__`` words them, so every one of these survives pickle and
copy. Values quoted in a message are escaped and cut: hostile input stays inert and short in logs and on terminals.
"""
# ruff: noqa: N818 - the tree names what happened (`JobNotFound`), the suffix would only lengthen it

import difflib
import math
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import NamedTuple

SHOWN_CHARACTERS = 80
LONGEST_DELAY = timedelta(days=36_525)


def quoted(value: object, limit: int = SHOWN_CHARACTERS) -> str:
    """The value as it may stand in a message: escaped, on one line, cut visibly, never raising."""
    try:
        if isinstance(value, (str, bytes, bytearray)) and len(value) > limit:
            # Cut before repr: escaping a million characters to show eighty is work an attacker can order.
            return f"{value[:limit]!r}… ({len(value):,} {'characters' if isinstance(value, str) else 'bytes'})"
        text = repr(value)
    except Exception:
        return f"<{type(value).__name__} whose repr fails>"
    if len(text) > 4 * limit:
        text = f"{text[: 4 * limit]}…"
    return text if text.isprintable() else ascii(text)[1:-1]


def _sentence(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


class JobMasterError(Exception):
    """The root: catching it catches whatever JobMaster raises on purpose."""


class ConfigurationError(JobMasterError):
    """A configuration that cannot be built; ``faults`` holds all of them, in the order they were found."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        super().__init__(self.faults)

    def __str__(self) -> str:
        if len(self.faults) == 1:
            return self.faults[0]
        lines = (f"  {number}. {fault}" for number, fault in enumerate(self.faults, 1))
        return "\n".join((f"{len(self.faults)} faults in the configuration:", *lines))


class NameInvalid(JobMasterError):
    """A name outside its alphabet or length; ``proposal`` is the nearest allowed one, empty if there is none."""

    def __init__(self, kind: str, value: object, expected: str, proposal: str = "") -> None:
        super().__init__(kind, value, expected, proposal)
        self.kind = kind
        self.value = value
        self.expected = expected
        self.proposal = proposal

    def __str__(self) -> str:
        hint = f"did you mean {quoted(self.proposal)}?" if self.proposal else ""
        return _sentence(f"{self.kind} {quoted(self.value)} is not allowed", f"expected {self.expected}", hint)


class KeyInvalid(JobMasterError):
    """A key, tag or title that a store could not keep and compare byte by byte."""

    def __init__(self, kind: str, value: object, expected: str) -> None:
        super().__init__(kind, value, expected)
        self.kind = kind
        self.value = value
        self.expected = expected

    def __str__(self) -> str:
        return _sentence(f"{self.kind} {quoted(self.value)} is not allowed", f"expected {self.expected}")


class Problem(NamedTuple):
    """One fault in a piece of data: where (``$.user.tags[3]``), and what to do about it."""

    path: str
    message: str


class DataInvalid(JobMasterError):
    """Data that a store could not give back exactly, or that its declared type does not accept."""

    def __init__(self, problems: Iterable[Problem], what: str = "data") -> None:
        self.problems = tuple(Problem(*problem) for problem in problems)
        self.what = what
        super().__init__(self.problems, what)

    def __str__(self) -> str:
        if len(self.problems) == 1:
            problem = self.problems[0]
            return f"{self.what} is not valid at {problem.path}: {problem.message}"
        lines = (f"  {problem.path}: {problem.message}" for problem in self.problems)
        return "\n".join((f"{self.what} is not valid, {len(self.problems)} problems:", *lines))


class OptionInvalid(JobMasterError):
    """An option of a call or policy with a value that has no meaning."""

    def __init__(self, option: str, value: object, expected: str) -> None:
        super().__init__(option, value, expected)
        self.option = option
        self.value = value
        self.expected = expected

    def __str__(self) -> str:
        return f"{self.option}={quoted(self.value)} is not allowed; expected {self.expected}"


class ExpressionInvalid(OptionInvalid):
    """A schedule's expression that has no meaning; `word` is the part at fault, at character `start` of it, from 0."""

    def __init__(self, expression: object, word: object, problem: str, expected: str, start: int = 0) -> None:
        super().__init__("expression", expression, expected)
        self.args = (expression, word, problem, expected, start)
        self.expression = expression
        self.word = word
        self.problem = problem
        self.start = start

    def __str__(self) -> str:
        whole = self.word == self.expression or not self.expression
        where = "" if whole else f"{quoted(self.expression)}, at character {self.start + 1}: "
        return _sentence(f"{where}{quoted(self.word)} {self.problem}", f"expected {self.expected}")


class HandlerUnknown(JobMasterError):
    """No handler of that name is registered on this cluster; ``known`` lists those that are."""

    def __init__(self, handler: str, known: Sequence[str] = (), remedy: str = "") -> None:
        self.handler = handler
        self.known = tuple(known)
        self.remedy = remedy
        super().__init__(handler, self.known, remedy)

    def __str__(self) -> str:
        near = difflib.get_close_matches(self.handler[:SHOWN_CHARACTERS], self.known, n=1)
        hint = f"did you mean {quoted(near[0])}?" if near else ""
        remedy = self.remedy or "register it with ClusterBuilder.add_handlers(...)"
        return _sentence(f"handler {quoted(self.handler)} is not registered", hint, remedy)


class DefinitionInvalid(JobMasterError):
    """A handler, profile or schedule that cannot work as it is written."""

    def __init__(self, subject: str, fault: str, remedy: str = "") -> None:
        super().__init__(subject, fault, remedy)
        self.subject = subject
        self.fault = fault
        self.remedy = remedy

    def __str__(self) -> str:
        return _sentence(f"{self.subject}: {self.fault}", self.remedy)


class IllegalMove(JobMasterError):
    """A state change outside the table of moves; nothing was changed."""

    def __init__(self, job_id: str, from_state: str | None, to_state: str, allowed: Iterable[str] = ()) -> None:
        self.job_id = job_id
        self.from_state = "new" if from_state is None else str(from_state)
        self.to_state = str(to_state)
        self.allowed = tuple(str(state) for state in allowed)
        super().__init__(job_id, self.from_state, self.to_state, self.allowed)

    def __str__(self) -> str:
        allowed = f"allowed from there: {', '.join(self.allowed)}" if self.allowed else ""
        return _sentence(f"job {self.job_id} cannot go from {self.from_state} to {self.to_state}", allowed)


class JobNotFound(JobMasterError):
    """Neither the master nor any agent that could hold the job knows this id."""

    def __init__(self, job_id: str, hint: str = "") -> None:
        super().__init__(job_id, hint)
        self.job_id = job_id
        self.hint = hint

    def __str__(self) -> str:
        return _sentence(f"job {quoted(self.job_id)} was not found", self.hint)


class ScheduleNotFound(JobMasterError):
    """No schedule has this key."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        return f"schedule {quoted(self.key)} was not found; `jobmaster schedules list` shows those there are"


class OperationNotFound(JobMasterError):
    """No operation has this id, or not any more."""

    def __init__(self, operation_id: str) -> None:
        super().__init__(operation_id)
        self.operation_id = operation_id

    def __str__(self) -> str:
        return f"operation {quoted(self.operation_id)} was not found; `jobmaster operations list` shows those there are"


class WorkerNotFound(JobMasterError):
    """No worker of this id or name is registered on any agent that answered."""

    def __init__(self, worker: str, known: Sequence[str] = ()) -> None:
        self.worker = worker
        self.known = tuple(known)
        super().__init__(worker, self.known)

    def __str__(self) -> str:
        near = difflib.get_close_matches(self.worker[:SHOWN_CHARACTERS], self.known, n=1)
        hint = f"did you mean {quoted(near[0])}?" if near else "`jobmaster workers list` shows those there are"
        return _sentence(f"worker {quoted(self.worker)} was not found", hint)


class JobConflict(JobMasterError):
    """The id exists with other content, or the job is at another version than the caller expected."""

    def __init__(self, job_id: str, conflict: str, remedy: str = "") -> None:
        super().__init__(job_id, conflict, remedy)
        self.job_id = job_id
        self.conflict = conflict
        self.remedy = remedy

    def __str__(self) -> str:
        return _sentence(f"job {quoted(self.job_id)}: {self.conflict}", self.remedy)


class JobFailed(JobMasterError):
    """The job ended ``failed``; ``traceback`` is the last run's, as the worker recorded it."""

    def __init__(
        self,
        job_id: str,
        reason: str,
        error_type: str | None = None,
        message: str | None = None,
        traceback: str | None = None,
    ) -> None:
        self.job_id = job_id
        self.reason = str(reason)
        self.error_type = error_type
        self.message = message
        self.traceback = traceback
        super().__init__(job_id, self.reason, error_type, message, traceback)

    def __str__(self) -> str:
        error = ": ".join(part for part in (self.error_type, self.message) if part)
        return _sentence(f"job {self.job_id} failed ({self.reason})" + (f": {error}" if error else ""))


class JobCancelled(JobMasterError):
    """The job was cancelled, so there is no result to wait for."""

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = job_id

    def __str__(self) -> str:
        return f"job {self.job_id} was cancelled"


class ResultTimeout(JobMasterError):
    """The job was not finished within ``timeout`` seconds; it goes on, and may be waited for again."""

    def __init__(self, job_id: str, timeout: float) -> None:
        super().__init__(job_id, timeout)
        self.job_id = job_id
        self.timeout = timeout

    def __str__(self) -> str:
        return f"job {self.job_id} was not finished after {self.timeout:g} s; it goes on, wait again or cancel it"


class LeaseLost(JobMasterError):
    """A handler acted on its job after its lease had ended; the action was not applied."""

    def __init__(self, job_id: str, token: int) -> None:
        super().__init__(job_id, token)
        self.job_id = job_id
        self.token = token

    def __str__(self) -> str:
        return f"job {self.job_id} is no longer leased to this run (token {self.token}); stop, nothing was applied"


class StoreError(JobMasterError):
    """A master or agent did not answer a call as asked; it is always one of the two kinds below."""


class Refused(StoreError):
    """The call was definitely not applied."""


class Indeterminate(StoreError):
    """The call may have been applied; repeating it with the same ids and tokens is safe."""

    def __init__(self, problem: str, job_id: str | None = None, agent: str | None = None) -> None:
        super().__init__(problem, job_id, agent)
        self.problem = problem
        self.job_id = job_id
        self.agent = agent

    def __str__(self) -> str:
        job = f"job {self.job_id}" if self.job_id else ""
        agent = f"agent {quoted(self.agent)}" if self.agent else ""
        subject = " on ".join(part for part in (job, agent) if part)
        return _sentence(
            f"{subject}: {self.problem}" if subject else self.problem,
            "it may have been applied, repeat it with the same id",
        )


class MasterUnavailable(Refused):
    """The master did not take the call; work already on agents goes on without it."""

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return _sentence(f"the master is not available: {self.problem}", self.remedy)


class MasterSealed(MasterUnavailable):
    """The master was moved to another database and takes no write any more. Agents and workers go on; what they have
    recorded waits for a process that is told of the new one."""


class AgentUnreachable(Refused):
    """The agent's store did not take the call."""

    def __init__(self, agent: str, problem: str, remedy: str = "") -> None:
        super().__init__(agent, problem, remedy)
        self.agent = agent
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return _sentence(f"agent {quoted(self.agent)} is unreachable: {self.problem}", self.remedy)


class UnsafeStore(Refused):
    """A store runs with a setting under which JobMaster could not keep the named promise."""

    def __init__(self, store: str, setting: str, found: object, remedy: str, promise: str) -> None:
        super().__init__(store, setting, found, remedy, promise)
        self.store = store
        self.setting = setting
        self.found = found
        self.remedy = remedy
        self.promise = promise

    def __str__(self) -> str:
        return f"{self.store}: {self.setting} is {quoted(self.found)}; {self.remedy}, otherwise {self.promise}"


class SchemaOutdated(Refused):
    """The store's schema is at another version than this code works with; nothing was read or written."""

    def __init__(self, store: str, found: object, expected: object, remedy: str = "run `jobmaster migrate`") -> None:
        super().__init__(store, found, expected, remedy)
        self.store = store
        self.found = found
        self.expected = expected
        self.remedy = remedy

    def __str__(self) -> str:
        versions = f"schema version is {quoted(self.found)}, expected {quoted(self.expected)}"
        return _sentence(f"{self.store}: {versions}", self.remedy)


class HandlerSignal(Exception):
    """Raised by a handler to say how its run ends; never an error of JobMaster's."""


class _Later(HandlerSignal):
    def __init__(self, delay: timedelta | float, reason: str = "") -> None:
        if isinstance(delay, (int, float)) and not isinstance(delay, bool) and math.isfinite(delay):
            seconds = min(max(delay, -1.0), LONGEST_DELAY.total_seconds() + 1)
            wait: object = timedelta(seconds=seconds)
        else:
            wait = delay
        if not isinstance(wait, timedelta) or not timedelta(0) <= wait <= LONGEST_DELAY:
            raise OptionInvalid(
                f"{type(self).__name__}(delay)", delay, "a timedelta or seconds, from 0 to 36,525 days (100 years)"
            )
        super().__init__(wait, reason)
        self.delay = wait
        self.reason = reason

    @property
    def delay_us(self) -> int:
        return self.delay // timedelta(microseconds=1)

    def __str__(self) -> str:
        return _sentence(f"again in {self.delay}", self.reason)


class RetryAfter(_Later):
    """This attempt failed; try again after ``delay``, whatever the retry policy says, while attempts are left."""


class Snooze(_Later):
    """Not now: run again after ``delay``; no attempt is used up."""


class Reject(HandlerSignal):
    """This job can never succeed: it ends ``failed(rejected)`` at once, without a retry."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason or "rejected by its handler"
