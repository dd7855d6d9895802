"""Which server a run uses: each way to one, and what is said where there is none."""

import socket
import threading
from collections.abc import Callable
from typing import Any, NoReturn

import pytest

from tests.servers import Nats, Unavailable, resolve
from tests.servers.containers import RECIPES, engine_answers, start_container
from tests.servers.fixtures import missing
from tests.servers.process import ServerProcess

KINDS = ("postgres", "mysql", "nats")


def absent(kind: str) -> NoReturn:
    raise Unavailable(f"no {kind} on this machine")


class Idle(Nats):
    """A server that is not started."""

    def start(self) -> "Idle":
        return self


def never(*_: Any) -> NoReturn:
    raise AssertionError("must not be asked")


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_is_named_is_used_and_not_stopped(kind: str) -> None:
    url = f"{kind}://example:1/x"
    environment = {f"JOBMASTER_TEST_{kind.upper()}_URL": url, "JOBMASTER_TEST_SERVERS": "containers"}
    endpoint = resolve(kind, environment, start=never, answers=never, contain=never)
    assert (endpoint.origin, endpoint.url, endpoint.process) == ("given", url, None)
    endpoint.stop()


@pytest.mark.parametrize("kind", KINDS)
def test_one_is_started_where_none_is_named(kind: str) -> None:
    process = Idle()
    asked: list[str] = []

    def start(wanted: str) -> ServerProcess:
        asked.append(wanted)
        return process

    endpoint = resolve(kind, {}, start=start, answers=never, contain=never)
    assert (endpoint.origin, endpoint.url, endpoint.process, asked) == ("started", process.url, process, [kind])
    endpoint.stop()
    assert not process.folder.exists()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("environment", "start"), [({}, absent), ({"JOBMASTER_TEST_SERVERS": "containers"}, never)], ids=["absent", "asked"]
)
def test_a_container_is_used(kind: str, environment: dict[str, str], start: Callable[[str], ServerProcess]) -> None:
    stopped: list[str] = []

    def contain(wanted: str) -> tuple[str, Callable[[], None]]:
        return f"{wanted}://container", lambda: stopped.append(wanted)

    endpoint = resolve(kind, environment, start=start, answers=lambda: True, contain=contain)
    assert (endpoint.origin, endpoint.url) == ("container", f"{kind}://container")
    endpoint.stop()
    assert stopped == [kind]


@pytest.mark.parametrize("kind", KINDS)
def test_without_any_the_reasons_are_said(kind: str) -> None:
    with pytest.raises(Unavailable) as caught:
        resolve(kind, {}, start=absent, answers=lambda: False, contain=never)
    words = str(caught.value)
    assert f"no {kind} on this machine" in words
    assert "no Docker engine answers" in words
    assert f"JOBMASTER_TEST_{kind.upper()}_URL" in words


def test_a_container_that_does_not_start_is_a_reason() -> None:
    with pytest.raises(Unavailable, match="no nats in a box"):
        resolve("nats", {}, start=absent, answers=lambda: True, contain=lambda kind: absent(f"{kind} in a box"))


def test_a_choice_that_does_not_exist_is_refused() -> None:
    with pytest.raises(Unavailable, match="JOBMASTER_TEST_SERVERS='podman': expected 'containers' or nothing"):
        resolve("nats", {"JOBMASTER_TEST_SERVERS": "podman"}, start=never, answers=never, contain=never)


@pytest.mark.parametrize("value", ["true", "1", "TRUE"])
def test_a_server_that_is_missing_fails_in_ci(value: str) -> None:
    with pytest.raises(pytest.fail.Exception, match="no nats"):
        missing("no nats", {"CI": value})


@pytest.mark.parametrize("environment", [{}, {"CI": ""}, {"CI": "false"}])
def test_a_server_that_is_missing_is_a_skip_elsewhere(environment: dict[str, str]) -> None:
    with pytest.raises(pytest.skip.Exception, match="no nats"):
        missing("no nats", environment)


class StubContainer:
    """What testcontainers' `DockerContainer` is to us: it takes connections first, and says something later."""

    made: list["StubContainer"]

    def __init__(self, image: str, **options: Any) -> None:
        self.image, self.options = image, options
        self.stopped = False
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.heard: list[bytes] = []
        type(self).made.append(self)

    def start(self) -> None:
        threading.Thread(target=self._serve, daemon=True).start()

    def stop(self) -> None:
        self.stopped = True
        self._socket.close()

    def get_container_host_ip(self) -> str:
        return "127.0.0.1"

    def get_exposed_port(self, port: int) -> str:
        assert port == self.options["ports"][0]
        return str(self._socket.getsockname()[1])

    def _serve(self) -> None:
        for number in range(2):
            client, _ = self._socket.accept()
            with client:
                self.heard.append(client.recv(64) if RECIPES["postgres"].image == self.image else b"")
                if number == 1:
                    client.sendall(b"N")


@pytest.mark.parametrize("kind", KINDS)
def test_a_container_is_ready_when_the_server_in_it_talks(kind: str) -> None:
    StubContainer.made = []
    url, stop = start_container(kind, make=StubContainer)
    container = StubContainer.made[0]
    assert container.image == RECIPES[kind].image
    assert container.heard == [RECIPES[kind].hello] * 2
    assert url == RECIPES[kind].url.format(host="127.0.0.1", port=container._socket.getsockname()[1])
    stop()
    assert container.stopped


def test_an_engine_that_refuses_is_a_reason() -> None:
    def make(image: str, **_: Any) -> NoReturn:
        raise ConnectionError("permission denied")

    with pytest.raises(Unavailable, match=r"no container of postgres:18: permission denied"):
        start_container("postgres", make=make)


def test_no_engine_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    assert engine_answers() is False
