"""Schedules made at run time: saved by key, updated in place.

Calling `recurring` again with the same key must not make a second schedule, and an edit must not shift the rhythm: the
anchor stays where it was first set, and the next tick is the first one of the new interval after now.
"""

from datetime import timedelta

from jobmaster.client.definitions import Recipe
from jobmaster.client.drafting import Drafting
from jobmaster.client.times import duration_us
from jobmaster.contracts.clock import Clock
from jobmaster.contracts.entries import Schedule
from jobmaster.contracts.master import MasterStore
from jobmaster.enqueue import SCHEDULE_OPTIONS, ScheduleOptions, check_known
from jobmaster.model.errors import KeyInvalid, OptionInvalid
from jobmaster.model.names import check_key

SHORTEST = timedelta(seconds=1)


class Recurring:
    """Saves schedules."""

    def __init__(self, master: MasterStore, drafting: Drafting, clock: Clock, data_limit: int) -> None:
        self._master = master
        self._drafting = drafting
        self._clock = clock
        self._limit = data_limit

    async def save(
        self, recipe: Recipe, every: object, data: object, key: object, options: ScheduleOptions
    ) -> Schedule:
        """The schedule as it is stored afterwards. Raises `KeyInvalid`, `OptionInvalid`, `DataInvalid`,
        `MasterUnavailable`."""
        if key is None:
            raise KeyInvalid(
                "schedule key",
                key,
                "key='…': it names the schedule, so that calling this again, at every start of a program, updates it "
                "instead of adding a second one",
            )
        name = check_key("schedule key", key)
        if not isinstance(every, timedelta):
            raise OptionInvalid("when", every, "the interval as a timedelta, e.g. timedelta(hours=24)")
        interval_us = duration_us("when", every, SHORTEST)
        check_known(options, SCHEDULE_OPTIONS)
        plan = self._drafting.plan(recipe, options)
        now_us = self._clock.wall_us()
        earlier = {schedule.key: schedule for schedule in await self._master.schedules()}.get(name)
        anchor_us = now_us if earlier is None else earlier.anchor_us
        return await self._master.save_schedule(
            Schedule(
                key=name,
                handler=recipe.handler,
                interval_us=interval_us,
                anchor_us=anchor_us,
                next_us=anchor_us + ((now_us - anchor_us) // interval_us + 1) * interval_us,
                lane=plan.template.lane,
                priority=plan.template.priority,
                agent=plan.template.agent,
                data=recipe.encode(data, limit=self._limit),
                policy=plan.template.policy,
                labels=self._drafting.labels(options, recipe),
                created_us=now_us if earlier is None else earlier.created_us,
            )
        )
