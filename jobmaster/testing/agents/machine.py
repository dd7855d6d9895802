"""AgentMachine: Hypothesis plays with a store and never forgets a lease.

Every claim ever granted is kept, and extends, settles and releases are drawn from all of them, so that most of what a
store hears is stale. After each step the store must be what the model says: nothing lost, nothing back from the dead,
one lease per job, tokens and versions that only rise, every run and every end in the outbox exactly once.

    class Machine(AgentMachine):
        def new_store(self) -> AgentStore:
            return MyStore()

    TestMachine = Machine.TestCase
"""

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from jobmaster.contracts.decisions import release_digest
from jobmaster.contracts.values import (
    AmendAnswer,
    Amendment,
    Control,
    ControlKind,
    ExtendAnswer,
    Extension,
    PutAnswer,
    Release,
    Revocation,
    Revoke,
    RevokeAnswer,
    RevokeKind,
    SettleAnswer,
    Settlement,
)
from jobmaster.model.ids import new_id
from jobmaster.model.job import Job
from jobmaster.model.outcome import RunOutcome
from jobmaster.model.policy import Policy
from jobmaster.model.states import FailReason, JobState
from jobmaster.testing.agents.cases import HANDLERS, HOUR_US, LANE, LONG_US, SHORT, SHORT_US, make_job, put
from jobmaster.testing.agents.model import Expected, Gone, Span, Stand, passed
from jobmaster.testing.agents.observer import EVERYTHING, Observer

POLICIES = (Policy(), Policy(at_most_once=True), Policy(max_crashes=1))
OUTCOMES = (
    RunOutcome.SUCCEEDED,
    RunOutcome.FAILED,
    RunOutcome.RETRY_AT,
    RunOutcome.SNOOZED,
    RunOutcome.INTERRUPTED,
)
TTLS = st.sampled_from([SHORT_US, LONG_US])
DELAYS = st.sampled_from([0, 0, SHORT_US, HOUR_US])
PICK = st.integers(0, 10_000)
EPOCHS = st.sampled_from([-1, 0, 0, 1])


