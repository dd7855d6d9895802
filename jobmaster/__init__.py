"""JobMaster: background jobs for Python, from one SQLite file to many agents under one control plane.

The public names. Each is loaded when it is first used, so that a program that only enqueues does not pay for the rest.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobmaster.builder import ClusterBuilder
    from jobmaster.builder_sections import AgentSection, WorkerSection
    from jobmaster.cluster import Cluster
    from jobmaster.crew import WorkerHandle
    from jobmaster.enqueue import Enqueue
    from jobmaster.handle import JobHandle, JobHandles
    from jobmaster.handler import JobHandler, job
    from jobmaster.listeners import EventKind, JobEvent
    from jobmaster.model.errors import (
        AgentUnreachable,
        ConfigurationError,
        DataInvalid,
        DefinitionInvalid,
        HandlerUnknown,
        IllegalMove,
        Indeterminate,
        JobCancelled,
        JobConflict,
        JobFailed,
        JobMasterError,
        JobNotFound,
        KeyInvalid,
        LeaseLost,
        MasterUnavailable,
        NameInvalid,
        OptionInvalid,
        Refused,
        Reject,
        ResultTimeout,
        RetryAfter,
        Snooze,
        StoreError,
    )
    from jobmaster.model.priority import Priority
    from jobmaster.model.retry import Retry
    from jobmaster.model.states import FailReason, JobState
    from jobmaster.runtime import Runtime
    from jobmaster.scheduler import Scheduler
    from jobmaster.views import CancelOutcome, CancelResult, Counts, JobInfo, JobPage, RunInfo, ScheduleInfo
    from jobmaster.worker.context import JobContext

__version__ = "0.1.0"

__all__ = [
    "AgentSection",
    "AgentUnreachable",
    "CancelOutcome",
    "CancelResult",
    "Cluster",
    "ClusterBuilder",
    "ConfigurationError",
    "Counts",
    "DataInvalid",
    "DefinitionInvalid",
    "Enqueue",
    "EventKind",
    "FailReason",
    "HandlerUnknown",
    "IllegalMove",
    "Indeterminate",
    "JobCancelled",
    "JobConflict",
    "JobContext",
    "JobEvent",
    "JobFailed",
    "JobHandle",
    "JobHandler",
    "JobHandles",
    "JobInfo",
    "JobMasterError",
    "JobNotFound",
    "JobPage",
    "JobState",
    "KeyInvalid",
    "LeaseLost",
    "MasterUnavailable",
    "NameInvalid",
    "OptionInvalid",
    "Priority",
    "Refused",
    "Reject",
    "ResultTimeout",
    "Retry",
    "RetryAfter",
    "RunInfo",
    "Runtime",
    "ScheduleInfo",
    "Scheduler",
    "Snooze",
    "StoreError",
    "WorkerHandle",
    "WorkerSection",
    "__version__",
    "job",
]

_ELSEWHERE = {
    "AgentSection": "jobmaster.builder_sections",
    "CancelOutcome": "jobmaster.views",
    "CancelResult": "jobmaster.views",
    "Cluster": "jobmaster.cluster",
    "ClusterBuilder": "jobmaster.builder",
    "Counts": "jobmaster.views",
    "Enqueue": "jobmaster.enqueue",
    "EventKind": "jobmaster.listeners",
    "FailReason": "jobmaster.model.states",
    "JobContext": "jobmaster.worker.context",
    "JobEvent": "jobmaster.listeners",
    "JobHandle": "jobmaster.handle",
    "JobHandler": "jobmaster.handler",
    "JobHandles": "jobmaster.handle",
    "JobInfo": "jobmaster.views",
    "JobPage": "jobmaster.views",
    "JobState": "jobmaster.model.states",
    "Priority": "jobmaster.model.priority",
    "Retry": "jobmaster.model.retry",
    "RunInfo": "jobmaster.views",
    "Runtime": "jobmaster.runtime",
    "ScheduleInfo": "jobmaster.views",
    "Scheduler": "jobmaster.scheduler",
    "WorkerHandle": "jobmaster.crew",
    "WorkerSection": "jobmaster.builder_sections",
    "job": "jobmaster.handler",
}
"""Where a name is defined; those not listed are errors."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_ELSEWHERE.get(name, "jobmaster.model.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
