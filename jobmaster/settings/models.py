"""The settings themselves: frozen models whose field names are the TOML keys. Durations are seconds, sizes bytes.

Their `repr` never shows a URL or an option of a store, as both may carry a password.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from jobmaster.model.errors import OptionInvalid, quoted
from jobmaster.model.modes import WorkerMode as WorkerMode
from jobmaster.model.policy import Policy
from jobmaster.model.priority import LaneOrder
from jobmaster.model.retry import Backoff, Jitter, Retry
from jobmaster.settings import checks
from jobmaster.settings.frozen import FrozenTable
from jobmaster.settings.units import Count, Duration, PositiveDuration, Size

ENVIRONMENT_PREFIX = "JOBMASTER_"
SEPARATOR = "__"
"""Between the parts of a variable's name, as parts may hold a single underscore."""
MICROSECONDS = 1_000_000
DEFAULT_NAME = "jobmaster"
DEFAULT_MASTER_URL = "sqlite:///jobmaster.db"
STANDALONE_AGENT = "standalone"


class Section(BaseModel):
    """What all settings models share."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=True)


Options = Annotated[Mapping[str, Any], AfterValidator(FrozenTable)]


class StoreSettings(Section):
    """One store: the master's, or an agent's."""

    url: Annotated[SecretStr, AfterValidator(checks.store_url)] = Field(
        description="Where the store is; the scheme chooses what talks to it."
    )
    options: Options = Field(default={}, repr=False, description="Options of that store, passed on as they are.")

    @property
    def scheme(self) -> str:
        """Lower case, without a driver: `postgresql+asyncpg://…` is `postgresql`."""
        return checks.scheme_of(self.url.get_secret_value())

    @property
    def shown_url(self) -> str:
        """The URL as it may stand in a log: without password, user and query."""
        return checks.redacted(self.url.get_secret_value())


class AgentSettings(StoreSettings):
    """A named transport connection that holds jobs in flight."""

    name: Annotated[str, AfterValidator(checks.agent_name)] = Field(description="Unique, and never to be changed.")
    redispatch_after: PositiveDuration | None = Field(
        default=None,
        description="Place its jobs elsewhere once nobody has reached it for that long, though one may run twice then; "
        "unless given they wait for it.",
    )


class WorkerSettings(Section):
    """A running executor, attached to one agent."""

    name: Annotated[str, AfterValidator(checks.worker_name)] | None = Field(
        default=None, description="Shown in lists and part of the worker's id; the host's name unless given."
    )
    agent: str = Field(default="", description="The agent it is attached to; with one agent, that one.")
    slots: Annotated[Count, Field(ge=1, le=10_000)] = Field(
        default=10, description="Jobs it runs at a time, beside those of lanes with slots of their own."
    )
    lanes: Annotated[
        Mapping[Annotated[str, AfterValidator(checks.lane_name)], Annotated[Count, Field(ge=1)] | None],
        BeforeValidator(checks.lanes_of),
        AfterValidator(FrozenTable),
    ] = Field(
        default={"default": None},
        description="The lanes it serves: a list, or a table. A lane with a number runs in that many slots of its own; "
        '`"shared"`: in the worker\'s.',
    )
    prefetch: Annotated[Count, Field(ge=0, le=10_000)] | None = Field(
        default=None, description="Jobs it claims beyond its slots; as its handlers' speed suggests unless given."
    )
    weights: Annotated[Mapping[str, Annotated[Count, Field(ge=1, le=1_000)]], AfterValidator(FrozenTable)] = Field(
        default={}, description="How lanes that share slots divide them while all have jobs; 1 for those not named."
    )
    lane_order: LaneOrder = Field(
        default=LaneOrder.WEIGHTED,
        description="`weighted`, or `strict`: lanes in the order in which they are named, the later ones together "
        "get an eighth.",
    )
    mode: WorkerMode = Field(
        default=WorkerMode.FULL,
        description="`full`; `execution`: without the cluster's duties; `coordinator`: nothing but these; `drain`: as "
        "`execution`, until nothing is left.",
    )

    @model_validator(mode="after")
    def _serves_a_lane(self) -> Self:
        faults = [] if self.lanes else ['lanes: expected at least one lane, such as "default"']
        shared = [lane for lane, own in self.lanes.items() if own is None]
        faults += [
            f"weights: {quoted(lane)} is not allowed; expected one of the lanes that share slots: {', '.join(shared)}"
            for lane in self.weights
            if lane not in shared
        ]
        checks.raise_if(faults)
        return self


class Timings(Section):
    """Intervals and time limits of the machinery."""

    lease_ttl: PositiveDuration = Field(default=15.0, description="How long a lease lasts without being extended.")
    lease_beat: PositiveDuration = Field(default=5.0, description="How often leases are extended.")
    lease_margin: PositiveDuration = Field(
        default=2.5, description="How long before its end a lease is no longer trusted."
    )
    worker_heartbeat: PositiveDuration = Field(default=3.0, description="How often a worker says that it lives.")
    worker_dead_after: PositiveDuration = Field(
        default=15.0, description="Silence after which a worker counts as dead."
    )
    poll: PositiveDuration = Field(default=1.0, description="How often an idle worker looks for jobs, ± 25 %.")
    shutdown: Duration = Field(default=30.0, description="How long running jobs may go on after a stop was asked for.")
    transient_threshold: PositiveDuration = Field(
        default=600.0, description="Jobs due later than this are held on the master until then."
    )
    plan_ahead: Duration = Field(
        default=60.0, description="How early a tick of a schedule may become a job, where its jobs may overlap."
    )
    retire_after: Duration = Field(
        default=3_600.0, description="How long a schedule that left the code goes on, should it come back."
    )
    starvation_after: PositiveDuration | None = Field(
        default=600.0,
        description="A job that was ready for so long behind others of its lane counts at least as `LOW`, after twice "
        'that as `MEDIUM`, and so on; `"never"` for strict priorities.',
    )
    audit_lag: PositiveDuration = Field(
        default=2.0, description="Age at which a job in flight is copied to the master."
    )
    retention_days: Annotated[float, Field(gt=0, le=36_525)] | None = Field(
        default=30.0, description='How long ended jobs are kept; `"forever"` for no end.'
    )

    @model_validator(mode="before")
    @classmethod
    def _forever(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        words = {"retention_days": "forever", "starvation_after": "never"}
        return {key: None if words.get(key, values) == value else value for key, value in values.items()}

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        checks.raise_if(checks.timing_faults(self))
        return self


Kept = Annotated[float, Field(gt=0, le=36_525)] | Literal["forever"]
"""Days."""


class KeptSettings(Section):
    """How long ended jobs are kept, by the state in which they ended."""

    succeeded: Kept | None = Field(
        default=None, description='Days for which they are kept, or `"forever"`; else `timings.retention_days`.'
    )
    failed: Kept | None = Field(default=None, description="The same of those that failed.")
    cancelled: Kept | None = Field(default=None, description="The same of those that were cancelled.")


class RetentionSettings(KeptSettings):
    """The same, and for jobs of single handlers."""

    handlers: Annotated[
        Mapping[Annotated[str, AfterValidator(checks.handler_name)], KeptSettings], AfterValidator(FrozenTable)
    ] = Field(
        default={},
        description="The same for jobs of one handler, by its name: `[retention.handlers.send-welcome]`.",
    )


class Limits(Section):
    """Sizes beyond which a payload is refused, and a text cut visibly."""

    data_bytes: Size = Field(default=128 << 10, le=64 << 20, description="A job's data; more is refused at enqueue.")
    result_bytes: Size = Field(default=64 << 10, le=64 << 20, description="A result; more fails the job.")
    error_bytes: Size = Field(
        default=64 << 10, le=64 << 20, description="Message and traceback of an error; the rest is cut."
    )


class RetrySettings(Section):
    """How failed attempts are repeated, where neither call nor handler says."""

    kind: Backoff = Field(
        default=Backoff.EXPONENTIAL, description="How delays grow: `fixed`, `linear` or `exponential`."
    )
    base: Duration = Field(default=5.0, description="The first delay.")
    factor: Annotated[float, Field(ge=1, allow_inf_nan=False)] = Field(
        default=2.0, description="Growth, if exponential."
    )
    cap: Duration = Field(default=3_600.0, description="The longest delay.")
    jitter: Jitter = Field(default=Jitter.FULL, description="`full`: a delay is drawn from 0 to its value; or `none`.")
    max_attempts: Annotated[Count, Field(ge=1)] = Field(default=4, description="Attempts, the first one included.")
    on: tuple[str, ...] = Field(
        default=(), description="Retry only these exception types, by qualified name; empty: all."
    )
    never_on: tuple[str, ...] = Field(default=(), description="Fail at once on these; stronger than `on`.")

    @model_validator(mode="after")
    def _is_a_retry(self) -> Self:
        try:
            self.retry()
        except OptionInvalid as error:
            raise ValueError(str(error)) from None
        return self

    def retry(self) -> Retry:
        """The same as a policy's value."""
        return Retry(
            kind=self.kind,
            base_us=round(self.base * MICROSECONDS),
            factor=self.factor,
            cap_us=round(self.cap * MICROSECONDS),
            jitter=self.jitter,
            max_attempts=self.max_attempts,
            on=self.on,
            never_on=self.never_on,
        )