class AgentMachine(Observer):
    """Derive from it with `new_store`."""

    @initialize()
    def begin(self) -> None:
        self.put_new(0, 0, 2, False)

    @rule(policy=st.integers(0, 2), delay_us=DELAYS, priority=st.integers(0, 4), effects=st.booleans())
    def put_new(self, policy: int, delay_us: int, priority: int, effects: bool) -> None:
        now_us = self.run(self.agent.store_now_us())
        job = make_job(
            now_us,
            due_us=now_us + delay_us,
            priority=priority,
            effects=effects,
            policy=POLICIES[policy].encode(),
        )
        answers, now = self.timed(put(self.agent, job))
        assert answers == [PutAnswer.STORED]
        self.ids.append(job.id)
        self._stored(job, now)

    @rule(pick=PICK, epochs=EPOCHS, same=st.booleans(), delay_us=DELAYS)
    def put_again(self, pick: int, epochs: int, same: bool, delay_us: int) -> None:
        job_id = self.any_id(pick)
        here, gone = self.model.here.get(job_id), self.model.gone.get(job_id)
        base = here.put.epoch if here else gone.epoch if gone else 1
        version = self.seen[job_id].version + 1 if job_id in self.seen else 1
        now_us = self.run(self.agent.store_now_us())
        job = make_job(now_us, id=job_id, epoch=max(1, base + epochs), version=version, due_us=now_us + delay_us)
        if not same:
            job = msgspec.structs.replace(job, data=b'"other"')
        expected = PutAnswer.STORED
        if here is not None and here.put.epoch >= job.epoch:
            if here.put.epoch > job.epoch:
                expected = PutAnswer.STALE_EPOCH
            else:
                expected = PutAnswer.DUPLICATE if here.put.data == job.data else PutAnswer.CONFLICT
        elif here is not None and here.stand is Stand.LEASED:
            expected = PutAnswer.CONFLICT
        elif gone is not None and gone.epoch >= job.epoch:
            expected = PutAnswer.TOMBSTONED
        answers, now = self.timed(put(self.agent, job))
        assert answers == [expected]
        if expected is PutAnswer.STORED:
            self._stored(job, now)

    def _stored(self, job: Job, now: Span) -> None:
        policy = msgspec.json.decode(job.policy, type=Policy)
        old = self.model.here.get(job.id)
        due = (job.due_us, job.due_us)
        self.model.here[job.id] = Expected(
            job,
            Stand.READY if passed(due, now) else Stand.DELAYED,
            due,
            job.version,
            job.priority,
            policy.at_most_once,
            policy.max_crashes,
            last=old.last if old else None,
        )

    @rule()
    def advance(self) -> None:
        self.run(self.store.advance(SHORT))

    @rule(policy=st.integers(0, 2), priority=st.integers(0, 4))
    def put_some(self, policy: int, priority: int) -> None:
        for number in range(3):
            self.put_new((policy + number) % 3, 0, priority, False)

    @rule(ttl_us=TTLS)
    def claim_all(self, ttl_us: int) -> None:
        self.claim(100, ttl_us)

    @rule(ttl_us=TTLS)
    def start_all(self, ttl_us: int) -> None:
        """Every worker reports that its run has begun."""
        self.claim(100, ttl_us)
        for lease in [(job.put.id, job.token) for job in self.model.leased()]:
            self._extend(lease, ttl_us, True)

    @rule(outcome=st.sampled_from(OUTCOMES), after_us=DELAYS)
    def settle_all(self, outcome: RunOutcome, after_us: int) -> None:
        """Every worker is done, in the same way."""
        for lease in [(job.put.id, job.token) for job in self.model.leased()]:
            self._settle(lease, outcome, after_us, False)

    @rule(limit=st.integers(1, 5), ttl_us=TTLS)
    def claim(self, limit: int, ttl_us: int) -> None:
        model = self.model
        jobs, now = self.timed(self.agent.claim("w1", {LANE: limit}, HANDLERS, limit, ttl_us))
        assert len(jobs) <= limit
        assert [job.priority for job in jobs] == sorted(job.priority for job in jobs)
        for job in jobs:
            expected = model.here[job.id]
            assert expected.stand is Stand.READY or passed(expected.due, now) is not False
            assert expected.stand is not Stand.LEASED
            assert job.token > model.highest.get(job.id, 0)
            assert (job.state, job.started_us, job.worker) == (JobState.RUNNING, None, "w1")
            assert (job.suspect, job.crash_count, job.attempts) == (
                expected.suspect,
                expected.crashes,
                expected.attempts,
            )
            expected.stand, expected.token, expected.started = Stand.LEASED, job.token, False
            expected.until = (now[0] + ttl_us, now[1] + ttl_us)
            model.highest[job.id] = job.token
            model.granted.append((job.id, job.token))
        if len(jobs) < limit:
            assert not [job for job in model.here.values() if job.stand is Stand.READY]
        elif jobs:
            left = [job.priority for job in model.here.values() if job.stand is Stand.READY]
            assert min(left, default=9) >= jobs[-1].priority

    @precondition(lambda self: self.model.granted)
    @rule(pick=PICK, ttl_us=TTLS, started=st.booleans())
    def extend(self, pick: int, ttl_us: int, started: bool) -> None:
        self._extend(self.any_lease(pick), ttl_us, started)

    def _extend(self, lease: tuple[str, int], ttl_us: int, started: bool) -> None:
        job_id, token = lease
        [answer], now = self.timed(self.agent.extend([Extension(job_id, token, started)], ttl_us))
        job, gone = self.model.holds(job_id, token), self.model.gone.get(job_id)
        if job is None:
            cancelled = gone is not None and gone.cancelled_token == token
            assert answer is (ExtendAnswer.CANCELLED if cancelled else ExtendAnswer.LOST)
            return
        over = passed(job.until, now)
        assert answer is not ExtendAnswer.CANCELLED
        assert over is None or answer is (ExtendAnswer.LOST if over else ExtendAnswer.HELD)
        if answer is ExtendAnswer.HELD:
            job.until = (now[0] + ttl_us, now[1] + ttl_us)
            job.started = job.started or started

    @precondition(lambda self: self.model.granted)
    @rule(pick=PICK, outcome=st.sampled_from(OUTCOMES), after_us=DELAYS, twice=st.booleans())
    def settle(self, pick: int, outcome: RunOutcome, after_us: int, twice: bool) -> None:
        self._settle(self.any_lease(pick), outcome, after_us, twice)

    def _settle(self, lease: tuple[str, int], outcome: RunOutcome, after_us: int, twice: bool) -> None:
        job_id, token = lease
        later = outcome in (RunOutcome.RETRY_AT, RunOutcome.SNOOZED)
        item = Settlement(
            id=job_id,
            token=token,
            outcome=outcome,
            reason=FailReason.EXHAUSTED if outcome is RunOutcome.FAILED else None,
            after_us=after_us if later else 0,
            attempt=1,
            worker="w1",
            host="h",
            started_us=1,
            finished_us=2,
        )
        job = self.model.holds(job_id, token)
        answers, now = self.timed(self.agent.settle([item, item] if twice else [item]))
        if job is None:
            assert set(answers) <= self.model.overtaken(job_id, token, item.digest())
            return
        assert set(answers) == {SettleAnswer.ACCEPTED}
        self.model.runs.add((job_id, token))
        last = (token, item.digest())
        self.model.accepted[job_id, token] = item.digest()
        if outcome is RunOutcome.SUCCEEDED:
            self.model.leave(job_id, JobState.SUCCEEDED, last)
        elif outcome is RunOutcome.FAILED or job.at_most_once:
            self.model.leave(job_id, JobState.FAILED, last)
        else:
            job.last = last
            job.attempts += outcome is RunOutcome.RETRY_AT
            if later:
                self._delay(job, (now[0] + after_us, now[1] + after_us), now)
            else:
                job.stand = Stand.READY

    def _delay(self, job: Expected, due: Span, now: Span) -> None:
        job.due, job.stand, job.soft = due, Stand.DELAYED, passed(due, now) is not False

    @precondition(lambda self: self.model.granted)
    @rule(pick=PICK, started=st.booleans(), twice=st.booleans())
    def release(self, pick: int, started: bool, twice: bool) -> None:
        job_id, token = self.any_lease(pick)
        item = Release(job_id, token, started, "w1", "h", 1 if started else None)
        job = self.model.holds(job_id, token)
        answers, _ = self.timed(self.agent.release([item, item] if twice else [item]))
        if job is None:
            assert set(answers) <= self.model.overtaken(job_id, token, release_digest(item))
            return
        assert set(answers) == {SettleAnswer.ACCEPTED}
        ran = started or job.started
        self.model.accepted[job_id, token] = release_digest(item)
        if ran:
            self.model.runs.add((job_id, token))
        if ran and job.at_most_once:
            self.model.leave(job_id, JobState.FAILED, (token, release_digest(item)))
        else:
            job.last, job.stand = (token, release_digest(item)), Stand.READY

    @rule(limit=st.sampled_from([1, 100]))
    def reap(self, limit: int) -> None:
        leased = list(self.model.leased())
        report, now = self.timed(self.agent.reap(limit))
        lapsed = [job for job in leased if not self._still_leased(job)]
        assert len(lapsed) == report.requeued + len(report.crashed) <= limit
        if len(lapsed) < limit:
            assert not [job for job in self.model.leased() if job not in lapsed and passed(job.until, now)]
        crashed = [job.put.id for job in lapsed if self._lapse(job, now)]
        assert sorted(report.crashed) == sorted(crashed)

    def _still_leased(self, job: Expected) -> bool:
        [found] = self.run(self.agent.find([job.put.id]))
        return found is not None and found.state is JobState.RUNNING

    def _lapse(self, job: Expected, now: Span) -> bool:
        """Whether the lapse ends the job."""
        assert passed(job.until, now) is not False
        job.last = None
        if job.started:
            self.model.runs.add((job.put.id, job.token))
            job.crashes += job.suspect
            if job.at_most_once or (job.suspect and job.crashes >= job.max_crashes):
                self.model.leave(job.put.id, JobState.FAILED, None)
                return True
        job.suspect, job.stand = True, Stand.READY
        return False

    @rule()
    def lapse(self) -> None:
        """Time goes by, every worker is late to say that it goes on, and somebody looks."""
        self.advance()
        for lease in [(job.put.id, job.token) for job in self.model.leased()]:
            self._extend(lease, SHORT_US, True)
        self.reap(100)

    @rule(limit=st.sampled_from([1, 100]))
    def promote(self, limit: int) -> None:
        delayed = [job for job in self.model.here.values() if job.stand is Stand.DELAYED]
        report, now = self.timed(self.agent.promote(limit))
        due = [job for job in delayed if passed(job.due, now)]
        assert min(sum(not job.soft for job in due), limit) <= report.ready <= limit
        for job in due:
            job.soft = True
            if report.ready < limit:
                job.stand = Stand.READY

    @rule(pick=PICK, unseen=st.booleans(), epochs=EPOCHS, kind=st.sampled_from(RevokeKind))
    def revoke(self, pick: int, unseen: bool, epochs: int, kind: RevokeKind) -> None:
        if unseen and pick % 3 == 0:
            self.ids.append(new_id())
            job_id = self.ids[-1]
        else:
            job_id = self.any_id(pick)
        model = self.model
        here, gone = model.here.get(job_id), model.gone.get(job_id)
        epoch = max(1, (here.put.epoch if here else gone.epoch if gone else 1) + epochs)
        [answer] = self.run(self.agent.revoke([Revoke(job_id, epoch, kind)]))
        if here is None:
            self._revoke_absent(job_id, epoch, kind, answer)
        elif here.put.epoch > epoch:
            assert answer == Revocation(RevokeAnswer.SETTLED)
        elif here.stand is Stand.LEASED and kind is RevokeKind.MOVE:
            assert answer.answer is RevokeAnswer.RUNNING
        else:
            running = here.stand is Stand.LEASED
            known = here.put.epoch == epoch
            assert answer.answer is (RevokeAnswer.REVOKED if known else RevokeAnswer.ABSENT)
            assert answer.was_running is running
            if running:
                model.runs.add((job_id, here.token))
            state = JobState.HELD if kind is RevokeKind.MOVE else JobState.CANCELLED
            left = model.leave(job_id, state if known else "superseded", None if running else here.last)
            left.epoch, left.revoked, left.answer = epoch, (epoch, kind), answer
            left.cancelled_token = here.token if running else None

    def _revoke_absent(self, job_id: str, epoch: int, kind: RevokeKind, answer: Revocation) -> None:
        gone = self.model.gone.get(job_id)
        if gone is None or gone.epoch < epoch:
            assert answer == Revocation(RevokeAnswer.ABSENT)
            barred = self.model.gone.setdefault(job_id, Gone(epoch, None))
            barred.epoch, barred.revoked, barred.answer = epoch, (epoch, kind), answer
        elif gone.revoked == (epoch, kind):
            assert answer == gone.answer
        else:
            assert answer == Revocation(RevokeAnswer.SETTLED)

    @rule(pick=PICK, priority=st.integers(0, 4), stale=st.booleans(), delay_us=st.sampled_from([None, 0, HOUR_US]))
    def amend(self, pick: int, priority: int, stale: bool, delay_us: int | None) -> None:
        job_id = self.any_id(pick)
        job = self.model.here.get(job_id)
        version = self.seen[job_id].version if job_id in self.seen else 1
        now_us = self.run(self.agent.store_now_us())
        due_us = None if delay_us is None else now_us + delay_us
        item = Amendment(id=job_id, version=version - stale, priority=priority, due_us=due_us)
        [answer], now = self.timed(self.agent.amend([item]))
        if job is None:
            assert answer is AmendAnswer.UNKNOWN
        elif job.stand is Stand.LEASED:
            assert answer is AmendAnswer.RUNNING
        elif stale:
            assert answer is AmendAnswer.CONFLICT
        else:
            assert answer is AmendAnswer.CHANGED
            job.priority = priority
            if due_us is not None:
                self._delay(job, (due_us, due_us), now)
            elif job.stand is Stand.DELAYED:
                # Touched after its time has come, it may be made ready on the way.
                self._delay(job, job.due, now)

    @rule(kind=st.sampled_from([ControlKind.PAUSE, ControlKind.DRAIN, ControlKind.QUARANTINE]))
    def pause(self, kind: ControlKind) -> None:
        """Not for longer than one claim, or half of all claims would find the store closed."""
        self.run(self.agent.control(Control(kind)))
        assert self.run(self.agent.claim("w1", {LANE: 100}, HANDLERS, 100, LONG_US)) == []
        self.run(self.agent.control(Control(ControlKind.RESUME)))

    @rule(limit=st.integers(1, 5))
    def confirm(self, limit: int) -> None:
        taken = self.run(self.agent.changes(limit))
        self.run(self.agent.confirm([record.seq for record in taken]))
        self.confirmed += taken

    @precondition(lambda self: self.agent.traits.restartable)
    @rule()
    def restart(self) -> None:
        self.run(self.store.restart())
        self.agent = self.run(self.store.open())

    def teardown(self) -> None:
        try:
            self._heal_and_drain()
        finally:
            self.run(self.store.close())
            self.loop.close()

    def _heal_and_drain(self) -> None:
        """Whatever happened, everything left can still be run or taken back."""
        self.advance()
        self.reap(100)
        self.promote(100)
        while any(job.stand is Stand.READY for job in self.model.here.values()):
            self.claim(5, LONG_US)
        self.settle_all(RunOutcome.SUCCEEDED, 0)
        self.run(self.agent.withdraw(None, EVERYTHING))
        for job_id in list(self.model.here):
            self.model.leave(job_id, JobState.HELD, None)
        self.every_job_is_here_once()
        self.the_outbox_holds_every_run_and_end_once()
