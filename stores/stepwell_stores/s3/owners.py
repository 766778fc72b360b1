"""Whether the owner of a lease in a bucket still lives, as far as this machine can tell.

Owners on one machine see each other's end by the file locks of `liveness`, in a directory for temporary files. The
directory has an id of its own, which goes into the lease with the lock's: who looks from another machine, container or
user has another directory, can't tell, and lets the lease lapse.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import tempfile

from ..filelock import FLAGS
from ..liveness import Owners

__all__ = ["MachineOwners"]

_ID = "machine.id"


class MachineOwners:
    """The owners of this user on this machine."""

    def __init__(self) -> None:
        user = os.getuid() if hasattr(os, "getuid") else 0
        self._directory = os.path.join(tempfile.gettempdir(), f"stepwell-{user}")
        self._owners = Owners(os.path.join(self._directory, "owners"))
        self._id: str | None = None

    def own(self) -> str:
        """What is kept with a lease of this process; "" when nobody could tell anything from it."""
        place = self._place(make=True)
        lock = self._owners.own() if place else None
        return f"{place}.{lock}" if lock else ""

    def alive(self, text: str) -> bool:
        """Whether the owner of a lease with this text lives, as far as can be told."""
        place, _, lock = text.partition(".")
        if not lock or place != self._place(make=False):
            return True
        return self._owners.alive(lock)

    def close(self) -> None:
        """The leases that were taken are dead."""
        self._owners.close()

    def _place(self, *, make: bool) -> str | None:
        """The id of the directory; None when there is none that is this user's alone."""
        if self._id is None:
            with contextlib.suppress(OSError, UnicodeDecodeError):
                self._id = self._read(make=make)
        return self._id

    def _read(self, *, make: bool) -> str | None:
        if make:
            with contextlib.suppress(FileExistsError):
                os.mkdir(self._directory, 0o700)
        found = os.stat(self._directory, follow_symlinks=False)
        private = stat.S_ISDIR(found.st_mode) and not found.st_mode & 0o022
        if not private or (hasattr(os, "getuid") and found.st_uid != os.getuid()):
            return None  # somebody else may have made it, and could say that owners are dead
        path = os.path.join(self._directory, _ID)
        if make and not os.path.exists(path):
            own = f"{path}.{secrets.token_hex(8)}"
            fd = os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL | FLAGS, 0o600)
            try:
                os.write(fd, secrets.token_hex(8).encode())
            finally:
                os.close(fd)
            with contextlib.suppress(FileExistsError):
                os.link(own, path)
            os.unlink(own)
        fd = os.open(path, os.O_RDONLY | FLAGS)
        try:
            return os.read(fd, 64).decode("ascii") or None
        finally:
            os.close(fd)
