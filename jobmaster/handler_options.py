"""The options a handler was written with, checked and completed by the cluster's defaults.

Every fault is a `DefinitionInvalid` that names the handler, the option, the value and what was expected.
"""

from datetime import timedelta
from typing import Literal

from jobmaster.definition import Definition
from jobmaster.model.errors import DefinitionInvalid, KeyInvalid, NameInvalid, quoted
from jobmaster.model.names import check_name, check_title
from jobmaster.model.policy import SECOND, Policy
from jobmaster.model.priority import Priority
from jobmaster.model.retry import Retry
from jobmaster.settings.units import seconds_of

LARGEST_COUNT = 1_000_000


def lane_of(definition: Definition) -> str:
    lane = definition.options.lane
    return "default" if lane is None else _named(definition, "lane", lane)


def agent_of(definition: Definition) -> str | None:
    agent = definition.options.agent
    return None if agent is None else _named(definition, "agent", agent)


def title_of(definition: Definition) -> str | None:
    title = definition.options.title
    try:
        return None if title is None else check_title(title)
    except KeyInvalid as error:
        raise DefinitionInvalid(definition.label, str(error)) from None


def priority_of(definition: Definition) -> Priority:
    priority: object = definition.options.priority
    if priority is None:
        return Priority.MEDIUM
    if isinstance(priority, bool) or not isinstance(priority, int) or priority not in list(Priority):
        raise _refused(
            definition, "priority", priority, f"one of {', '.join(f'Priority.{one.name}' for one in Priority)}"
        )
    return Priority(priority)


def version_of(definition: Definition) -> int:
    options = definition.options
    version = _count(definition, "version", options.version, 1, least=1)
    upcast: object = options.upcast
    if upcast is not None and not callable(upcast):
        raise _refused(definition, "upcast", upcast, "a function of the data and their version")
    if version > 1 and upcast is None:
        raise DefinitionInvalid(
            definition.label,
            f"version={version} without upcast",
            "add the class method `upcast(cls, data, from_version)`, or `upcast=` to @job, for jobs that wait",
        )
    return version


def policy_of(definition: Definition, default: Policy) -> Policy:
    options = definition.options
    retry: object = options.retry
    if retry is not None and not isinstance(retry, Retry):
        raise _refused(definition, "retry", retry, "a Retry, such as Retry.fixed(10)")
    at_most_once: object = options.at_most_once
    if not isinstance(at_most_once, bool):
        raise _refused(definition, "at_most_once", at_most_once, "True or False")
    process: object = options.process
    if not isinstance(process, bool):
        raise _refused(definition, "process", process, "True or False")
    unroutable = options.unroutable_after
    return Policy(
        timeout_us=_duration(definition, "timeout", options.timeout, default.timeout_us, least=1),
        grace_us=_duration(definition, "grace", options.grace, default.grace_us),
        retry=default.retry if retry is None else retry,
        at_most_once=at_most_once,
        data_version=version_of(definition),
        max_crashes=_count(definition, "max_crashes", options.max_crashes, default.max_crashes, least=1),
        max_snoozes=_count(definition, "max_snoozes", options.max_snoozes, default.max_snoozes),
        max_interrupts=_count(definition, "max_interrupts", options.max_interrupts, default.max_interrupts),
        unroutable_after_us=None
        if unroutable is None
        else _duration(definition, "unroutable_after", unroutable, 0, least=1),
    )


def _named(definition: Definition, kind: Literal["agent", "lane"], value: str) -> str:
    try:
        return check_name(kind, value)
    except NameInvalid as error:
        raise DefinitionInvalid(definition.label, str(error)) from None


def _duration(
    definition: Definition, option: str, value: timedelta | float | None, default: int, *, least: int = 0
) -> int:
    if value is None:
        return default
    try:
        microseconds = round(seconds_of(value) * SECOND)
    except ValueError as error:
        raise _refused(definition, option, value, str(error).removeprefix("expected ")) from None
    if microseconds < least:
        raise _refused(definition, option, value, "more than 0 seconds")
    return microseconds


def _count(definition: Definition, option: str, value: int | None, default: int, *, least: int = 0) -> int:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= LARGEST_COUNT:
        raise _refused(definition, option, value, f"a number from {least} to {LARGEST_COUNT:,}")
    return value


def _refused(definition: Definition, option: str, value: object, expected: str) -> DefinitionInvalid:
    return DefinitionInvalid(definition.label, f"{option}={quoted(value)} is not allowed", f"expected {expected}")
