"""What a NATS server has to be: judged without one."""

from typing import Any

import pytest

from jobmaster_agents.nats.safety import Server, faults, findings


def server(**fields: Any) -> Server:
    values: dict[str, Any] = {
        "version": (2, 14, 6),
        "max_payload": 1_048_576,
        "jetstream": True,
        "nodes": frozenset(),
        "replicas": 1,
        "syncs": {"n1": True},
    }
    return Server(**{**values, **fields})


def found(given: Server, *, lazy: bool = False) -> list[tuple[str, str]]:
    return [(fault.setting, fault.found) for fault in faults(given, needed_payload=1_048_576, lazy=lazy)]


def test_a_server_that_syncs_is_safe() -> None:
    assert found(server()) == []
    assert findings(server(), lazy=True) == []


@pytest.mark.parametrize(
    ("version", "fine"),
    [
        ((2, 9, 10), False),
        ((2, 11, 16), False),
        ((2, 12, 6), False),
        ((2, 12, 7), True),
        ((2, 12, 11), True),
        ((2, 13, 9), False),
        ((2, 14, 0), True),
        ((2, 15, 1), True),
        ((3, 0, 0), True),
    ],
)
def test_releases_with_known_faults_are_refused(version: tuple[int, int, int], fine: bool) -> None:
    assert (found(server(version=version)) == []) is fine


def test_a_small_payload_is_refused() -> None:
    assert found(server(max_payload=65_536)) == [("max_payload", "65536")]


@pytest.mark.parametrize(
    ("syncs", "nodes", "says"),
    [
        ({}, frozenset(), "unknown"),
        ({"n1": False}, frozenset(), "not 'always' on n1"),
        ({"n1": True, "n2": True}, frozenset({"n1", "n2", "n3"}), "unknown of n3"),
        ({"n1": True, "n2": False, "n3": True}, frozenset({"n1", "n2", "n3"}), "not 'always' on n2"),
    ],
)
def test_what_is_acknowledged_must_be_on_disk(syncs: dict[str, bool], nodes: frozenset[str], says: str) -> None:
    given = server(syncs=syncs, nodes=nodes, replicas=3)
    assert found(given) == [("sync_interval", says)]
    [fault] = faults(given, needed_payload=1, lazy=False)
    assert fault.acceptable
    assert "accept_lazy_fsync" in fault.remedy
    # Three copies may do instead, if somebody says so; one may not.
    assert found(given, lazy=True) == []
    assert "power cut" in findings(given, lazy=True)[0]
    assert found(server(syncs=syncs, nodes=nodes, replicas=1), lazy=True) != []