class Defaults(Section):
    """What holds for jobs and workers that do not say otherwise."""

    timeout: PositiveDuration = Field(default=300.0, description="How long one run may take.")
    grace: Duration = Field(default=5.0, description="How long a run may take to end once it was cancelled.")
    retry: Annotated[RetrySettings, BeforeValidator(checks.retry_of)] = Field(
        default=RetrySettings(), description="How failed attempts are repeated."
    )
    max_crashes: Annotated[Count, Field(ge=1, le=1_000)] = Field(
        default=3, description="Crashes before a job is given up."
    )
    max_snoozes: Annotated[Count, Field(ge=0, le=1_000_000)] = Field(default=1_000, description="Snoozes before that.")
    max_interrupts: Annotated[Count, Field(ge=0, le=1_000_000)] = Field(
        default=100, description="Interruptions before that."
    )
    slots: Annotated[Count, Field(ge=1, le=10_000)] = Field(
        default=10, description="Slots of a worker that names none."
    )
    prefetch: Annotated[Count, Field(ge=0, le=10_000)] | None = Field(
        default=None, description="Prefetch of such a worker."
    )

    def policy(self) -> Policy:
        """The policy of a job for which neither its handler nor its caller chose anything."""
        return Policy(
            timeout_us=round(self.timeout * MICROSECONDS),
            grace_us=round(self.grace * MICROSECONDS),
            retry=self.retry.retry(),
            max_crashes=self.max_crashes,
            max_snoozes=self.max_snoozes,
            max_interrupts=self.max_interrupts,
        )


