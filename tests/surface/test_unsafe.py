"""A store whose settings break a promise: refused by name, unless the operator accepts it."""

import json
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.surface.shell import Shell

pytestmark = pytest.mark.slow


@pytest.fixture
def forgetful(shell: Shell, postgres_url: str) -> Path:
    """A cluster whose agent's database does not wait for the disk."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {urlsplit(postgres_url).path[1:]} SET synchronous_commit = off".encode())
    config = shell.folder / "jobmaster.toml"
    master = f'[master]\nurl = "sqlite:///{shell.folder}/master.db"\n'
    agent = f'[agents.orders]\nurl = "{postgres_url}"\n[[workers]]\nagent = "orders"\n'
    config.write_text(f'name = "shop"\n{master}{agent}')
    return config


@pytest.mark.parametrize("command", ["run", "worker"])
def test_an_unsafe_store_is_refused_unless_it_is_accepted(shell: Shell, forgetful: Path, command: str) -> None:
    refusal = shell(command, "--config", forgetful)

    assert refusal.returncode == 3
    for expected in ("orders", "synchronous_commit", "'off'", "ALTER", "accept_unsafe"):
        assert expected in refusal.stderr
    said = "agent orders: synchronous_commit is 'off': a power failure can lose"
    with shell.running(command, "--config", str(forgetful), "--accept-unsafe", ready=said) as process:
        assert process.poll() is None


def test_doctor_names_it_and_what_is_lost(shell: Shell, forgetful: Path) -> None:
    fault = shell("doctor", "--config", forgetful, "--json")
    forgetful.write_text(forgetful.read_text() + "[agents.orders.options]\naccept_unsafe = true\n")
    assert shell("migrate", "--config", forgetful).returncode == 0
    accepted = shell("doctor", "--config", forgetful, "--json")

    assert (fault.returncode, accepted.returncode) == (1, 0)
    for said, level in ((fault, "fault"), (accepted, "note")):
        [finding] = [found for found in json.loads(said.stdout) if "synchronous_commit is" in found["text"]]
        assert finding["level"] == level
        assert "lose jobs that were acknowledged" in finding["text"]
