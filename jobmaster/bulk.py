"""Bulk: changes of all jobs that meet some conditions, counted beforehand, carried out in the background by whoever
coordinates, and kept with who asked for it.

What is meant are jobs that were there when it was asked for, in the state they have when it is their turn.
"""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypedDict, Unpack

from jobmaster.actor import this_process
from jobmaster.client.drafting import priority_named
from jobmaster.client.expectation import States
from jobmaster.client.listing import MOST, Listing, job_filter
from jobmaster.client.times import from_us, maybe_from_us, to_us
from jobmaster.contracts.master import MasterStore
from jobmaster.contracts.operating import Operation, OperationKind, OperationState, OperationTerms, narrowed, selects
from jobmaster.model.errors import OperationNotFound, OptionInvalid
from jobmaster.model.ids import new_id, parse_id
from jobmaster.model.names import check_name
from jobmaster.model.priority import Priority
from jobmaster.model.states import FailReason

COUNT_CAP = 10_000
LEAST_PER_SECOND = 0.1
_FINGERPRINT = re.compile("[0-9a-f]{12}")


class Where(TypedDict, total=False):
    """Conditions; a job has to meet all that are given."""

    state: States | None
    handler: str | None
    """Its stored name."""
    lane: str | None
    agent: str | None
    schedule: str | None
    tag: str | None
    metadata: Mapping[str, Any] | None
    since: datetime | None
    """Created then or later."""
    until: datetime | None
    """Created before."""
    reason: FailReason | str | Iterable[FailReason | str] | None
    """Why it failed."""
    fingerprint: str | Iterable[str] | None
    """Of its error: see `Operations.dead_letters`."""


@dataclass(frozen=True, slots=True)
class Matching:
    """How many jobs a bulk would change now."""

    count: int
    capped: bool
    """There are more than that."""
    unreachable: tuple[str, ...] = ()
    """Agents that did not answer: their jobs are not counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationInfo:
    """A bulk as far as it is."""

    id: str
    kind: OperationKind
    state: OperationState
    who: str
    created_at: datetime
    finished_at: datetime | None
    total: int | None
    """How many matched when it was asked for; None: nobody counted."""
    capped: bool
    """There were more than `total`."""
    changed: int
    skipped: int
    """Their state did not allow it any more."""
    note: str | None
    terms: Mapping[str, Any]
    """What was asked for."""


class Bulk:
    """`scheduler.bulk`. A condition is needed, or `everything=True`: nothing is changed for want of one. All raise
    `OptionInvalid`, `NameInvalid`, `KeyInvalid` for conditions that can't be, and `MasterUnavailable`."""

    def __init__(
        self,
        master: MasterStore,
        listing: Listing,
        now_us: Callable[[], int],
        wake: Callable[[], None],
        sleep: Callable[[float], Awaitable[None]],
        limit_bytes: int,
    ) -> None:
        self._master = master
        self._listing = listing
        self._now_us = now_us
        self._wake = wake
        self._sleep = sleep
        self._limit = limit_bytes

    async def count(self, kind: OperationKind | str, *, cap: int = COUNT_CAP, **where: Unpack[Where]) -> Matching:
        """How many jobs this would change now, counted up to `cap`. Changes nothing."""
        return await self._count(_kind(kind), self._terms(where), cap)

    async def cancel(
        self, *, who: str | None = None, everything: bool = False, **where: Unpack[Where]
    ) -> OperationInfo:
        """Cancel jobs that have not ended. Running ones are stopped, unless `state` names other states only."""
        return await self._begin(OperationKind.CANCEL, self._terms(where), who, everything)

    async def retry(
        self,
        *,
        fresh: bool = False,
        per_second: float | None = None,
        who: str | None = None,
        everything: bool = False,
        **where: Unpack[Where],
    ) -> OperationInfo:
        """Run failed and cancelled jobs again, at most `per_second`; `fresh` starts their counters anew."""
        terms = self._terms(where, fresh=fresh, per_second=_rate(per_second))
        return await self._begin(OperationKind.RETRY, terms, who, everything)

    async def delete(
        self, *, who: str | None = None, everything: bool = False, **where: Unpack[Where]
    ) -> OperationInfo:
        """Remove ended jobs and their runs from the history."""
        return await self._begin(OperationKind.DELETE, self._terms(where), who, everything)

    async def edit(
        self,
        *,
        to_lane: str | None = None,
        priority: Priority | str | None = None,
        who: str | None = None,
        everything: bool = False,
        **where: Unpack[Where],
    ) -> OperationInfo:
        """Give waiting jobs another lane, or priority. Raises `OptionInvalid` if neither is said."""
        if to_lane is None and priority is None:
            raise OptionInvalid("edit", None, "to_lane, priority or both")
        terms = self._terms(
            where,
            lane=None if to_lane is None else check_name("lane", to_lane),
            priority=None if priority is None else int(priority_named(priority)),
        )
        return await self._begin(OperationKind.EDIT, terms, who, everything)

    async def get(self, operation_id: str) -> OperationInfo:
        """Raises `OperationNotFound`."""
        return _info(await self._operation(operation_id))

    async def list(self, *, before: str | None = None, limit: int = 50) -> tuple[OperationInfo, ...]:
        """Newest first, below the id `before`."""
        if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MOST:
            raise OptionInvalid("limit", limit, f"a number from 1 to {MOST:,}")
        last = None if before is None else parse_id(before, "operation id")
        return tuple(_info(found) for found in await self._master.operations(last, limit))

    async def stop(self, operation_id: str) -> OperationInfo:
        """Have it change nothing more after the page it is at. Raises `OperationNotFound`."""
        stored = await self._master.stop_operation(parse_id(operation_id, "operation id"))
        if stored is None:
            raise OperationNotFound(operation_id)
        return _info(stored)

    async def wait(self, operation_id: str, *, poll: float = 0.1) -> OperationInfo:
        """Return once it has ended. Some process that coordinates has to run."""
        while True:
            stored = await self._operation(operation_id)
            if stored.state is not OperationState.RUNNING:
                return _info(stored)
            await self._sleep(poll)

    async def _operation(self, operation_id: str) -> Operation:
        stored = await self._master.operation(parse_id(operation_id, "operation id"))
        if stored is None:
            raise OperationNotFound(operation_id)
        return stored

    async def _begin(
        self, kind: OperationKind, terms: OperationTerms, who: str | None, everything: bool
    ) -> OperationInfo:
        if not everything and terms == OperationTerms(
            fresh=terms.fresh, per_second=terms.per_second, lane=terms.lane, priority=terms.priority
        ):
            raise OptionInvalid("where", {}, "at least one condition, or everything=True")
        if narrowed(kind, terms) is None:
            states = ", ".join(sorted(terms.where.states))
            raise OptionInvalid("state", states, f"states in which a job can be changed by {kind}")
        matching = await self._count(kind, terms, COUNT_CAP)
        operation = Operation(
            id=new_id(),
            kind=kind,
            terms=terms,
            who=who or this_process(),
            total=matching.count,
            capped=matching.capped or bool(matching.unreachable),
        )
        stored = await self._master.begin_operation(operation)
        self._wake()
        return _info(stored)

    async def _count(self, kind: OperationKind, terms: OperationTerms, cap: int) -> Matching:
        where, count, cursor = narrowed(kind, terms), 0, None
        away: set[str] = set()
        before_us = max(self._now_us(), await self._master.store_now_us()) + 1
        while where is not None:
            page, unreachable = await self._listing.read(where, cursor, MOST)
            away.update(unreachable)
            count += sum(selects(kind, terms, job, before_us) for job in page.jobs)
            cursor = page.cursor
            if cursor is None or count > cap:
                break
        return Matching(min(count, cap), count > cap, tuple(sorted(away)))

    def _terms(self, where: Where, **how: Any) -> OperationTerms:
        unknown = sorted(set(where) - set(Where.__annotations__))
        if unknown:
            raise OptionInvalid("where", unknown[0], f"one of {', '.join(Where.__annotations__)}")
        until = where.get("until")
        found = job_filter(
            state=where.get("state"),
            handler=where.get("handler"),
            lane=where.get("lane"),
            agent=where.get("agent"),
            schedule=where.get("schedule"),
            tag=where.get("tag"),
            metadata=where.get("metadata"),
            since=where.get("since"),
            limit_bytes=self._limit,
        )
        return OperationTerms(
            where=found,
            until_us=None if until is None else to_us("until", until),
            reasons=_reasons(where.get("reason")),
            fingerprints=_fingerprints(where.get("fingerprint")),
            **how,
        )


