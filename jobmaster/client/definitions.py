"""From what the caller names (a class, a function, a name) to what is known of that handler.

A handler registered here is known whole. One known only by name may be defined in another process: then its entry on
the master says lane, policy and the shape of its data. Where the master knows nothing either, or is away, the name
alone is taken, and its data pass the portable-JSON gate only: enqueueing does not wait for a master.
"""

import asyncio
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from jobmaster.contracts.clock import Clock
from jobmaster.contracts.entries import DefinitionEntry
from jobmaster.contracts.master import MasterStore
from jobmaster.model.errors import StoreError
from jobmaster.model.names import check_name
from jobmaster.model.policy import Policy, decode_policy
from jobmaster.model.priority import Priority
from jobmaster.model.schema import DataSchema
from jobmaster.registry import Handler, Registry

KEPT_SECONDS = 30.0
"""How long the master's definitions are taken as they were read."""
RETRY_SECONDS = 5.0
"""How long after a failed reading the next one is tried."""
MOST_NAMES = 1_000
PATIENCE_SECONDS = 1.0
"""How long an enqueue by name may wait for the master's definitions."""


class Encode(Protocol):
    """From data to portable JSON of at most `limit` bytes. Raises `DataInvalid`."""

    def __call__(self, value: object, *, limit: int) -> bytes: ...


class Recipe(Struct, frozen=True):
    """What an enqueue has to know of a handler."""

    handler: str
    lane: str
    priority: int
    policy: Policy
    agent: str | None
    title: str | None
    """Of jobs that get none of their own."""
    encode: Encode


class Definitions:
    """The recipes of one scheduler."""

    def __init__(self, registry: Registry, master: MasterStore, clock: Clock, defaults: Policy) -> None:
        self._registry = registry
        self._master = master
        self._clock = clock
        self._defaults = defaults
        self._local: dict[object, Recipe] = {}
        self._remote: dict[str, DefinitionEntry] = {}
        self._named: dict[str, Recipe] = {}
        self._read_again = float("-inf")

    async def recipe(self, ref: Any) -> Recipe:
        """Raises `HandlerUnknown` for a class or function that is not registered, `NameInvalid` for a name that can't
        be one."""
        known = self.known(ref)
        if known is not None:
            return known
        name = check_name("handler", ref)
        await self._read()
        recipe = self._named.get(name)
        if recipe is None:
            if len(self._named) >= MOST_NAMES:
                self._named.clear()
            entry = self._remote.get(name) or DefinitionEntry(name=name, policy=self._defaults.encode())
            recipe = self._named[name] = self._from_entry(entry)
        return recipe

    def known(self, ref: Any) -> Recipe | None:
        """The recipe, where that takes no question to the master. Raises as `recipe` does."""
        try:
            found = self._local.get(ref)
        except TypeError:
            # Unhashable, so neither class, function nor name: resolving it words the error.
            found = None
        if found is None:
            handler = self._registry.get(ref) if isinstance(ref, str) else self._registry.resolve(ref)
            if handler is None:
                return None
            found = self._local[ref] = recipe_of(handler)
        return found

    @staticmethod
    def _from_entry(entry: DefinitionEntry) -> Recipe:
        described = None if entry.data_schema is None else msgspec.json.decode(entry.data_schema)
        schema = DataSchema.of(None) if described is None else DataSchema.described(described)
        return Recipe(
            handler=entry.name,
            lane=entry.lane,
            priority=Priority(entry.priority),
            policy=decode_policy(entry.policy),
            agent=entry.agent,
            title=None,
            encode=schema.encode,
        )

    async def _read(self) -> None:
        now = self._clock.mono()
        if now < self._read_again:
            return
        self._read_again = now + RETRY_SECONDS
        try:
            entries = await asyncio.wait_for(self._master.definitions(), PATIENCE_SECONDS)
        except (StoreError, TimeoutError):
            return
        self._remote = {entry.name: entry for entry in entries}
        self._named.clear()
        self._read_again = now + KEPT_SECONDS


def recipe_of(handler: Handler) -> Recipe:
    """The recipe of a handler that is registered here."""
    return Recipe(
        handler=handler.name,
        lane=handler.lane,
        priority=handler.priority,
        policy=handler.policy,
        agent=handler.agent,
        title=handler.title,
        encode=handler.schema.encode,
    )
