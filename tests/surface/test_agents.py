"""`jobmaster agents`: the stores behind the names, and pointing a name at another one on purpose."""

import io
import json
from pathlib import Path

import pytest

from jobmaster import Cluster, ClusterBuilder
from jobmaster.cli.eventloop import run_async
from jobmaster.contracts.clock import SystemClock
from jobmaster.contracts.values import Control, ControlKind, StoreMode
from jobmaster.diagnosis import make_agent
from jobmaster.master import open_master
from jobmaster.model.errors import ConfigurationError
from jobmaster.model.states import JobState
from tests.support import eventually
from tests.surface.conftest import Cli

SETTINGS = """
name = "shop"

[master]
url = "sqlite:///master.db"

[agents.mail]
url = "sqlite:///{file}.db"

[[workers]]
agent = "mail"
"""


def use(file: str) -> Cluster:
    """The settings name that file for agent `mail`."""
    Path("jobmaster.toml").write_text(SETTINGS.format(file=file))
    return ClusterBuilder.from_toml("jobmaster.toml").build()


async def start_and_leave_a_job(cluster: Cluster) -> str:
    async with cluster.run() as runtime:
        # Nobody knows its handler, so it waits.
        job = await runtime.scheduler.once_now("unknown-here", {}, durability="master")
        return job.id


def entries(cli: Cli) -> list[dict[str, object]]:
    done = cli("agents", "list", "--json")
    assert done.code == 0, done.err
    listed = json.loads(done.out)
    assert isinstance(listed, list)
    return listed


def test_a_name_stays_with_its_store_until_it_is_pointed_at_another(cli: Cli) -> None:
    job_id = run_async(start_and_leave_a_job(use("one")))
    [before] = entries(cli)
    assert (before["name"], before["kind"], before["quarantined"]) == ("mail", "sqlite", None)

    cluster = use("two")
    with pytest.raises(ConfigurationError, match=r"another store.*jobmaster agents repoint mail"):
        run_async(cluster.start())
    done = cli("agents", "repoint", "mail")
    assert (done.code, str(before["fingerprint"]) in done.out) == (0, True)
    [now] = entries(cli)
    assert now["fingerprint"] != before["fingerprint"]

    async def place_anew() -> None:
        async with cluster.run() as runtime:

            async def there() -> bool:
                [job] = await runtime.agents["mail"].find([job_id])
                return job is not None and job.state is JobState.QUEUED and job.epoch > 1

            await eventually(there, within=20, what="the job of the old store waits in the new one")
            assert (await runtime.agents["mail"].probe()).mode is StoreMode.OPEN

    run_async(place_anew())
    [after] = entries(cli)
    assert after["incarnation"] != now["incarnation"]
    assert after["quarantined"] is None


def test_pointing_a_name_nobody_uses_is_refused(cli: Cli) -> None:
    cluster = use("one")
    assert cli("agents", "repoint", "mails").code == 2
    run_async(migrated(cluster))
    done = cli("agents", "repoint", "mail")
    assert done.code == 1
    assert "knows no agent 'mail' yet" in done.err
    assert "knows no agent yet" in cli("agents", "list").out


async def migrated(cluster: Cluster) -> None:
    master = open_master(cluster.settings.master.url.get_secret_value(), cluster="shop", clock=SystemClock())
    await master.open()
    await master.close()


def test_a_quarantined_agent_is_named_wherever_one_looks(cli: Cli) -> None:
    cluster = use("one")
    run_async(start_and_leave_a_job(cluster))

    async def close_it() -> None:
        agent = make_agent(cluster.settings, "mail", SystemClock(), migrate=False)
        await agent.open()
        await agent.control(Control(ControlKind.QUARANTINE))
        await agent.close()
        master = open_master(cluster.settings.master.url.get_secret_value(), cluster="shop", clock=SystemClock())
        await master.open()
        await master.note_quarantine("mail", "it was set back")
        await master.close()

    run_async(close_it())
    assert "in quarantine: it was set back" in cli("agents", "list").out
    found = cli("doctor").out
    assert "agent 'mail' is in quarantine: it was set back" in found
    assert "nothing is claimed or put until a coordinator has reconciled it" in found
    assert "agent mail is in quarantine" in cli("stats").out
    assert json.loads(cli("stats", "--json").out)["quarantined"] == ["mail"]


TWO = """
name = "shop"

[master]
url = "sqlite:///master.db"

[agents.mail]
url = "sqlite:///mail.db"

[agents.post]
url = "sqlite:///post.db"
"""


def test_an_agent_is_drained_decommissioned_and_taken_back_in(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("jobmaster.toml").write_text(TWO)
    cluster = ClusterBuilder.from_toml("jobmaster.toml").build()

    async def leave_jobs() -> None:
        async with cluster.run() as runtime:
            for _ in range(3):
                await runtime.scheduler.once_now("unknown-here", {}, agent="mail")

    run_async(leave_jobs())
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    asked = cli("agents", "drain", "mail")
    assert (asked.code, "3 waiting" in asked.err) == (1, True), asked
    assert cli("agents", "decommission", "mail", "--yes").code == 1
    done = cli("agents", "drain", "mail", "--to", "post", "--yes")
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1] == "agent mail is drained"
    states = {str(entry["name"]): entry["state"] for entry in entries(cli)}
    assert states == {"mail": "drained", "post": "open"}
    assert "drained to post" in cli("agents", "list").out

    async def there() -> int:
        async with cluster.connect() as scheduler:
            page = await scheduler.list(agent="post")
            return len(page.jobs)

    assert run_async(there()) == 3
    assert "agent mail is retired" in cli("agents", "decommission", "mail", "--yes").out
    told = json.loads(cli("agents", "history", "mail", "--json").out)
    assert [event["kind"] for event in told] == ["agent.retired", "agent.drained", "agent.draining", "agent.entered"]
    assert all("@" in event["who"] for event in told)
    assert "by " in cli("agents", "history").out
    assert "agent mail is open" in cli("agents", "resume", "mail").out
    assert "agent mail is paused" in cli("agents", "pause", "mail").out
    assert cli("agents", "pause", "nowhere").code == 2
