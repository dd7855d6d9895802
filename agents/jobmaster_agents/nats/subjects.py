"""Subjects and stream names of one agent. Names keep to `[a-z0-9_-]`, so none of them can hold a dot or a wildcard."""

from jobmaster.model.priority import Priority

WAITING_LANE = "@"
"""Before a lane's name while a job waits for its time; no name of a lane, so nobody is given it."""
EXPIRY_CONSUMER = "expiry"
"""The consumer that hears of jobs past their time; those of lanes end in a priority."""
PRIORITIES = tuple(int(priority) for priority in Priority)


class Subjects:
    """Where the jobs, outcomes and settings of one agent live."""

    def __init__(self, cluster: str, agent: str) -> None:
        self.prefix = f"jm.{cluster}.{agent}"
        # A name may hold `_` and `-`; `+` keeps two pairs of names that join to one apart.
        self.jobs_stream = f"JOBS+{cluster}+{agent}"
        self.out_stream = f"OUT+{cluster}+{agent}"
        self.ctl_stream = f"CTL+{cluster}+{agent}"
        self.jobs = f"{self.prefix}.job.>"
        self.expiries = f"{self.prefix}.exp.>"
        self.expired = f"{self.prefix}.exp.due.>"
        self.outs = f"{self.prefix}.out.>"
        self.ctls = f"{self.prefix}.ctl.>"
        self.cards = f"{self.prefix}.ctl.worker.*"
        self.wakes = f"{self.prefix}.wake.>"
        self.wake_all = f"{self.prefix}.wake-all"
        self.endings = f"{self.prefix}.ended.>"
        self.state = f"{self.prefix}.ctl.state"
        self.confirmed = f"{self.prefix}.ctl.confirmed"
        self.holds = f"{self.prefix}.ctl.hold.>"

    def job(self, lane: str, priority: int, job_id: str, counter: int) -> str:
        """A job in its lane. `counter` rises with every time it is published anew."""
        return f"{self.prefix}.job.{lane}.{priority}.{job_id}.{counter}"

    def waiting(self, lane: str, priority: int, job_id: str, counter: int) -> str:
        """A job that waits for its time."""
        return self.job(WAITING_LANE + lane, priority, job_id, counter)

    def waiting_in(self, lane: str) -> str:
        """All jobs of a lane that wait for their time."""
        return f"{self.prefix}.job.{WAITING_LANE}{lane}.>"

    def lane(self, lane: str, priority: int | str) -> str:
        """All jobs of a lane and priority: what its consumer hears."""
        return f"{self.prefix}.job.{lane}.{priority}.>"

    def anywhere(self, job_id: str) -> str:
        """A job wherever it stands."""
        return f"{self.prefix}.job.*.*.{job_id}.*"

    def expiry(self, job_id: str) -> tuple[str, str]:
        """Where a job's expiry waits for its time, and where it is told then."""
        return f"{self.prefix}.exp.{WAITING_LANE}.{job_id}", f"{self.prefix}.exp.due.{job_id}"

    def out(self, job_id: str) -> str:
        """The outcomes of a job: its fence."""
        return f"{self.prefix}.out.{job_id}"

    def hold(self, owner: str, number: int) -> str:
        """One batch of leases."""
        return f"{self.prefix}.ctl.hold.{owner}.{number}"

    def card(self, worker: str) -> str:
        """What is known of a worker, by a token made of its id."""
        return f"{self.prefix}.ctl.worker.{worker}"

    def signals(self, worker: str) -> str:
        """What is left for a worker stands one level below."""
        return f"{self.prefix}.ctl.signal.{worker}"

    def damaged(self, job_id: str) -> str:
        """Where a job's message is set aside that nobody could read."""
        return f"{self.prefix}.ctl.damaged.{job_id}"

    def wake(self, lane: str) -> str:
        """Where it is heard, one level below, that a lane has something new."""
        return f"{self.prefix}.wake.{lane}"

    def ended(self, job_id: str) -> str:
        """Where a job's records are heard of."""
        return f"{self.prefix}.ended.{job_id}"

    def job_id(self, subject: str) -> str:
        """Of a subject made by `job`."""
        return subject.rsplit(".", 2)[1]

    def counter(self, subject: str) -> int:
        """Of a subject made by `job`."""
        return int(subject.rsplit(".", 1)[1])

    def consumer(self, lane: str, priority: int) -> str:
        """The durable consumer of a lane and priority."""
        return f"{lane}_{priority}"

    def waiting_consumer(self, lane: str) -> str:
        """The one that nobody asks: it counts the jobs of a lane that wait for their time."""
        return f"{lane}_{WAITING_LANE}"


def lane_of(subject: str) -> str:
    """The lane in a subject made by `job` or `waiting`."""
    return subject.split(".", 5)[4].removeprefix(WAITING_LANE)
