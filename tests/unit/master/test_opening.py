"""From URLs to stores: what can't be opened says what it is, what was expected and what to do."""

from pathlib import Path

import pytest

from jobmaster.master import open_master
from jobmaster.master.memory import MemoryMaster
from jobmaster.master.opening import masked
from jobmaster.master.sql.master import SqlMaster
from jobmaster.model.errors import ConfigurationError, MasterUnavailable
from jobmaster.testing.clock import ManualClock
from jobmaster.testing.masters.harness import held

CLOCK = ManualClock()


def test_the_scheme_chooses_the_store(tmp_path: Path) -> None:
    assert isinstance(open_master("memory:", cluster="a", clock=CLOCK), MemoryMaster)
    assert isinstance(open_master("MEMORY://x", cluster="a", clock=CLOCK), MemoryMaster)
    assert isinstance(open_master(f"sqlite:///{tmp_path}/a.db", cluster="a", clock=CLOCK), SqlMaster)
    assert isinstance(open_master("postgresql://host/db", cluster="a", clock=CLOCK), SqlMaster)
    assert isinstance(open_master("mysql+aiomysql://host/db", cluster="a", clock=CLOCK), SqlMaster)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["", "redis://u:s3cret@host/0", "file.db", "postgres-ql://u:s3cret@h"])
def test_an_unknown_scheme_is_refused_by_name_and_without_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError, match="sqlite, postgresql, mysql, mariadb, memory") as caught:
        open_master(url, cluster="a", clock=CLOCK)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://user:s3cret@host:5432/db", "postgresql://***@host:5432/db"),
        ("mysql://user:p@ss@host/db", "mysql://***@host/db"),
        ("mysql://:s3cret@host", "mysql://***@host"),
        ("postgresql://user@host/db?password=s3cret&x=1", "postgresql://***@host/db?password=***&x=1"),
        ("sqlite:///a.db", "sqlite:///a.db"),
        ("memory:", "memory:"),
    ],
)
def test_passwords_are_masked(url: str, shown: str) -> None:
    assert masked(url) == shown


def test_unknown_options_are_refused_all_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_master("sqlite:///a.db", cluster="a", clock=CLOCK, options={"migrat": True, "pool": 5})
    assert len(caught.value.faults) == 2
    assert "'migrat' does not exist; use one of migrate" in caught.value.faults[0]
    with pytest.raises(ConfigurationError, match="migrate='yes'; expected true or false"):
        open_master("sqlite:///a.db", cluster="a", clock=CLOCK, options={"migrate": "yes"})
    with pytest.raises(ConfigurationError, match="this store has none"):
        open_master("memory:", cluster="a", clock=CLOCK, options={"migrate": True})


@pytest.mark.asyncio
async def test_an_unreachable_file_is_named_with_the_remedy(tmp_path: Path) -> None:
    missing = open_master(f"sqlite:///{tmp_path}/no/such/a.db", cluster="a", clock=CLOCK)
    with pytest.raises(MasterUnavailable, match=r"no/such/a\.db.*does not exist"):
        await missing.open()
    (tmp_path / "text.db").write_text("this is no database, but it is long enough to be looked at as one" * 50)
    other = open_master(f"sqlite:///{tmp_path}/text.db", cluster="a", clock=CLOCK)
    with pytest.raises(MasterUnavailable, match=r"text\.db.*not an SQLite database"):
        await other.open()


@pytest.mark.asyncio
async def test_masters_of_one_memory_name_and_cluster_share_their_rows() -> None:
    urls = [
        ("memory://one", "a"),
        ("memory://one", "a"),
        ("memory://one", "b"),
        ("memory://two", "a"),
        ("memory:", "a"),
    ]
    masters = [open_master(url, cluster=cluster, clock=CLOCK) for url, cluster in urls]
    for master in masters:
        await master.open()
    item = held()
    await masters[0].insert([item])
    assert [len(await master.due(10**18, 5)) for master in masters] == [1, 1, 0, 0, 0]
