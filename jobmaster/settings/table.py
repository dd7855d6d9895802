"""The table of all settings for the documentation, generated so that it cannot be wrong."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from jobmaster.settings.models import ENVIRONMENT_PREFIX, SEPARATOR, AgentSettings, ClusterSettings, WorkerSettings
from jobmaster.settings.units import seconds_of

PLACES: Mapping[str, tuple[str, str, type[BaseModel]]] = {
    "agents": ("agents.NAME", "AGENTS__NAME", AgentSettings),
    "workers": ("[[workers]]", "WORKERS__0", WorkerSettings),
}
"""Sections of which there are many: how a file and a variable name one of them."""


class SettingRow(NamedTuple):
    """One setting."""

    key: str
    variable: str
    default: str
    meaning: str


def setting_rows() -> Iterator[SettingRow]:
    """Every setting there is, in the order of the models."""
    for name, field in ClusterSettings.model_fields.items():
        if name in PLACES:
            key, variable, model = PLACES[name]
            yield from _section(
                key, f"{ENVIRONMENT_PREFIX}{variable}", model, skip={"name"} if name == "agents" else set()
            )
        else:
            yield from _rows(name, f"{ENVIRONMENT_PREFIX}{name.upper()}", field)


def settings_table() -> str:
    """The rows as a Markdown table."""
    lines = ["| TOML key | environment variable | default | meaning |", "|---|---|---|---|"]
    for row in setting_rows():
        meaning = row.meaning.replace("|", "\\|")
        lines.append(f"| `{row.key}` | `{row.variable}` | {row.default} | {meaning} |")
    return "\n".join(lines) + "\n"


def _section(key: str, variable: str, model: type[BaseModel], skip: set[str]) -> Iterator[SettingRow]:
    for name, field in model.model_fields.items():
        if name not in skip:
            yield from _rows(f"{key}.{name}", f"{variable}{SEPARATOR}{name.upper()}", field)


def _rows(key: str, variable: str, field: FieldInfo) -> Iterator[SettingRow]:
    if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
        yield from _section(key, variable, field.annotation, skip=set())
    else:
        yield SettingRow(key, variable, _default(key, field), field.description or "")


def _default(key: str, field: FieldInfo) -> str:
    if key == "master.url":
        return f"`{ClusterSettings().master.url.get_secret_value()}`"
    if field.is_required():
        return "required"
    value: Any = field.default
    if value is None:
        return "none"
    if isinstance(value, SecretStr):
        return "…"
    if any(getattr(part, "func", None) is seconds_of for part in field.metadata):
        return f"{value:g} s"
    if isinstance(value, Mapping):
        return ", ".join(f"`{name}`" for name in value) or "empty"
    if value in ("", ()):
        return "empty"
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value:,}" if isinstance(value, int) else f"`{value}`"
