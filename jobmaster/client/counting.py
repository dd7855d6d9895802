"""Counts over the master and all agents: an agent's word for what is queued and running there, the master's for the
rest."""

from datetime import timedelta

from jobmaster.agents_open import Agents
from jobmaster.client.lookup import WITH_AGENT
from jobmaster.contracts.master import MasterStore
from jobmaster.model.states import JobState
from jobmaster.views import Counts, LaneCounts

CAP = 100_000
"""Where counting ended jobs stops, per state and lane: beyond it "more than" is answer enough."""


class _Lane:
    def __init__(self) -> None:
        self.states: dict[JobState, int] = {}
        self.oldest_us: int | None = None
        self.paused: list[str] = []

    def add(self, state: JobState, count: int) -> None:
        if count:
            self.states[state] = self.states.get(state, 0) + count


async def count(master: MasterStore, agents: Agents, cap: int = CAP) -> Counts:
    """All jobs per lane and state. Raises `MasterUnavailable`; an agent that does not answer is named in the result."""
    lanes: dict[str, _Lane] = {}
    answers, failed = await agents.ask(agents.names, lambda agent: agent.stats())
    known = await master.counts(cap)
    entries = await master.agents()
    for name, stats in answers.items():
        now_us = agents.time(name).now_us()
        for there in stats:
            lane = lanes.setdefault(there.lane, _Lane())
            lane.add(JobState.QUEUED, there.ready + there.delayed + there.parked)
            lane.add(JobState.RUNNING, there.leased)
            if there.oldest_ready_us is not None:
                age_us = max(0, now_us - there.oldest_ready_us)
                lane.oldest_us = max(age_us, lane.oldest_us or 0)
            if there.paused:
                lane.paused.append(name)
    for entry in known:
        # What the master has as queued or running are copies of what the agents were asked about.
        if entry.state not in WITH_AGENT or entry.state is JobState.DISPATCHING:
            lanes.setdefault(entry.lane, _Lane()).add(entry.state, entry.count)
    return Counts(
        lanes={
            name: LaneCounts(
                lane=name,
                states=lane.states,
                oldest_ready=None if lane.oldest_us is None else timedelta(microseconds=lane.oldest_us),
                paused_on=tuple(lane.paused),
            )
            for name, lane in sorted(lanes.items())
        },
        capped=any(entry.capped for entry in known),
        unreachable=tuple(sorted(failed)),
        quarantined=tuple(entry.name for entry in entries if entry.quarantined is not None),
    )
