"""The master contract: schedules declared in code, reconciled by profile."""

import asyncio
from datetime import timedelta

import pytest
from msgspec.structs import replace

from jobmaster.contracts.scheduling import ScheduleState
from jobmaster.testing.masters.harness import MasterHarness, planning, schedule

GRACE_US = 60_000_000


class ProfileCases:
    @pytest.mark.asyncio
    async def test_what_is_declared_is_added_and_then_left_as_it_is(self, store: MasterHarness) -> None:
        master = await store.open()
        declared = {"nightly": [schedule(key, profile="nightly") for key in ("b", "a")], "empty": []}
        assert (await master.sync_profiles(declared, GRACE_US, dry=True)).added == ("a", "b")
        assert await master.schedules() == []
        assert (await master.sync_profiles(declared, GRACE_US)).added == ("a", "b")
        stored = await master.schedules()
        assert (await master.sync_profiles({"nightly": declared["nightly"][::-1]}, GRACE_US)).nothing
        assert await master.schedules() == stored
        assert [entry.profile for entry in stored] == ["nightly"] * 2

    @pytest.mark.asyncio
    async def test_a_change_is_an_edit_in_place(self, store: MasterHarness) -> None:
        master = await store.open()
        await master.sync_profiles({"nightly": [schedule(profile="nightly")]}, GRACE_US)
        before = (await master.plan(planning())).placements
        synced = await master.sync_profiles({"nightly": [schedule(profile="nightly", data=b"2")]}, GRACE_US)
        assert synced.changed == ("welcome",)
        assert {item.job_id for item in synced.taken} == {item.job.id for item in before}

    @pytest.mark.asyncio
    async def test_what_leaves_the_code_retires_after_the_grace(self, store: MasterHarness) -> None:
        master = await store.open()
        declared = {"nightly": [schedule("a", profile="nightly"), schedule("b", profile="nightly")]}
        await master.sync_profiles(declared, GRACE_US)
        assert (await master.sync_profiles({"nightly": declared["nightly"][:1]}, 1_000_000)).retiring == ("b",)
        assert await master.retire(["nightly"], GRACE_US) == []
        leaving = await master.schedule("b")
        assert leaving is not None
        assert leaving.state is ScheduleState.ACTIVE
        assert leaving.retire_us is not None
        jobs = (await master.plan(planning())).placements
        await store.advance(1.5)
        taken = await master.retire(["nightly"], GRACE_US)
        assert {item.job_id for item in taken} == {item.job.id for item in jobs if item.job.schedule == "b"}
        assert [entry.state for entry in await master.schedules()] == [ScheduleState.ACTIVE, ScheduleState.ENDED]
        assert (await master.sync_profiles({"nightly": declared["nightly"][:1]}, GRACE_US)).nothing

    @pytest.mark.asyncio
    async def test_what_comes_back_goes_on_under_its_old_id(self, store: MasterHarness) -> None:
        master = await store.open()
        declared = {"nightly": [schedule(profile="nightly")]}
        await master.sync_profiles(declared, GRACE_US)
        (first,) = await master.schedules()
        for grace_us in (GRACE_US, 0):
            await master.sync_profiles({"nightly": []}, grace_us)
            await master.retire(["nightly"], GRACE_US)
            assert (await master.sync_profiles(declared, GRACE_US)).revived == ("welcome",)
        (again,) = await master.schedules()
        assert (again.created_us, again.state, again.retire_us) == (first.created_us, ScheduleState.ACTIVE, None)

    @pytest.mark.asyncio
    async def test_two_deployments_with_different_profiles_leave_each_other_alone(self, store: MasterHarness) -> None:
        one, two = await store.open(), await store.open()
        mine = {"nightly": [schedule("a", profile="nightly")]}
        theirs = {"hourly": [schedule("b", profile="hourly")]}
        await asyncio.gather(one.sync_profiles(mine, 0), two.sync_profiles(theirs, 0))
        assert (await one.sync_profiles(mine, 0)).nothing
        assert await one.retire(["nightly"], GRACE_US) == []
        assert [entry.state for entry in await two.schedules()] == [ScheduleState.ACTIVE] * 2

    @pytest.mark.asyncio
    async def test_the_schedules_of_a_profile_that_nobody_uses_end(self, store: MasterHarness) -> None:
        master = await store.open()
        await master.sync_profiles({"nightly": [schedule("a", profile="nightly")]}, GRACE_US)
        await master.sync_profiles({"hourly": [schedule("b", profile="hourly")]}, GRACE_US)
        await master.save_schedule(schedule("c"))
        await store.advance(1.5)
        await master.retire(["hourly"], 1_000_000)
        assert {entry.key: entry.state.value for entry in await master.schedules()} == {
            "a": "ended",
            "b": "active",
            "c": "active",
        }

    @pytest.mark.asyncio
    async def test_a_schedule_may_move_between_profiles_of_one_program(self, store: MasterHarness) -> None:
        master = await store.open()
        await master.sync_profiles({"nightly": [schedule(profile="nightly")], "hourly": []}, GRACE_US)
        synced = await master.sync_profiles({"nightly": [], "hourly": [schedule(profile="hourly")]}, GRACE_US)
        assert (synced.changed, synced.retiring, synced.conflicts) == (("welcome",), (), ())
        (stored,) = await master.schedules()
        assert (stored.profile, stored.retire_us) == ("hourly", None)

    @pytest.mark.asyncio
    async def test_a_key_of_somebody_else_is_a_conflict_and_nothing_is_changed(self, store: MasterHarness) -> None:
        master = await store.open()
        await master.save_schedule(schedule("a"))
        await master.sync_profiles({"hourly": [schedule("b", profile="hourly")]}, GRACE_US)
        stored = await master.schedules()
        declared = {"nightly": [schedule(key, profile="nightly") for key in "abc"]}
        synced = await master.sync_profiles(declared, GRACE_US)
        assert synced.conflicts == (("a", ""), ("b", "hourly"))
        assert (synced.added, await master.schedules()) == ((), stored)

    @pytest.mark.asyncio
    async def test_a_declared_interval_keeps_its_anchor(self, store: MasterHarness) -> None:
        master = await store.open()
        given = schedule(profile="nightly", when=timedelta(hours=7))
        await master.sync_profiles({"nightly": [given]}, GRACE_US)
        (first,) = await master.schedules()
        assert (await master.sync_profiles({"nightly": [replace(given)]}, GRACE_US)).nothing
        assert first.next_us == first.anchor_us + 7 * 3_600_000_000
