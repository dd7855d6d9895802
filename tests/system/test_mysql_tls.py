"""The way to a MySQL server is encrypted where that is asked for, and the server is whom its certificate names."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pymysql
import pytest

from jobmaster import ClusterBuilder, JobContext, JobHandler
from jobmaster.contracts.clock import SystemClock
from jobmaster.master import open_master
from jobmaster.model.errors import AgentUnreachable, ConfigurationError, MasterUnavailable, Refused
from jobmaster_agents.mysql import MysqlAgent
from tests.servers import Mariadb
from tests.servers.certificates import make_certificates
from tests.servers.databases import create_database

pytestmark = pytest.mark.asyncio


class Hello(JobHandler):
    async def execute(self, job: JobContext) -> str:
        return "hello"


def agent_at(url: str, **options: Any) -> MysqlAgent:
    return MysqlAgent(url, cluster="c", name="a", options=options)


def master_at(url: str, **options: Any) -> Any:
    return open_master(url, cluster="c", clock=SystemClock(), options=options)


async def test_a_cluster_works_encrypted_and_checks_who_it_talks_to(own_mariadb: Callable[..., Mariadb]) -> None:
    # In a folder that the server, which may run as somebody else, can read.
    plain = own_mariadb()
    made = make_certificates(plain.folder)
    server = own_mariadb(settings={"ssl_cert": str(made.certificate), "ssl_key": str(made.key)})
    with pymysql.connect(host="127.0.0.1", port=server.port, user="root") as operator:
        cursor = operator.cursor()
        cursor.execute("CREATE USER careful@localhost IDENTIFIED BY 'secret' REQUIRE SSL")
        cursor.execute("GRANT ALL ON *.* TO careful@localhost")
    url = create_database(server.url).replace("root@", "careful:secret@")

    tls = {"ca": str(made.authority)}
    config = ClusterBuilder("c").ignore_environment().add_handlers(Hello).use_mysql_for_master(url, tls=tls)
    config.add_agent("a").use_mysql_for_agent(url, tls=tls)
    config.add_worker().agent("a")
    async with config.build().run() as runtime:
        job = await runtime.scheduler.once_now(Hello)
        assert await job.result(timeout=20) == "hello"

    agent = agent_at(url, tls=tls)
    await agent.open()
    [session] = agent.verbs.store.database._idle
    socket = session._raw._writer.get_extra_info("socket")
    assert socket.fileno() > 0
    await agent.close()
    assert socket.fileno() == -1, "closed when close returns, not some turns of the loop later"

    option: Any
    for option in (True, {}):
        with pytest.raises(AgentUnreachable, match="certificate verify failed"):
            await agent_at(url, tls=option).open()
    with pytest.raises(MasterUnavailable, match="certificate verify failed"):
        await master_at(url, tls=True).open()
    with pytest.raises(Refused, match="Access denied"):
        await agent_at(url).open()

    # MariaDB 10.11 without a certificate offers no TLS.
    with pytest.raises(Refused, match="offers no TLS; give the server a certificate"):
        await agent_at(plain.url, tls=tls).open()
    with pytest.raises(Refused, match="offers no TLS"):
        await master_at(plain.url, tls=tls).open()


async def test_nothing_is_sent_to_who_takes_the_offer_away(tmp_path: Path) -> None:
    sent = asyncio.get_running_loop().create_future()

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Protocol 10, version, thread, half of the salt, capabilities without SSL, charset, status, the rest.
        body = b"\n8.0.36\0" + bytes(4) + b"12345678\0" + b"\xff\xf7\x2d\x02\x00\xff\x81\x15" + bytes(10)
        body += b"123456789012\0mysql_native_password\0"
        writer.write(len(body).to_bytes(3, "little") + b"\0" + body)
        sent.set_result(await reader.read(1000))
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        with pytest.raises(Refused, match="offers no TLS"):
            await agent_at(f"mysql://ada:secret@127.0.0.1:{port}/jobs", tls=True).open()
        assert await sent == b""


@pytest.mark.parametrize("tls", ["yes", {"file": "x"}, {"key": "x"}, {"ca": "/nowhere/ca.pem"}])
async def test_an_option_that_can_not_be_is_told_before_anything_is_opened(tls: Any) -> None:
    for make in (agent_at, master_at):
        with pytest.raises(ConfigurationError, match="tls"):
            make("mysql://localhost/jobs", tls=tls)
    with pytest.raises(ConfigurationError, match="socket"):
        agent_at("mysql://localhost/jobs?unix_socket=/x", tls=True)
