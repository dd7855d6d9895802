"""Transports by URL scheme."""

from importlib.metadata import EntryPoint
from typing import Any

import pytest

from jobmaster import ConfigurationError
from jobmaster.contracts.clock import SystemClock
from jobmaster.settings import AgentSettings
from jobmaster.transports import GROUP, known_schemes, make_transport


def agent(url: str) -> AgentSettings:
    return AgentSettings.model_validate({"name": "one", "url": url})


def registered(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    entry = EntryPoint(name="rabbit", value=value, group=GROUP)
    monkeypatch.setattr("jobmaster.transports.entry_points", lambda **_: [entry])


def test_the_built_in_schemes_are_known() -> None:
    assert {"memory", "sqlite"} <= set(known_schemes())


def test_the_scheme_chooses_the_transport() -> None:
    made = make_transport(agent("memory:"), "shop", SystemClock())

    assert made.name == "one"
    assert type(made).__name__ == "MemoryAgent"


def test_a_near_scheme_is_proposed() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'memory'"):
        make_transport(agent("memry:"), "shop", SystemClock())


def test_a_transport_of_another_package_needs_no_change_here(monkeypatch: pytest.MonkeyPatch) -> None:
    registered(monkeypatch, f"{__name__}:Rabbit")
    monkeypatch.setitem(__import__("sys").modules, __name__, __import__("types").SimpleNamespace(Rabbit=Rabbit))

    made: Any = make_transport(agent("rabbit://host"), "shop", SystemClock())

    assert made.asked == ("rabbit://host", "shop", "one", {})


class Rabbit:
    def __init__(self, url: str, *, cluster: str, name: str, clock: object, options: dict[str, Any]) -> None:
        assert clock is not None
        self.asked = (url, cluster, name, options)


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    registered(monkeypatch, "no_such_driver_anywhere:Agent")

    with pytest.raises(ConfigurationError, match="its driver 'no_such_driver_anywhere' is not installed"):
        make_transport(agent("rabbit://host"), "shop", SystemClock())


def test_a_broken_entry_point_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    registered(monkeypatch, "jobmaster.transports:Nothing")

    with pytest.raises(ConfigurationError, match=r"'jobmaster\.transports:Nothing' for 'rabbit' cannot be loaded"):
        make_transport(agent("rabbit://host"), "shop", SystemClock())
