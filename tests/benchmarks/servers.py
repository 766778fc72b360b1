"""The servers that histories are kept on: started when they are first needed, as durable as they can be."""

from __future__ import annotations

import contextlib
import os
import urllib.parse
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from attrs import define, field

from .probes import SCHEMES

__all__ = ["ServerMissing", "Servers", "not_built"]


class ServerMissing(Exception):
    """A server can't be had on this machine."""


def not_built(store: str) -> str | None:
    """Why stepwell has no such store, or None when it has one."""
    from stepwell_stores import urls

    if store not in SCHEMES or SCHEMES[store] in urls._MAKERS:
        return None
    return f"not built yet: no store has URLs that begin with {SCHEMES[store]}://"


@define
class Servers:
    """The servers of one run of the command. They end with it.

    Their files lie where temporary files do (TMPDIR), since a server may run as another user than this command.
    """

    _stack: ExitStack = field(factory=ExitStack)
    _running: dict[str, Any] = field(factory=dict)
    _free: set[int] = field(factory=lambda: set(range(16)))

    @contextlib.contextmanager
    def place(self, kind: str) -> Iterator[str]:
        """The URL of an empty place on a server, emptied again afterwards.

        Raises:
            ServerMissing: there is no such server here.
        """
        server = self._started(kind)
        with getattr(self, f"_{kind}")(server) as url:
            yield url

    def close(self) -> None:
        """End them all."""
        self._running.clear()
        self._stack.close()

    @contextlib.contextmanager
    def _postgres(self, server: Any) -> Iterator[str]:
        name = server.database()
        try:
            yield server.url(name)
        finally:
            server.drop(name)

    @contextlib.contextmanager
    def _redis(self, server: Any) -> Iterator[str]:
        number = self._free.pop()
        try:
            yield server.url(number)
        finally:
            with server.connect(number) as client:
                client.flushdb()
            self._free.add(number)

    @contextlib.contextmanager
    def _s3(self, server: Any) -> Iterator[str]:
        import obstore

        url = server.url()
        prefix = urllib.parse.urlsplit(url).path.strip("/")
        try:
            yield url
        finally:
            bucket = server.open()
            for found in obstore.list(bucket, prefix, chunk_size=1000):
                obstore.delete(bucket, [one["path"] for one in found])

    def _started(self, kind: str) -> Any:
        if kind not in self._running:
            try:
                server = self._stack.enter_context(_launched(kind))
            except (pytest.skip.Exception, pytest.fail.Exception) as error:
                raise ServerMissing(str(error)) from None
            self._running[kind] = server
            if kind == "s3":  # children learn from it where the server is, and who they are
                before = {name: os.environ.get(name) for name in server.environment}
                os.environ.update(server.environment)
                self._stack.callback(_restore, before)
        return self._running[kind]


def _launched(kind: str) -> contextlib.AbstractContextManager[Any]:
    if kind == "postgres":
        from tests.servers.postgres import postgres

        return postgres(durable=True)
    if kind == "redis":
        from tests.servers.valkey import valkey

        return valkey(durable=True)
    from tests.servers.s3 import s3

    return s3()


def _restore(before: dict[str, str | None]) -> None:
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
