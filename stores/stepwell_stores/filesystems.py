"""What kind of file system a path is on, and why some can't be trusted with a store.

Locks of a network file system may be granted twice, and its caches may say "synced" for the server. What runs in user
space (FUSE) promises neither. Source: "How To Corrupt An SQLite Database File", section 2; flock(2).
"""

from __future__ import annotations

import os
import re

from stepwell.errors import StoreMisconfiguredError

__all__ = ["is_network", "kind_in", "kind_of", "refuse_network"]

_MOUNTS = "/proc/self/mountinfo"
# fmt: off
_NETWORK = frozenset({
    "9p", "acfs", "afp", "afpfs", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "drvfs", "fuse", "gfs", "gfs2",
    "glusterfs", "gpfs", "lustre", "ncp", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "panfs", "prl_fs", "pvfs2",
    "smb2", "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs", "webdav",
})
# fmt: on
_ESCAPE = re.compile(r"\\([0-7]{3})")


def kind_of(path: str) -> str | None:
    """The type of the file system that an absolute path without links is on, such as `ext4` or `fuse.sshfs`.

    None where the system doesn't tell: it is read from /proc, so on Linux only.
    """
    return kind_in(_MOUNTS, path)


def kind_in(mounts_file: str, path: str) -> str | None:
    """As `kind_of`, by a file in the form of /proc/PID/mountinfo. Source: proc(5)."""
    try:
        with open(mounts_file, encoding="utf-8", errors="surrogateescape") as mounts:
            lines = mounts.readlines()
    except OSError:
        return None
    best, kind = "", None
    for line in lines:  # a later mount covers an earlier one at the same place
        mount, _, source = line.partition(" - ")
        point = _ESCAPE.sub(lambda m: chr(int(m[1], 8)), mount.split(" ")[4])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, source.split(" ")[0]
    return kind


def refuse_network(path: str, url_scheme: str) -> None:
    """Refuse to keep a store at `path` on a network file system.

    Raises:
        StoreMisconfiguredError: with the remedies.
    """
    kind = kind_of(os.path.realpath(path))
    if is_network(kind):
        raise StoreMisconfiguredError(
            f"{path} is on a network or user-space file system ({kind}), whose locks and syncs can't be trusted with a "
            f"store: use a local disk. If you know that this one keeps them, say so: {url_scheme}...?network=allow"
        )


def is_network(kind: str | None) -> bool:
    """Whether a file system of this type can't be trusted with locks and syncs, as far as its type tells."""
    return kind is not None and (kind in _NETWORK or kind.startswith("fuse."))
