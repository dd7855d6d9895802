"""From what the caller said to the job that will be written.

Options that many jobs share (lane, priority, agent, timeout, retry, durability) are checked once and kept as a plan
with a template of the job, so that one more job of a bulk costs little more than encoding its data.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from jobmaster.client.definitions import Recipe
from jobmaster.client.identity import job_id_of
from jobmaster.client.times import duration_us, to_us
from jobmaster.enqueue import CommonOptions, Options, check_known
from jobmaster.model import portable
from jobmaster.model.errors import DataInvalid, OptionInvalid, Problem
from jobmaster.model.ids import new_id
from jobmaster.model.job import Job
from jobmaster.model.names import check_name, check_tags, check_title
from jobmaster.model.policy import Labels, Policy
from jobmaster.model.priority import Priority
from jobmaster.model.retry import Retry

PRIORITIES = {priority.name.lower(): priority for priority in Priority}
MOST_PLANS = 1_000
"""Plans kept; a caller who makes up a new timeout for every job must not grow this for ever."""


class Route(Struct, frozen=True):
    """Where a job may go."""

    candidates: tuple[str, ...]
    """The agents to draw from; one means that the job is bound to it."""
    through_master: bool


class Plan(Struct, frozen=True):
    """Everything about a job that is not its own: the template is a job without id, data and times."""

    template: Job
    route: Route
    recipe: Recipe


class Drafting:
    """Checks options and builds jobs. Knows the cluster's agents and which of them serve a lane; does no I/O."""

    def __init__(self, data_limit: int, agents: Sequence[str], by_lane: Mapping[str, tuple[str, ...]]) -> None:
        """`by_lane`: the agents of lanes that only some serve."""
        self._limit = data_limit
        self._agents = tuple(agents)
        self._by_lane = by_lane
        self._plans: dict[tuple[object, ...], Plan] = {}
        self._bare: dict[str, Plan] = {}
        """Plans without any option, by handler."""

    def plan(self, recipe: Recipe, options: CommonOptions) -> Plan:
        """Raises `OptionInvalid` or `NameInvalid` for an option that has no meaning."""
        if not options:
            bare = self._bare.get(recipe.handler)
            if bare is None or bare.recipe is not recipe:
                if len(self._bare) >= MOST_PLANS:
                    self._bare.clear()
                bare = self._bare[recipe.handler] = self._make(recipe, options)
            return bare
        priority, timeout = options.get("priority"), options.get("timeout")
        key = (
            recipe.handler,
            # 1, True and Priority.HIGH are equal keys, but only one of them is allowed.
            type(priority),
            priority,
            type(timeout),
            timeout,
            options.get("lane"),
            options.get("agent"),
            options.get("retry"),
            options.get("durability"),
        )
        try:
            plan = self._plans.get(key)
        except TypeError:
            # An unhashable value is none that an option can have: making the plan says which.
            return self._make(recipe, options)
        if plan is None or plan.recipe is not recipe:
            if len(self._plans) >= MOST_PLANS:
                self._plans.clear()
            plan = self._plans[key] = self._make(recipe, options)
        return plan

    def _make(self, recipe: Recipe, options: CommonOptions) -> Plan:
        lane, agent, priority = options.get("lane"), options.get("agent"), options.get("priority")
        lane = recipe.lane if lane is None else check_name("lane", lane)
        durability = options.get("durability")
        if durability not in (None, "agent", "master"):
            raise OptionInvalid("durability", durability, "'agent' (the default) or 'master'")
        candidates = self._candidates(recipe.agent if agent is None else agent, lane)
        template = Job(
            id="",
            handler=recipe.handler,
            lane=lane,
            priority=recipe.priority if priority is None else priority_named(priority),
            agent=candidates[0] if len(candidates) == 1 else None,
            created_us=0,
            original_due_us=0,
            due_us=0,
            policy=_policy(recipe.policy, options).encode(),
            labels=Labels(title=recipe.title).encode(),
        )
        return Plan(template=template, route=Route(candidates, durability == "master"), recipe=recipe)

    def _candidates(self, agent: str | None, lane: str) -> tuple[str, ...]:
        if agent is None:
            return self._by_lane.get(lane) or self._agents
        check_name("agent", agent)
        if agent not in self._agents:
            raise OptionInvalid("agent", agent, f"an agent of this cluster: {', '.join(self._agents) or '(none)'}")
        return (agent,)

    def job(self, plan: Plan, data: Any, due_us: int, now_us: int, options: Options) -> Job:
        """One job, `queued`, in its first epoch. Raises `DataInvalid` for its data or metadata, else as `plan`."""
        raw = plan.recipe.encode(data, limit=self._limit)
        if not options:
            return replace(
                plan.template, id=new_id(), data=raw, created_us=now_us, original_due_us=due_us, due_us=due_us
            )
        check_known(options)
        own_id, expires_at = options.get("id"), options.get("expires_at")
        expires_us = None if expires_at is None else to_us("expires_at", expires_at)
        if expires_us is not None and expires_us <= due_us:
            raise OptionInvalid("expires_at", expires_at, "an instant after now and after the due time")
        return replace(
            plan.template,
            id=new_id() if own_id is None else self._own_id(own_id, plan.route),
            data=raw,
            created_us=now_us,
            original_due_us=due_us,
            due_us=due_us,
            expires_us=expires_us,
            labels=self.labels(options, plan.recipe),
        )

    @staticmethod
    def _own_id(value: object, route: Route) -> str:
        own = job_id_of(value)
        if not route.through_master and len(route.candidates) != 1:
            # Two calls could draw two agents, and both would hold the job.
            raise OptionInvalid(
                "id", own, "with several agents also agent=…, a lane or handler bound to one, or durability='master'"
            )
        return own

    def labels(self, options: CommonOptions, recipe: Recipe) -> bytes | None:
        """Title, tags and metadata, checked and encoded."""
        title, tags, metadata = options.get("title"), options.get("tags"), options.get("metadata")
        if title is None:
            title = recipe.title
        if title is None and tags is None and metadata is None:
            return None
        return Labels(
            title=None if title is None else check_title(title),
            tags=() if tags is None else check_tags(tags),
            metadata={} if metadata is None else self._metadata(metadata),
        ).encode()

    def _metadata(self, metadata: object) -> dict[str, Any]:
        if not isinstance(metadata, Mapping):
            raise DataInvalid([Problem("$", "expected a mapping from names to values")], "metadata")
        raw = portable.encode(metadata, limit=self._limit, what="metadata")
        plain: dict[str, Any] = msgspec.json.decode(raw)
        return plain


def priority_named(value: object) -> Priority:
    """Raises `OptionInvalid`."""
    if isinstance(value, Priority):
        return value
    found = PRIORITIES.get(value.lower().replace("-", "_")) if isinstance(value, str) else None
    if found is None:
        raise OptionInvalid("priority", value, f"a Priority or one of {', '.join(PRIORITIES)}")
    return found


def _policy(policy: Policy, options: CommonOptions) -> Policy:
    timeout, retry = options.get("timeout"), options.get("retry")
    if timeout is not None:
        policy = replace(policy, timeout_us=duration_us("timeout", timeout))
    if retry is not None:
        if not isinstance(retry, Retry):
            raise OptionInvalid("retry", retry, "a Retry, e.g. Retry.exponential(max_attempts=6) or Retry.never()")
        policy = replace(policy, retry=retry)
    return policy
