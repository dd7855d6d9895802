"""Pydantic's errors as sentences that name the setting, the value, what was expected and what to do."""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_core import ErrorDetails

from jobmaster.model.errors import quoted

SECRET = frozenset({"master", "agents"})
"""Sections whose values are never shown: a URL may stand anywhere in them by mistake."""
_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,64}")


def faults_of(error: ValidationError, tree: Mapping[str, Any]) -> list[str]:
    """One sentence per fault, in the order of the settings. Nothing of a URL or a store's options is shown."""
    from jobmaster.settings.models import ClusterSettings

    faults = []
    for entry in error.errors(include_url=False, include_context=True):
        where = tuple(part for part in entry["loc"] if part != "[key]")
        path = path_of(where)
        if entry["type"] == "extra_forbidden":
            faults.append(_unknown(where, path, ClusterSettings))
        elif entry["type"] == "missing":
            faults.append(f"{path}: not given; it is required")
        elif entry["type"] == "value_error":
            message = str(entry.get("ctx", {}).get("error", entry["msg"]))
            faults += [_at(path, _shown(tree, where, message), line) for line in message.splitlines()]
        else:
            faults.append(f"{path}{_shown(tree, where, '')}: {_worded(entry)}")
    return faults


def path_of(where: Sequence[int | str]) -> str:
    """`workers[0].slots`, as the messages name a setting."""
    path = ""
    for part in where:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            name = part if _PLAIN.fullmatch(part) else quoted(part)
            path += f".{name}" if path else name
    return path or "the configuration"


def _at(path: str, value: str, message: str) -> str:
    # A check across sections names its settings itself.
    return message if path == "the configuration" else f"{path}{value}: {message}"


def _shown(tree: Mapping[str, Any], where: Sequence[int | str], message: str) -> str:
    """`=value`, unless it is secret, a whole section, or in the message already."""
    found: Any = tree
    for part in where:
        try:
            found = found[part]
        except (KeyError, IndexError, TypeError):
            return ""
    if SECRET & set(where) or isinstance(found, (Mapping, list, tuple, SecretStr)) or quoted(found) in message:
        return ""
    return f"={quoted(found)}"


def _unknown(where: Sequence[int | str], path: str, model: type[BaseModel]) -> str:
    known = _fields_at(model, where[:-1])
    near = difflib.get_close_matches(str(where[-1])[:80], known, n=1, cutoff=0.5)
    hint = f"did you mean {quoted(near[0])}?" if near else f"known here: {', '.join(sorted(known))}"
    return f"{path}: no such setting; {hint}"


def _fields_at(model: type[BaseModel], where: Sequence[int | str]) -> list[str]:
    from jobmaster.settings.models import AgentSettings, WorkerSettings

    if where[:1] == ("agents",):
        return [name for name in AgentSettings.model_fields if name != "name"]
    if where[:1] == ("workers",):
        return list(WorkerSettings.model_fields)
    for part in where:
        annotation = model.model_fields[str(part)].annotation
        assert isinstance(annotation, type)
        assert issubclass(annotation, BaseModel)
        model = annotation
    return list(model.model_fields)


def _worded(entry: ErrorDetails) -> str:
    expected = _EXPECTED.get(entry["type"])
    if expected is None:
        return entry["msg"][:1].lower() + entry["msg"][1:]
    return "expected " + expected.format(**entry.get("ctx", {}))


_EXPECTED: Mapping[str, str] = {
    "dict_type": "a table",
    "enum": "{expected}",
    "finite_number": "a finite number",
    "float_parsing": "a number",
    "float_type": "a number",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "less_than_equal": "at most {le}",
    "list_type": "a list",
    "literal_error": "{expected}",
    "mapping_type": "a table",
    "model_type": "a table of settings",
    "string_type": "text",
    "tuple_type": "a list",
}
"""Pydantic's kinds of error in the words of a file of settings."""
