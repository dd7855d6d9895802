"""The environment as a source of settings: `JOBMASTER_TIMINGS__LEASE_TTL=20`, read by pydantic-settings.

A name in a variable cannot hold a dash, so `JOBMASTER_AGENTS__TRANSPORT_1__URL` also means the agent `transport-1`
where the file or the code names that one.
"""

import difflib
import json
import os
from collections.abc import Mapping
from typing import Any

from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsError

from jobmaster.model.errors import quoted
from jobmaster.settings.merging import merge_list
from jobmaster.settings.models import ENVIRONMENT_PREFIX, SEPARATOR, ClusterSettings


def read_environment(agents: Mapping[str, Any], faults: list[str]) -> dict[str, Any]:
    """What the environment sets, nested; what cannot be read in it, and what is nearly a setting, is a fault."""
    faults.extend(_mistyped())
    try:
        source = _source()
        tree: dict[str, Any] = source()
    except SettingsError as error:
        faults.append(f"the environment cannot be read: {error}; a table or list in one variable is written as JSON")
        return {}
    listed = tree.get("workers")
    if isinstance(listed, list):
        # A list in one variable hides those that set a field of it.
        fields = source.explode_env_vars("workers", ClusterSettings.model_fields["workers"], source.env_vars)
        tree["workers"] = merge_list(listed, fields)
    named = tree.get("agents")
    if isinstance(named, Mapping):
        dashed = {name.replace("-", "_"): name for name in agents}
        tree["agents"] = {name if name in agents else dashed.get(name, name): agent for name, agent in named.items()}
    return {key: _plain(value) for key, value in tree.items()}


def _source() -> EnvSettingsSource:
    # The source asks its class for field names and types only, so the settings need not be pydantic-settings' own.
    shape = type("Environment", (BaseSettings, ClusterSettings), {})
    return EnvSettingsSource(shape, env_prefix=ENVIRONMENT_PREFIX, env_nested_delimiter=SEPARATOR)


def _plain(value: Any) -> Any:
    # Deep values arrive as the text of the variable where pydantic-settings cannot know the type.
    if isinstance(value, str) and value[:1] in {"{", "["}:
        try:
            return json.loads(value)
        except ValueError:
            return value
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return value


def unused_variables() -> list[str]:
    """Variables with our prefix that are no settings, sorted."""
    sections = _sections()
    return [
        variable
        for variable in sorted(os.environ)
        if variable.upper().startswith(ENVIRONMENT_PREFIX) and variable.upper().partition(SEPARATOR)[0] not in sections
    ]


def _sections() -> set[str]:
    return {f"{ENVIRONMENT_PREFIX}{name}".upper() for name in ClusterSettings.model_fields}


def _mistyped() -> list[str]:
    """Variables that set nothing, but look as if they should. Others with our prefix are left alone: a container
    platform makes `JOBMASTER_SERVICE_HOST` out of a service of that name."""
    sections = _sections()
    known = {
        f"{ENVIRONMENT_PREFIX}{section}{SEPARATOR}{name}".upper()
        for section, field in ClusterSettings.model_fields.items()
        if isinstance(field.annotation, type)
        for name in getattr(field.annotation, "model_fields", ())
    } | sections
    faults = []
    for variable in unused_variables():
        near = difflib.get_close_matches(variable.upper(), sorted(known), n=1, cutoff=0.9)
        if near:
            faults.append(f"{quoted(variable)} in the environment is no setting; did you mean {near[0]}?")
    return faults
