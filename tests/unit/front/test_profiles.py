"""Schedules declared in code: what `build()` makes of them."""

from datetime import timedelta
from typing import Any

import pytest

from jobmaster import (
    ClusterBuilder,
    ConfigurationError,
    JobContext,
    JobHandler,
    Schedules,
    StaticProfile,
    cron,
    scheduled,
)
from jobmaster.recurrence import Recurrence


class Work(JobHandler):
    async def execute(self, job: JobContext) -> None: ...


@scheduled(timedelta(minutes=5), {"a": 1}, overlap="skip")
class Pulse(JobHandler):
    async def execute(self, job: JobContext) -> None: ...


class Quiet(Pulse):
    """Inherits the work, not the schedule."""


class Nightly(StaticProfile):
    profile_id = "nightly"

    def configure(self, schedules: Schedules) -> None:
        schedules.add(
            Work, cron("0 3 * * *", timezone="Europe/Berlin"), {"x": 1}, key="b", misfire="skip", lane="night"
        )
        schedules.add("work", "every day at 04:00", key="a")


def builder(*profiles: Any) -> ClusterBuilder:
    return ClusterBuilder("shop").ignore_environment().add_handlers(Work, Pulse, Quiet).add_profiles(*profiles)


def faults(*profiles: Any) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        builder(*profiles).build()
    return list(caught.value.faults)


def profile(*declared: tuple[Any, ...], name: Any = "broken", **options: Any) -> type[StaticProfile]:
    class Broken(StaticProfile):
        profile_id = name

        def configure(self, schedules: Schedules) -> None:
            for handler, when, key in declared:
                schedules.add(handler, when, key=key, **options)

    return Broken


def test_a_cluster_knows_what_its_code_declares() -> None:
    declared = builder(Nightly).build().declared
    assert sorted(declared) == ["nightly", "pulse"]
    (b, a) = declared["nightly"]
    assert (b.key, b.handler, b.lane, b.profile, b.data) == ("b", "work", "night", "nightly", b'{"x":1}')
    assert Recurrence.from_json(b.recurrence) == cron("0 3 * * *", timezone="Europe/Berlin")
    assert (a.key, b.terms.misfire, a.terms.misfire) == ("a", "skip", "latest")
    (pulse,) = declared["pulse"]
    assert (pulse.key, pulse.terms.overlap, pulse.data) == ("pulse", "skip", b'{"a":1}')


def test_every_fault_of_every_profile_is_told_at_once() -> None:
    class Loud(StaticProfile):
        profile_id = "loud"

        def configure(self, schedules: Schedules) -> None:
            raise RuntimeError("no")

    found = faults(
        profile((Work, "0 0 31 2 *", "never"), ("nobody", "every hour", "x"), (Work, "every hour", "y" * 300)),
        profile((Work, "every hour", "k"), name="Bad Name"),
        profile((Work, "every hour", "k"), name="wrong", misfires="skip"),
        Loud,
        5,
    )
    assert len(found) == 7
    told = "\n".join(found)
    for part in ("'never'", "nobody", "schedule key", "bad-name", "misfire", "configure failed: RuntimeError: no", "5"):
        assert part in told, part


def test_keys_and_profiles_are_unique() -> None:
    assert (
        "declared by profile 'one' and by 'two'"
        in faults(profile((Work, "every hour", "k"), name="one"), profile((Work, "every hour", "k"), name="two"))[0]
    )
    assert (
        "twice by profile 'one'"
        in faults(profile((Work, "every hour", "k"), (Work, "every day at 04:00", "k"), name="one"))[0]
    )
    assert "declared twice" in faults(profile(name="pulse"))[0]
