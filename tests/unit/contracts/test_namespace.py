"""Table prefixes keep clusters and agents apart and fit every store."""

import re

from jobmaster.contracts.namespace import LONGEST_PREFIX, cluster_of, table_prefix

NAMES = ("a", "prod", "prod-1", "prod_1", "9lives", "x" * 47 + "1", "x" * 47 + "2", "a-" * 24)


def test_prefixes_are_short_plain_identifiers() -> None:
    for cluster in NAMES:
        for agent in (None, *NAMES):
            prefix = table_prefix(cluster, agent)
            assert re.fullmatch(r"jm_[a-z0-9_]+_[0-9a-f]{6}_", prefix)
            assert len(prefix) <= LONGEST_PREFIX


def test_no_two_clusters_or_agents_share_a_prefix() -> None:
    prefixes = [table_prefix(cluster, agent) for cluster in NAMES for agent in (None, *NAMES)]
    assert len(set(prefixes)) == len(prefixes)


def test_the_prefix_shows_whose_tables_they_are() -> None:
    assert table_prefix("prod").startswith("jm_prod_")
    assert table_prefix("prod", "transport-1").startswith("jm_prod_transport_1_")


def test_a_prefix_tells_its_cluster_unless_the_name_was_cut() -> None:
    for cluster in ("a", "prod", "prod-1", "prod_1", "a-b_c-d", "-".join("abcdefghij")):
        assert cluster_of(table_prefix(cluster)) == cluster
    for other in ("", "users", "jm_prod_", "jm_prod_000000_", table_prefix("x" * 47), table_prefix("prod", "local")):
        assert cluster_of(other) is None
