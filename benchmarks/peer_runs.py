"""The peers: packages from PyPI, each in an environment of its own, at the best of several settings.

An environment is made once, in the folder that JOBMASTER_BENCH_CACHE names (else ~/.cache/jobmaster-bench), with the
newest Python of 3.12 or later that is on the path. A peer that can't be installed or run is left out, by name and
reason.
"""

import json
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CACHE = Path(os.environ.get("JOBMASTER_BENCH_CACHE", "~/.cache/jobmaster-bench")).expanduser()
PROGRAMS = Path(__file__).parent / "peers"
TIMEOUT = 900


@dataclass(frozen=True)
class Peer:
    """`expected` are the jobs/s it drained when the targets were set: under 0.7 of the lower it is mis-tuned here."""

    name: str
    package: str
    expected: tuple[float, float] | None
    settings: tuple[dict[str, Any], ...]
    largest: int = 1_000_000
    """The most jobs it is given in one run, where it would take too long."""
    extra: tuple[str, ...] = field(default=())


PEERS = (
    Peer(
        "pgqueuer",
        "pgqueuer[asyncpg]",
        (2_500, 9_200),
        (
            {"consumers": 2, "batch": 50, "tasks": 100},
            {"consumers": 1, "batch": 50, "tasks": 100},
            {"consumers": 5, "batch": 10, "tasks": 20},
            {"consumers": 1, "batch": 500, "tasks": 0},
            {"consumers": 3, "batch": 200, "tasks": 0},
        ),
    ),
    Peer(
        "awa",
        "awa-pg",
        (2_400, 4_400),
        (
            {"pool": 20, "workers": 100, "poll_ms": 20, "storage": "canonical"},
            {"pool": 20, "workers": 100, "poll_ms": 20, "storage": "queue"},
            {"pool": 20, "workers": 500, "poll_ms": 20, "storage": "queue"},
        ),
    ),
    Peer(
        "oban",
        "oban",
        (1_500, 2_500),
        (
            {"pool": 10, "limit": 100, "debounce": 0.005},
            {"pool": 10, "limit": 100, "debounce": 0.001},
            {"pool": 10, "limit": 500, "debounce": 0.005},
        ),
        largest=20_000,
        extra=("psycopg[binary,pool]",),
    ),
    Peer(
        "chancy",
        "chancy",
        None,
        (
            {"pool": 10, "concurrency": 100, "poll": 0.01, "flush": 0.05},
            {"pool": 10, "concurrency": 100, "poll": 0.05, "flush": 0.1},
            {"pool": 10, "concurrency": 500, "poll": 0.05, "flush": 0.1},
        ),
        largest=20_000,
        extra=("psycopg[binary,pool]",),
    ),
    Peer(
        "procrastinate",
        "procrastinate",
        (150, 250),
        (
            {"pool": 20, "concurrency": 100, "delete": "successful"},
            {"pool": 10, "concurrency": 30, "delete": "never"},
            {"pool": 10, "concurrency": 10, "delete": "never"},
        ),
        largest=2_000,
        extra=("psycopg[binary,pool]",),
    ),
)


def python() -> str:
    """A Python that all peers run on. Raises FileNotFoundError."""
    for minor in (13, 12):
        found = shutil.which(f"python3.{minor}")
        if found and subprocess.run([found, "-c", ""], capture_output=True).returncode == 0:
            return found
    versions = sorted(Path("~/.pyenv/versions").expanduser().glob("3.1[2-9].*/bin/python3"))
    if versions:
        return str(versions[0])
    raise FileNotFoundError("no Python 3.12 or later: peers need one")


def installed(peer: Peer) -> tuple[Path, str]:
    """The interpreter of the peer's environment, and the peer's version. Raises CalledProcessError."""
    folder = CACHE / peer.name
    binary = folder / "bin" / "python"
    if not (folder / ".complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([python(), "-m", "venv", str(folder)], check=True, capture_output=True)
        command = [str(binary), "-m", "pip", "install", "--quiet", peer.package, "uvloop", *peer.extra]
        subprocess.run(command, check=True, capture_output=True, text=True)
        (folder / ".complete").touch()
    name = peer.package.partition("[")[0]
    program = f"from importlib.metadata import version; print(version({name!r}))"
    found = subprocess.run([str(binary), "-c", program], check=True, capture_output=True, text=True)
    return binary, found.stdout.strip()


def run(peer: Peer, url: str, what: str, n: int, settings: dict[str, Any]) -> dict[str, float]:
    """One measurement in a process of its own. Raises RuntimeError with the end of what it printed."""
    binary, _ = installed(peer)
    order = json.dumps({"url": url, "what": what, "n": n, "settings": settings})
    command = [str(binary), str(PROGRAMS / f"{peer.name}_peer.py"), order]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{peer.name} took more than {TIMEOUT} s") from None
    if done.returncode:
        raise RuntimeError(f"{peer.name}: {done.stderr.strip()[-300:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found
