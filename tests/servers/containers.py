"""Servers in containers, by testcontainers, where a Docker engine answers."""

import contextlib
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from tests.servers.errors import Unavailable
from tests.support import until

START_SECONDS = 120.0


class Container(Protocol):
    """What is used of testcontainers' `DockerContainer`."""

    def start(self) -> Any: ...
    def stop(self) -> None: ...
    def get_container_host_ip(self) -> str: ...
    def get_exposed_port(self, port: int) -> Any: ...


@dataclass(frozen=True)
class Recipe:
    """How a kind of server is run from an image."""

    image: str
    port: int
    url: str
    env: Mapping[str, str] = field(default_factory=dict)
    command: str | None = None
    hello: bytes = b""
    """What a client says first, to a server that does not."""


RECIPES = {
    "postgres": Recipe(
        "postgres:18",
        5432,
        "postgresql://postgres@{host}:{port}/postgres",
        env={"POSTGRES_HOST_AUTH_METHOD": "trust"},
        hello=b"\x00\x00\x00\x08\x04\xd2\x16\x2f",  # asks for TLS; the answer is one byte, yes or no
    ),
    "mysql": Recipe(
        "mariadb:10.11",
        3306,
        "mysql://root@{host}:{port}/mysql",
        env={"MARIADB_ALLOW_EMPTY_ROOT_PASSWORD": "1"},
    ),
    "nats": Recipe("nats:2.15", 4222, "nats://{host}:{port}", command="-js"),
}


def engine_answers() -> bool:
    """Whether there is a Docker engine to talk to."""
    try:
        import docker

        client = docker.from_env(timeout=3)
    except Exception:  # whatever is missing, there is no engine
        return False
    with contextlib.closing(client):
        try:
            return bool(client.ping())
        except Exception:
            return False


def start_container(kind: str, make: Callable[..., Container] | None = None) -> tuple[str, Callable[[], None]]:
    """The URL of a server in a container of its own, and how to stop it. Raises `Unavailable`."""
    recipe = RECIPES[kind]
    options: dict[str, Any] = {"env": dict(recipe.env), "ports": [recipe.port]}
    if recipe.command is not None:
        options["command"] = recipe.command
    try:
        container = (make or _docker_container())(recipe.image, **options)
        container.start()
    except Exception as error:  # the client raises whatever its transport does
        raise Unavailable(f"no container of {recipe.image}: {error}") from error
    try:
        host, port = container.get_container_host_ip(), int(container.get_exposed_port(recipe.port))
        until(lambda: _answers(host, port, recipe.hello), START_SECONDS, f"{recipe.image} answers at {host}:{port}")
    except BaseException:
        container.stop()
        raise
    return recipe.url.format(host=host, port=port), container.stop


def _docker_container() -> Callable[..., Container]:
    try:
        from testcontainers.core.container import DockerContainer
    except ModuleNotFoundError as error:
        raise Unavailable("no testcontainers: install the extra [dev]") from error
    make: Callable[..., Container] = DockerContainer
    return make


def _answers(host: str, port: int, hello: bytes) -> bool:
    """Whether the server itself talks; the engine's own proxy takes connections long before."""
    try:
        with socket.create_connection((host, port), timeout=2) as client:
            client.sendall(hello)
            return client.recv(1) != b""
    except OSError:
        return False
