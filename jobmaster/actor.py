"""Who does something: what the history of the topology says."""

import getpass
import os
from functools import cache
from socket import gethostname


@cache
def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return str(os.getuid()) if hasattr(os, "getuid") else "unknown"


def this_process() -> str:
    """This process, as `user@host:pid`."""
    return f"{_user()}@{gethostname()}:{os.getpid()}"
