"""Where a database file lies, and whether SQLite can be trusted there."""

import os
import sys
from pathlib import Path

from jobmaster.model.errors import ConfigurationError, Refused, UnsafeStore, quoted

_SCHEME = "sqlite:///"
_NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ncpfs", "ceph", "lustre", "vboxsf", "davfs"}
    | {"fuse.sshfs", "fuse.s3fs", "fuse.rclone", "fuse.glusterfs", "fuse.davfs2", "fuse.ceph"}
)


def path_of(url: str) -> str:
    """The file named by `sqlite:///relative.db` or `sqlite:////absolute.db`, as an absolute path with symbolic links
    resolved. Raises `ConfigurationError` for anything else; touches no file."""
    path = url.removeprefix(_SCHEME)
    if path == url or not path or path.startswith((":memory:", "file:")) or "?" in path or "\0" in path:
        fault = (
            f"store URL {quoted(url)}: expected sqlite:///FILE (relative) or sqlite:////FOLDER/FILE (absolute), "
            "without parameters; for a store without a file use memory:"
        )
        raise ConfigurationError([fault])
    return os.path.realpath(path)


def check_location(path: str) -> None:
    """Raise `Refused` if the folder is missing or the path is no plain file, and `UnsafeStore` on a network file
    system, where the shared memory and the locks of WAL don't work."""
    folder = Path(path).parent
    if not folder.is_dir():
        raise Refused(f"{path}: the folder {folder} does not exist; create it or name another file")
    if os.path.exists(path) and not os.path.isfile(path):
        raise Refused(f"{path}: expected a database file, found something else; name another file")
    kind = _file_system(path)
    if kind in _NETWORK:
        raise UnsafeStore(
            path,
            "its file system",
            kind,
            "move the file to a local disk, or use Postgres to share a store between hosts",
            "processes on two hosts would corrupt it",
        )


def _file_system(path: str) -> str:
    """The type of the mount a path lies on; empty where the system does not tell."""
    if not sys.platform.startswith("linux"):
        return ""
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as mounts:
            entries = [line.split(" ")[1:3] for line in mounts]
    except OSError:
        return ""
    best, found = -1, ""
    for mount, kind in entries:
        point = mount.encode("utf-8", "surrogateescape").decode("unicode_escape")
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        # A later mount on the same point covers the earlier one.
        if inside and len(point) >= best:
            best, found = len(point), kind
    return found
