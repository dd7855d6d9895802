"""From what was said about a schedule, in a call or in code, to the definition that is stored. No I/O."""

import re
from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from jobmaster.client.definitions import Recipe
from jobmaster.client.drafting import Drafting
from jobmaster.client.times import duration_us, to_us
from jobmaster.contracts.scheduling import Schedule
from jobmaster.enqueue import SCHEDULE_OPTIONS, ScheduleOptions, check_known
from jobmaster.model.errors import ExpressionInvalid, KeyInvalid, OptionInvalid
from jobmaster.model.names import check_key
from jobmaster.model.policy import Labels, decode_labels, decode_policy
from jobmaster.model.priority import Priority
from jobmaster.model.terms import MOST_ALL, Misfire, Overlap, Terms
from jobmaster.recurrence import Recurrence

_ALL = re.compile(r"all\((\d{1,6})\)")
_TERMS = ("misfire", "overlap", "jitter", "start_after", "end_before")
_PLAN = ("lane", "priority", "agent", "timeout", "retry")
_LABELS = ("title", "tags", "metadata")


class Unset(Struct, frozen=True):
    """Not given, where None means something."""


UNSET = Unset()


class ScheduleDrafting:
    """Checks and encodes schedules."""

    def __init__(self, drafting: Drafting, data_limit: int, timezone: str) -> None:
        """`timezone`: of texts and cron expressions that name none."""
        self._drafting = drafting
        self._limit = data_limit
        self._timezone = timezone

    def schedule(
        self,
        recipe: Recipe,
        when: object,
        data: object,
        key: object,
        options: ScheduleOptions,
        profile: str | None = None,
    ) -> Schedule:
        """Raises `KeyInvalid`, `ExpressionInvalid`, `OptionInvalid`, `NameInvalid`, `DataInvalid`."""
        if key is None:
            raise KeyInvalid(
                "schedule key",
                key,
                "key='…': it names the schedule, so that calling this again, at every start of a program, updates it "
                "instead of adding a second one",
            )
        name = check_key("schedule key", key)
        check_known(options, SCHEDULE_OPTIONS)
        template = self._drafting.plan(recipe, options).template
        agent = template.agent
        if profile is not None and options.get("agent") is None:
            # Which agents serve a lane is this process's view; deployments must not take turns in declaring theirs.
            agent = recipe.agent
        return Schedule(
            key=name,
            handler=recipe.handler,
            recurrence=self.recurrence(when).to_json(),
            terms=terms_of(options, Terms()),
            profile=profile,
            lane=template.lane,
            priority=template.priority,
            agent=agent,
            data=recipe.encode(data, limit=self._limit),
            policy=template.policy,
            labels=self._drafting.labels(options, recipe),
        )

    def edited(
        self, stored: Schedule, recipe: Recipe, when: object, data: object, options: ScheduleOptions
    ) -> Schedule:
        """The stored one with what is given; what is not, stays. Raises as `schedule`."""
        check_known(options, SCHEDULE_OPTIONS)
        changes: dict[str, Any] = {"terms": terms_of(options, stored.terms)}
        if when is not None:
            changes["recurrence"] = self.recurrence(when).to_json()
        if data is not UNSET:
            changes["data"] = recipe.encode(data, limit=self._limit)
        if any(options.get(name) is not None for name in _PLAN):
            before = replace(
                recipe,
                lane=stored.lane,
                priority=Priority(stored.priority),
                agent=stored.agent,
                policy=decode_policy(stored.policy),
            )
            template = self._drafting.plan(before, options).template
            changes |= {"lane": template.lane, "priority": template.priority, "policy": template.policy}
            changes["agent"] = stored.agent if options.get("agent") is None else template.agent
        if any(options.get(name) is not None for name in _LABELS):
            changes["labels"] = self._labels(decode_labels(stored.labels), options, recipe)
        return replace(stored, **changes)

    def recurrence(self, when: object) -> Recurrence:
        """Raises `ExpressionInvalid`, `OptionInvalid`."""
        if isinstance(when, str):
            try:
                return Recurrence.of(when, self._timezone)
            except ExpressionInvalid:
                # It may name a zone of its own.
                return Recurrence.of(when)
        return Recurrence.of(when)  # type: ignore[arg-type]  # it refuses what is none

    def _labels(self, before: Labels, options: ScheduleOptions, recipe: Recipe) -> bytes | None:
        given: ScheduleOptions = {"title": before.title, "tags": before.tags, "metadata": before.metadata}
        for name in _LABELS:
            if options.get(name) is not None:
                given[name] = options[name]  # type: ignore[literal-required]  # names of the same mapping
        return self._drafting.labels(given, recipe)


def terms_of(options: Mapping[str, Any], base: Terms) -> Terms:
    """The terms that the options name, the rest as in `base`. Raises `OptionInvalid`."""
    given = {name: options[name] for name in _TERMS if options.get(name) is not None}
    if not given:
        return base
    changes: dict[str, Any] = {}
    if "misfire" in given:
        changes["misfire"], changes["most"] = _misfire(given["misfire"])
    if "overlap" in given:
        changes["overlap"] = _overlap(given["overlap"])
    if "jitter" in given:
        jitter = given["jitter"]
        changes["jitter_us"] = duration_us("jitter", jitter) if jitter else 0
    if "start_after" in given:
        changes["start_us"] = to_us("start_after", given["start_after"])
    if "end_before" in given:
        changes["end_us"] = to_us("end_before", given["end_before"])
    terms = replace(base, **changes)
    if terms.end_us is not None and terms.start_us is not None and terms.end_us <= terms.start_us:
        raise OptionInvalid("end_before", given.get("end_before"), "an instant after start_after")
    return terms


def _misfire(value: object) -> tuple[Misfire, int]:
    found = _ALL.fullmatch(value) if isinstance(value, str) else None
    if found is not None and 0 < int(found[1]) <= MOST_ALL:
        return Misfire.ALL, int(found[1])
    if isinstance(value, str) and value in (Misfire.SKIP, Misfire.LATEST):
        return Misfire(value), 1
    raise OptionInvalid("misfire", value, f"'latest', 'skip', or 'all(N)' N from 1 to {MOST_ALL:,}, like 'all(10)'")


def _overlap(value: object) -> Overlap:
    if isinstance(value, str) and value in [*Overlap]:
        return Overlap(value)
    raise OptionInvalid("overlap", value, "'allow', 'skip', 'queue' or 'cancel_previous'")