def _kind(kind: OperationKind | str) -> OperationKind:
    try:
        return OperationKind(kind)
    except ValueError:
        raise OptionInvalid("kind", kind, f"one of {', '.join(OperationKind)}") from None


def _rate(per_second: float | None) -> float | None:
    if per_second is None:
        return None
    if isinstance(per_second, bool) or not isinstance(per_second, (int, float)) or not per_second >= LEAST_PER_SECOND:
        raise OptionInvalid("per_second", per_second, f"a number from {LEAST_PER_SECOND:g}")
    return float(per_second)


def _reasons(given: FailReason | str | Iterable[FailReason | str] | None) -> frozenset[FailReason]:
    if given is None:
        return frozenset()
    try:
        return frozenset(FailReason(one) for one in ([given] if isinstance(given, str) else given))
    except (ValueError, TypeError):
        raise OptionInvalid("reason", given, f"of {', '.join(FailReason)}") from None


def _fingerprints(given: str | Iterable[str] | None) -> frozenset[str]:
    if given is None:
        return frozenset()
    found = frozenset([given] if isinstance(given, str) else given)
    wrong = [one for one in found if not (isinstance(one, str) and _FINGERPRINT.fullmatch(one))]
    if wrong:
        raise OptionInvalid("fingerprint", wrong[0], "twelve hexadecimal digits, as dead letters show them")
    return found


def _info(operation: Operation) -> OperationInfo:
    terms = operation.terms
    asked: dict[str, Any] = {
        "state": sorted(terms.where.states) or None,
        **{name: getattr(terms.where, name) for name in ("handler", "lane", "agent", "schedule", "tag")},
        "metadata": dict(terms.where.metadata) or None,
        "since": maybe_from_us(terms.where.since_us),
        "until": maybe_from_us(terms.until_us),
        "reason": sorted(terms.reasons) or None,
        "fingerprint": sorted(terms.fingerprints) or None,
        "fresh": terms.fresh or None,
        "per_second": terms.per_second,
        "to_lane": terms.lane,
        "priority": None if terms.priority is None else Priority(terms.priority).name,
    }
    return OperationInfo(
        id=operation.id,
        kind=operation.kind,
        state=operation.state,
        who=operation.who,
        created_at=from_us(operation.created_us),
        finished_at=maybe_from_us(operation.finished_us),
        total=operation.total,
        capped=operation.capped,
        changed=operation.changed,
        skipped=operation.skipped,
        note=operation.note,
        terms={name: value for name, value in asked.items() if value is not None},
    )
