"""The schedules that a cluster's code declares, checked: each fault names its profile and its schedule."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from jobmaster.client.definitions import recipe_of
from jobmaster.client.drafting import Drafting
from jobmaster.client.schedule_drafting import ScheduleDrafting
from jobmaster.contracts.scheduling import Schedule
from jobmaster.enqueue import ScheduleOptions
from jobmaster.model.errors import JobMasterError, quoted
from jobmaster.model.names import check_name
from jobmaster.placement import agents_by_lane
from jobmaster.profiles import Declaration, Schedules, StaticProfile, declaration_of
from jobmaster.registry import Registry
from jobmaster.settings import ClusterSettings

Declared = dict[str, tuple[Schedule, ...]]


class Declaring:
    """Gathers declarations, and what is wrong with them."""

    def __init__(self, settings: ClusterSettings, registry: Registry) -> None:
        self.faults: list[str] = []
        self._registry = registry
        limit = settings.limits.data_bytes
        drafting = Drafting(limit, tuple(settings.agents), agents_by_lane(settings.workers))
        self._drafting = ScheduleDrafting(drafting, limit, settings.timezone)
        self._declared: Declared = {}
        self._owners: dict[str, str] = {}

    def all(self, profiles: Sequence[object]) -> Mapping[str, tuple[Schedule, ...]]:
        """The schedules by profile, those of decorated handlers under their handler's name."""
        for profile in profiles:
            self._profile(profile)
        for handler in self._registry:
            declaration = declaration_of(handler.target)
            if declaration is not None:
                self._add(handler.name, [declaration], handler.name)
        return self._declared

    def _profile(self, profile: object) -> None:
        label = getattr(profile, "__name__", type(profile).__name__)
        if not (isinstance(profile, type) and issubclass(profile, StaticProfile)):
            self.faults.append(f"add_profiles: {quoted(profile)} is no profile; pass a subclass of StaticProfile")
            return
        try:
            name = check_name("profile", getattr(profile, "profile_id", None))
        except JobMasterError as error:
            self.faults.append(f'{label}: {error}; give it one: `profile_id = "…"`')
            return
        schedules = Schedules()
        try:
            profile().configure(schedules)
        except JobMasterError as error:
            self.faults.append(f"{label}: {error}")
        except Exception as error:
            self.faults.append(f"{label}: configure failed: {type(error).__name__}: {error}")
        else:
            self._add(name, schedules.declared)

    def _add(self, profile: str, declarations: Sequence[Declaration], handler: str | None = None) -> None:
        if profile in self._declared:
            self.faults.append(
                f"profile {profile!r} is declared twice; give one of them another profile_id; a handler with "
                "@scheduled takes that of its name"
            )
            return
        found = [self._schedule(profile, declaration, handler) for declaration in declarations]
        self._declared[profile] = tuple(schedule for schedule in found if schedule is not None)

    def _schedule(self, profile: str, declaration: Declaration, handler: str | None) -> Schedule | None:
        key = handler if declaration.key is None else declaration.key
        try:
            recipe = recipe_of(self._registry.resolve(handler or declaration.handler))
            options = cast("ScheduleOptions", dict[str, Any](declaration.options))
            schedule = self._drafting.schedule(
                recipe, declaration.when, declaration.data, key, options, profile=profile
            )
        except JobMasterError as error:
            self.faults.append(f"profile {profile!r}, schedule {quoted(key)}: {error}")
            return None
        owner = self._owners.get(schedule.key)
        if owner is not None:
            where = f"by profile {owner!r} and by {profile!r}" if owner != profile else f"twice by profile {profile!r}"
            self.faults.append(f"schedule {quoted(schedule.key)} is declared {where}; keys are unique in a cluster")
        self._owners[schedule.key] = profile
        return schedule
