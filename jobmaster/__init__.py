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
        ExpressionInvalid,
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
        MasterSealed,
        MasterUnavailable,
        NameInvalid,
        OperationNotFound,
        OptionInvalid,
        Refused,
        Reject,
        ResultTimeout,
        RetryAfter,
        ScheduleNotFound,
        Snooze,
        StoreError,
        WorkerNotFound,
    )
    from jobmaster.model.priority import Priority
    from jobmaster.model.retry import Retry
    from jobmaster.model.states import FailReason, JobState
    from jobmaster.profiles import Schedules, StaticProfile, scheduled
    from jobmaster.recurrence import Recurrence, cron
    from jobmaster.runtime import Runtime
    from jobmaster.schedule_views import OccurrenceInfo, ScheduleChange, ScheduleInfo
    from jobmaster.scheduler import Scheduler
    from jobmaster.views import CancelOutcome, CancelResult, Counts, JobInfo, JobPage, RunInfo
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
    "ExpressionInvalid",
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
    "MasterSealed",
    "MasterUnavailable",
    "NameInvalid",
    "OccurrenceInfo",
    "OperationNotFound",
    "OptionInvalid",
    "Priority",
    "Recurrence",
    "Refused",
    "Reject",
    "ResultTimeout",
    "Retry",
    "RetryAfter",
    "RunInfo",
    "Runtime",
    "ScheduleChange",
    "ScheduleInfo",
    "ScheduleNotFound",
    "Scheduler",
    "Schedules",
    "Snooze",
    "StaticProfile",
    "StoreError",
    "WorkerHandle",
    "WorkerNotFound",
    "WorkerSection",
    "__version__",
    "cron",
    "job",
    "scheduled",
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
    "OccurrenceInfo": "jobmaster.schedule_views",
    "Priority": "jobmaster.model.priority",
    "Recurrence": "jobmaster.recurrence",
    "Retry": "jobmaster.model.retry",
    "RunInfo": "jobmaster.views",
    "Runtime": "jobmaster.runtime",
    "ScheduleChange": "jobmaster.schedule_views",
    "ScheduleInfo": "jobmaster.schedule_views",
    "Scheduler": "jobmaster.scheduler",
    "Schedules": "jobmaster.profiles",
    "StaticProfile": "jobmaster.profiles",
    "WorkerHandle": "jobmaster.crew",
    "WorkerSection": "jobmaster.builder_sections",
    "cron": "jobmaster.recurrence",
    "job": "jobmaster.handler",
    "scheduled": "jobmaster.profiles",
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
