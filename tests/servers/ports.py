"""Ports for servers that come back on the one they had."""

import random
import socket

FIRST, LAST = 20_000, 32_000
"""Below the range from which systems draw the ports of outgoing connections: else one of those could take the port of
a server that is down for a moment."""


def free_port() -> int:
    """A loopback port on which nobody listens."""
    ports = random.sample(range(FIRST, LAST), 200)
    return next(port for port in ports if not _taken(port))


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False
