"""Control of the agent: its settings, kept in the store and changed by compare-and-set."""

from collections.abc import Callable
from typing import assert_never

from msgspec.structs import replace

from jobmaster.contracts.values import Control, ControlKind, ProbeReport, RevokeKind, StoreMode, StoreState
from jobmaster.model.errors import Indeterminate, Refused
from jobmaster.telemetry.failpoints import failpoint
from jobmaster_agents.nats import probing
from jobmaster_agents.nats.probing import removed_up_to
from jobmaster_agents.nats.records import Confirmed, StoreSettings, encode
from jobmaster_agents.nats.revoking import Revoking
from jobmaster_agents.nats.store import ROUNDS, Store
from jobmaster_agents.nats.wakes import Wakes

Change = Callable[[StoreSettings], StoreSettings]


class Controlling:
    def __init__(self, store: Store, revoking: Revoking, wakes: Wakes) -> None:
        self._store = store
        self._revoking = revoking
        self._wakes = wakes

    async def control(self, change: Control) -> StoreState:
        purged = 0
        match change.kind:
            case ControlKind.PURGE_LANE:
                purged = await self._revoking.take_all(_lane(change), RevokeKind.CANCEL)
            case ControlKind.QUARANTINE:
                await self._quarantine(change)
            case ControlKind.STATE:
                pass
            case _:
                await self._change(_changing(change))
        settings = await self._settings()
        if change.kind in (ControlKind.RESUME, ControlKind.RESUME_LANE):
            await self._wakes.ring(None if change.lane is None else {change.lane})
        return StoreState(settings.mode, frozenset(settings.paused_lanes), purged)

    async def adopt(self, incarnation: str) -> ProbeReport:
        """End a reconciliation."""
        store = self._store
        if (await self._settings()).incarnation != incarnation:
            await store.insist()
            await self._forgive()
            failpoint("adopt.before_commit")
            await self._change(lambda settings: _adopted(store.name, settings, incarnation))
            await self._wakes.ring(None)
        store.shared.incarnation = incarnation
        return await probing.probe(store)

    async def _quarantine(self, change: Control) -> None:
        await self._change(lambda settings: _quarantined(self._store.name, settings, change.incarnation))
        await self._raise_mark(change.mark)

    async def _raise_mark(self, mark: int) -> None:
        """Sequences go on above the mark: what the stream counts is not to be set, so a number is added to it."""
        store = self._store
        last = int((await store.reader.state())["last_seq"])

        def raised(confirmed: Confirmed) -> Confirmed:
            return confirmed if confirmed.base + last >= mark else replace(confirmed, base=mark - last)

        await store.change_confirmed(raised)

    async def _forgive(self) -> None:
        """What somebody removed is gone: the store is reconciled without it, and reads on behind the gap."""
        removed = removed_up_to(await self._store.reader.state())
        await self._store.change_confirmed(
            lambda confirmed: replace(confirmed, cursor=max(confirmed.cursor, removed), floor=removed)
        )

    async def _change(self, change: Change) -> None:
        store = self._store
        for _ in range(ROUNDS):
            settings, at = await store.reader.settings()
            changed = change(_named(store.name, settings))
            if changed == settings or await store.keep(store.subjects.state, encode(changed), expected=at):
                return
        raise Indeterminate("the store's settings were changed by others again and again", agent=store.name)

    async def _settings(self) -> StoreSettings:
        settings, _ = await self._store.reader.settings()
        return _named(self._store.name, settings)


def _named(agent: str, settings: StoreSettings | None) -> StoreSettings:
    if settings is None:
        raise Refused(f"agent {agent!r}: the store has lost its settings; open the agent anew")
    return settings


def _changing(change: Control) -> Change:
    match change.kind:
        case ControlKind.PAUSE:
            return lambda settings: replace(settings, mode=StoreMode.PAUSED)
        case ControlKind.RESUME:
            return lambda settings: replace(settings, mode=StoreMode.OPEN)
        case ControlKind.DRAIN:
            return lambda settings: replace(settings, mode=StoreMode.DRAINING)
        case ControlKind.PAUSE_LANE:
            lane = _lane(change)
            return lambda settings: _with_lanes(settings, {*settings.paused_lanes, lane})
        case ControlKind.RESUME_LANE:
            lane = _lane(change)
            return lambda settings: _with_lanes(settings, {*settings.paused_lanes} - {lane})
        case ControlKind.STATE | ControlKind.QUARANTINE | ControlKind.PURGE_LANE:
            raise ValueError(f"{change.kind} is no plain change of settings")
        case _:
            assert_never(change.kind)


def _quarantined(agent: str, settings: StoreSettings, incarnation: str | None) -> StoreSettings:
    if incarnation not in (None, settings.incarnation):
        raise Refused(
            f"agent {agent!r}: the store is incarnation {settings.incarnation} by now, not {incarnation}, and stays "
            f"{settings.mode}; look at it again"
        )
    return replace(settings, mode=StoreMode.QUARANTINED)


def _adopted(agent: str, settings: StoreSettings, incarnation: str) -> StoreSettings:
    if settings.incarnation == incarnation:
        return settings
    if settings.mode is not StoreMode.QUARANTINED:
        raise Refused(f"agent {agent!r} is {settings.mode}: only a quarantined store is reconciled")
    return replace(settings, incarnation=incarnation, mode=StoreMode.OPEN)


def _with_lanes(settings: StoreSettings, lanes: set[str]) -> StoreSettings:
    return replace(settings, paused_lanes=tuple(sorted(lanes)))


def _lane(change: Control) -> str:
    if change.lane is None:
        raise Refused(f"control {change.kind} names no lane: give Control(kind, lane)")
    return change.lane