class LogSettings(Section):
    """What the process writes about itself."""

    format: Annotated[Literal["auto", "console", "json"], BeforeValidator(checks.lower)] = Field(
        default="auto", description="`auto`: console on a terminal, else JSON."
    )
    level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(checks.lower)] = Field(
        default="info", description="The least level written."
    )


class ClusterSettings(Section):
    """One cluster, complete and checked."""

    name: Annotated[str, AfterValidator(checks.cluster_name)] = Field(
        default=DEFAULT_NAME, description="The cluster; stores shared by several keep them apart by it."
    )
    app: Annotated[str, AfterValidator(checks.reference)] | None = Field(
        default=None, description="Where the cluster is built, `module:name`: what `jobmaster` commands import."
    )
    timezone: Annotated[str, AfterValidator(checks.time_zone)] = Field(
        default="UTC", description="IANA time zone of schedules that name none."
    )
    master: StoreSettings = Field(default=StoreSettings(url=SecretStr(DEFAULT_MASTER_URL)), description="The master.")
    agents: Annotated[Mapping[str, AgentSettings], AfterValidator(FrozenTable)] = Field(
        default={}, description="The agents by name."
    )
    workers: tuple[WorkerSettings, ...] = Field(default=(), description="The workers of this process.")
    timings: Timings = Timings()
    retention: RetentionSettings = RetentionSettings()
    limits: Limits = Limits()
    defaults: Defaults = Defaults()
    log: LogSettings = LogSettings()

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        workers = [(worker.agent, worker.name) for worker in self.workers]
        waits = {name: agent.redispatch_after for name, agent in self.agents.items()}
        faults = checks.cluster_faults(self.agents, workers)
        checks.raise_if([*faults, *checks.redispatch_faults(waits, self.timings.lease_ttl)])
        return self
