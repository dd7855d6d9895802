"""Table names: one database may hold several clusters and agents, and none of them may see another's rows.

The names in the prefix are for the reader; the digest keeps two that were cut, or differ only by `-` and `_`, apart.
"""

from hashlib import blake2s
from itertools import chain, product, zip_longest

LONGEST_PREFIX = 40
"""Leaves 20 characters for the table or index: the narrowest store allows 63 in all."""

MOST_GUESSED = 10
"""Dashes and underscores of a name that are tried."""

_PLAIN = LONGEST_PREFIX - len("jm_") - len("_abcdef_")


def table_prefix(cluster: str, agent: str | None = None) -> str:
    """What every table of a cluster's master, or of one of its agents, begins with. At most `LONGEST_PREFIX` lower-case
    letters, digits and underscores; a different one for every (cluster, agent)."""
    if agent is None:
        return f"jm_{_plain(cluster, _PLAIN)}_{_digest(cluster)}_"
    shown = (_PLAIN - 1) // 2
    return f"jm_{_plain(cluster, shown)}_{_plain(agent, shown)}_{_digest(f'{cluster}/{agent}')}_"


def cluster_of(prefix: str) -> str | None:
    """The cluster whose master's tables have this prefix; None where the name was cut, or it is no such prefix."""
    parts = prefix.removeprefix("jm_").rsplit("_", 2)
    if len(parts) != 3:
        return None
    pieces = parts[0].split("_")
    # The digest tells which of the underscores were dashes.
    for dashes in product("_-", repeat=min(len(pieces) - 1, MOST_GUESSED)):
        name = "".join(chain.from_iterable(zip_longest(pieces, dashes, fillvalue="")))
        if table_prefix(name) == prefix:
            return name
    return None


def _plain(name: str, longest: int) -> str:
    return name.replace("-", "_")[:longest]


def _digest(name: str) -> str:
    return blake2s(name.encode(), digest_size=3).hexdigest()
